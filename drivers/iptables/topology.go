package iptables

import (
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
)

// topology is what the rules need to know of the host's links. It is fed by
// netlink and changes at any time, with the policies or without.
type topology struct {
	bridges []bridge // under management, by name
	// unmanaged are ports that look like a VM's on other bridges. ebtables over
	// nf_tables cannot ask for a port's bridge on kernels without
	// nft_meta_bridge, so that they are listed; a new one is closed for the
	// milliseconds until it is.
	unmanaged []string
	guarded   []string // VM-like ports of managed bridges
}

type bridge struct {
	name    string
	mac     core.MAC
	zone    uint16
	uplinks []string // its ports that do not look like a VM's
}

func topologyOf(s links.Snapshot, o core.Options) topology {
	var t topology
	taken := map[uint16]bool{}
	managed := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(s.Bridges)) {
		b := s.Bridges[name]
		if b.OpenVSwitch || !o.ManagesBridge(name) {
			continue
		}
		managed[name] = len(t.bridges)
		t.bridges = append(t.bridges, bridge{name: name, mac: b.MAC, zone: zoneOf(name, taken)})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ports)) {
		i, ok := managed[s.Ports[name].Bridge]
		switch {
		case ok && o.IsVMPort(name):
			t.guarded = append(t.guarded, name)
		case ok:
			t.bridges[i].uplinks = append(t.bridges[i].uplinks, name)
		case o.IsVMPort(name):
			t.unmanaged = append(t.unmanaged, name)
		}
	}
	return t
}

// zoneOf derives a bridge's conntrack zone from its name, so that a restarted
// agent, and the other driver, find the flows where they were left. Two names
// that hash alike are told apart in the order of names.
func zoneOf(name string, taken map[uint16]bool) uint16 {
	h := fnv.New32a()
	h.Write([]byte(name))
	for z := uint16(h.Sum32()>>16) | 1; ; z += 2 {
		if z != 0 && !taken[z] {
			taken[z] = true
			return z
		}
	}
}

func (t topology) equal(o topology) bool {
	return slices.Equal(t.unmanaged, o.unmanaged) && slices.Equal(t.guarded, o.guarded) &&
		slices.EqualFunc(t.bridges, o.bridges, func(a, b bridge) bool {
			return a.name == b.name && a.mac == b.mac && a.zone == b.zone && slices.Equal(a.uplinks, b.uplinks)
		})
}

func (t topology) has(name string) bool {
	return slices.ContainsFunc(t.bridges, func(b bridge) bool { return b.name == name })
}

func zoneText(z uint16) string { return strconv.Itoa(int(z)) }
