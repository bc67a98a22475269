// Package links knows a network namespace's bridges and their ports, reports
// their changes, and turns on a bridge's calls into netfilter.
package links

import (
	"context"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Options say where to look.
type Options struct {
	// NetNS is an open descriptor of a network namespace, or -1 for that of
	// the calling thread.
	NetNS int
}

// NFCall says which of br_netfilter's hooks a bridge calls by its own switch.
// The host-wide sysctls net.bridge.bridge-nf-call-* count as well, for every
// bridge; they are not shown here, since nothing should lean on them.
type NFCall struct{ IPTables, IP6Tables, ARPTables bool }

// AllNFCall is what a managed bridge needs.
var AllNFCall = NFCall{true, true, true}

// Bridge is a bridge device.
type Bridge struct {
	Name  string
	Index int
	MAC   core.MAC // its own: frames to it go to the host
	Up    bool
	// OpenVSwitch: a device of an Open vSwitch, whose frames meet no bridge
	// hook. The fields below are then unknown.
	OpenVSwitch      bool
	NFCall           NFCall
	VLANFiltering    bool
	STP              bool
	GroupForwardMask uint16 // bit n: frames to 01:80:c2:00:00:0n are forwarded
}

// Kind is the kernel's word for the sort of a device (IFLA_INFO_KIND). There
// are more than those named here.
type Kind string

const (
	KindDevice Kind = "" // hardware, mostly
	KindTap    Kind = "tun"
	KindVeth   Kind = "veth"
)

// Port is a device that is plugged into a bridge.
type Port struct {
	Name  string
	Index int
	// Bridge is its master's name. A port of an Open vSwitch shows the
	// datapath (ovs-system): which bridge it is on, only ovsdb knows.
	Bridge  string
	Kind    Kind
	MAC     core.MAC // the host side's; a VM's NIC has another
	Up      bool     // set up by the administrator
	Carrier bool     // and somebody is at the other end
}

// Snapshot is all bridges and ports at one moment, by name.
type Snapshot struct {
	Bridges map[string]Bridge
	Ports   map[string]Port
}

// PortsOf lists the ports of a bridge, in the order in which they were made.
func (s Snapshot) PortsOf(bridge string) []Port {
	var ports []Port
	for _, p := range s.Ports {
		if p.Bridge == bridge {
			ports = append(ports, p)
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return a.Index - b.Index })
	return ports
}

// Clone is a copy that Apply does not touch.
func (s Snapshot) Clone() Snapshot {
	return Snapshot{Bridges: maps.Clone(s.Bridges), Ports: maps.Clone(s.Ports)}
}

// Apply brings the snapshot up to date. On a zero Snapshot it starts one.
func (s *Snapshot) Apply(c Changes) {
	if s.Bridges == nil {
		s.Bridges, s.Ports = map[string]Bridge{}, map[string]Port{}
	}
	apply(s.Bridges, c.Bridges, func(b Bridge) string { return b.Name })
	apply(s.Ports, c.Ports, func(p Port) string { return p.Name })
}

// apply takes all old names away before it adds new ones, because two devices
// may have swapped theirs.
func apply[T any](m map[string]T, changes []Change[T], name func(T) string) {
	for _, c := range changes {
		if c.Before != nil {
			delete(m, name(*c.Before))
		}
	}
	for _, c := range changes {
		if c.After != nil {
			m[name(*c.After)] = *c.After
		}
	}
}

// List is a snapshot of now.
func List(ctx context.Context, o Options) (Snapshot, error) {
	all, err := source(withoutStats).List(ctx, o.NetNS)
	if err != nil {
		return Snapshot{}, err
	}
	m := newMirror()
	m.replace(all)
	var s Snapshot
	s.Apply(m.changes())
	return s, nil
}
