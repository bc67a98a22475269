package lab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Plug says where a port goes on a host. Empty fields: as before.
type Plug struct{ Bridge, Device string }

// Move migrates a running station to another host, or to another bridge of the
// same one, as live migration does: the station goes on running with its
// addresses and connections, while its devices vanish here and appear there.
// Plugs belong to the ports in order; missing ones are empty.
func (s *Station) Move(to *Host, plugs ...Plug) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		return fmt.Errorf("station %s is stopped; start it before it moves", s.name)
	}
	var err error
	for i, p := range s.ports {
		var plug Plug
		if i < len(plugs) {
			plug = plugs[i]
		}
		if e := s.movePort(p, to, plug); e != nil {
			err = errors.Join(err, fmt.Errorf("station %s: move %s to %s: %w", s.name, p.spec.Device, to.name, e))
		}
	}
	if err != nil {
		return err
	}
	s.host.forget(s)
	s.host = to
	to.adopt(s)
	return to.ready(s.ports...)
}

func (s *Station) movePort(p *Port, to *Host, plug Plug) error {
	if plug.Device == "" {
		plug.Device = p.spec.Device
	}
	if plug.Bridge == "" {
		plug.Bridge = p.spec.Bridge
	}
	source, err := s.host.Links()
	if err != nil {
		return err
	}
	link, err := source.LinkByName(p.spec.Device)
	if err != nil {
		return err
	}
	if to != s.host || plug.Device != p.spec.Device {
		index := link.Attrs().Index
		if err := s.host.Do(func() error { return moveLink(index, int(to.fd), plug.Device) }); err != nil {
			return err
		}
	}
	p.spec.Device, p.spec.Bridge = plug.Device, plug.Bridge
	target, err := to.Links()
	if err != nil {
		return err
	}
	if link, err = target.LinkByName(plug.Device); err != nil {
		return err
	}
	if plug.Bridge != "" {
		bridge, err := target.LinkByName(plug.Bridge)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", plug.Bridge, err)
		}
		if err := target.LinkSetMaster(link, bridge); err != nil {
			return err
		}
	}
	return target.LinkSetUp(link)
}

func (h *Host) forget(s *Station) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, other := range h.stations {
		if other == s {
			h.stations = append(h.stations[:i:i], h.stations[i+1:]...)
			return
		}
	}
}

func (h *Host) adopt(s *Station) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stations = append(h.stations, s)
}

// SetLink brings one of the host's interfaces up or down. It returns when a
// station's device works again.
func (h *Host) SetLink(device string, up bool) error {
	nl, err := h.Links()
	if err != nil {
		return err
	}
	link, err := nl.LinkByName(device)
	if err == nil && up {
		err = nl.LinkSetUp(link)
	} else if err == nil {
		err = nl.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("host %s: interface %s: %w", h.name, device, err)
	}
	if !up {
		return nil
	}
	for _, s := range h.Stations() {
		for _, p := range s.Ports() {
			if p.spec.Device == device {
				return h.ready(p)
			}
		}
	}
	return nil
}

// CableEnd is where a cable is plugged in: as Device into Bridge of Host.
type CableEnd struct {
	Host           *Host
	Bridge, Device string
}

// Cable joins two bridges of two hosts, as through their uplinks.
func Cable(a, b CableEnd) error {
	nl, err := a.Host.Links()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = a.Device, a.Host.nextIndex()
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = b.Device, netlink.NsFd(int(b.Host.fd))
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("cable %s-%s: %w", a.Device, b.Device, err)
	}
	// Each end is, for the other, what eth0 of a station is for its device.
	ends := []*Port{
		{spec: PortSpec{Device: a.Device, Bridge: a.Bridge, Name: b.Device}, ns: b.Host.Namespace},
		{spec: PortSpec{Device: b.Device, Bridge: b.Bridge, Name: a.Device}, ns: a.Host.Namespace},
	}
	for _, end := range []CableEnd{a, b} {
		if err := end.plug(); err != nil {
			return fmt.Errorf("cable %s-%s: host %s: %w", a.Device, b.Device, end.Host.name, err)
		}
	}
	if err := a.Host.ready(ends[0]); err != nil {
		return err
	}
	return b.Host.ready(ends[1])
}

func (e CableEnd) plug() error {
	if err := e.Host.Do(func() error { return disableOffloads(e.Device) }); err != nil {
		return err
	}
	nl, err := e.Host.Links()
	if err != nil {
		return err
	}
	link, err := nl.LinkByName(e.Device)
	if err != nil {
		return err
	}
	bridge, err := nl.LinkByName(e.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", e.Bridge, err)
	}
	if err := nl.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return nl.LinkSetUp(link)
}
