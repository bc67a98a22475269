package state

import (
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Sources that the project has itself. A source's name is the owner of the
// groups and VMs that it puts.
const (
	SourceManifest   = "manifest"
	SourceAPI        = "api"
	SourceCloudStack = "cloudstack"
)

// Group is the desired record of a group.
type Group struct {
	core.Group
	Source string
}

// VM is the desired record of a VM. Bridges and devices in it are hints, which
// count only where no adapter answers.
type VM struct {
	core.VM
	Source string
}

// ValueKey names a value that a source keeps for itself.
type ValueKey struct{ Source, Key string }

// Snapshot is the desired state at one revision. It is immutable, maps and
// slices included: readers share it.
type Snapshot struct {
	Revision uint64 // grows by one with every change that was written
	Groups   map[string]Group
	VMs      map[core.VMKey]VM
	Values   map[ValueKey][]byte
}

// Edit starts a transaction upon the snapshot. It is pure memory: only
// Store.Commit writes.
func (s *Snapshot) Edit() *Tx {
	return &Tx{
		base:    s,
		groups:  layer[string, Group]{base: s.Groups},
		vms:     layer[core.VMKey, VM]{base: s.VMs},
		values:  layer[ValueKey, []byte]{base: s.Values},
		touched: Touched{Groups: map[string]bool{}, VMs: map[core.VMKey]bool{}},
	}
}

// clone makes the record independent of its giver and gives empty lists one
// form, so that records compare by DeepEqual.
func (g Group) clone() Group {
	g.Rules = list(g.Rules)
	for i, r := range g.Rules {
		r.Ports = list(r.Ports)
		if r.ICMP != nil {
			r.ICMP = &core.ICMPMatch{Type: pointer(r.ICMP.Type), Code: pointer(r.ICMP.Code)}
		}
		if r.Peers != nil {
			r.Peers = &core.Peers{CIDRs: list(r.Peers.CIDRs), Groups: list(r.Peers.Groups)}
		}
		g.Rules[i] = r
	}
	return g
}

func (v VM) clone() VM {
	v.NICs = list(v.NICs)
	for i, n := range v.NICs {
		n.Addresses, n.Pairs, n.Groups = list(n.Addresses), list(n.Pairs), list(n.Groups)
		n.Binding = core.Binding{Bridge: n.Binding.Bridge, Devices: list(n.Binding.Devices)}
		v.NICs[i] = n
	}
	return v
}

func list[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

func pointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
