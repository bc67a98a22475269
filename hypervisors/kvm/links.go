package kvm

import (
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a network interface of the host.
type Link struct {
	Name   string
	Kind   string // the kernel's word: bridge, openvswitch, tun, macvtap, ...
	Master string // the bridge it is a port of; empty = none
	// MasterKind is the Kind of Master.
	MasterKind string
}

// Kinds that matter here.
const (
	kindBridge = "bridge"
	kindOVS    = "openvswitch"
)

// Links looks up interfaces of the host.
type Links interface {
	// Link finds one by name; ErrNotFound when there is none.
	Link(name string) (Link, error)
	Close() error
}

// OpenLinks asks the kernel about the network namespace of the calling thread,
// wherever its methods are called later.
func OpenLinks() (Links, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return kernelLinks{h}, nil
}

type kernelLinks struct{ h *netlink.Handle }

func (k kernelLinks) Link(name string) (Link, error) {
	l, err := k.h.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return Link{}, fmt.Errorf("interface %s: %w", name, core.ErrNotFound)
	}
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", name, err)
	}
	out := Link{Name: name, Kind: l.Type()}
	if at := l.Attrs().MasterIndex; at != 0 {
		m, err := k.h.LinkByIndex(at)
		if err != nil {
			return Link{}, fmt.Errorf("the bridge of interface %s: %w", name, err)
		}
		out.Master, out.MasterKind = m.Attrs().Name, m.Type()
	}
	return out, nil
}

func (k kernelLinks) Close() error {
	k.h.Close()
	return nil
}

// Locate asks the kernel, and for what it does not know network (the bridge of
// a libvirt network; may be nil), where the domain's taps are plugged in. What
// neither knows stays as the XML says.
func (d *Domain) Locate(links Links, network func(name string) (string, error)) {
	for n := range d.Interfaces {
		i := &d.Interfaces[n]
		if i.Device == "" {
			continue
		}
		l, err := links.Link(i.Device)
		switch {
		case errors.Is(err, core.ErrNotFound): // just gone, or the XML of a dead domain
		case err != nil:
			d.Problems = append(d.Problems, err)
		case l.MasterKind == kindOVS:
			i.OpenVSwitch = true
			if i.Bridge == "" {
				i.Bridge = l.Master
			}
		case l.Master != "":
			i.Bridge = l.Master // somebody may have moved the tap: packets follow the kernel
		}
		if i.Bridge != "" || i.Network == "" || network == nil {
			continue
		}
		if i.Bridge, err = network(i.Network); err != nil {
			d.Problems = append(d.Problems, fmt.Errorf("%s: the bridge of network %s: %w", i.describe(), i.Network, err))
		}
	}
}
