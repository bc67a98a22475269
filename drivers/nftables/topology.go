package nftables

import (
	"hash/fnv"
	"maps"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// topology is what the rules need to know of the host's links. It is fed by
// netlink and changes at any time, with the policies or without.
type topology struct {
	bridges map[string]bridge // under management, by name
	// unmanaged are ports that look like a VM's on other bridges. A chain of the
	// bridge family cannot ask for the bridge's name on kernels without
	// nft_meta_bridge, so these ports are listed; a new one is closed for the
	// milliseconds until it is.
	unmanaged []string
	// guarded are VM-like ports of managed bridges, sorted.
	guarded []string
}

type bridge struct {
	mac  core.MAC
	zone uint16
}

func topologyOf(s links.Snapshot, o core.Options) topology {
	t := topology{bridges: map[string]bridge{}}
	taken := map[uint16]bool{}
	for _, name := range slices.Sorted(maps.Keys(s.Bridges)) {
		b := s.Bridges[name]
		if b.OpenVSwitch || !o.ManagesBridge(name) {
			continue
		}
		t.bridges[name] = bridge{b.MAC, zoneOf(name, taken)}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ports)) {
		p := s.Ports[name]
		if !o.IsVMPort(name) {
			continue
		}
		if _, managed := t.bridges[p.Bridge]; managed {
			t.guarded = append(t.guarded, name)
		} else {
			t.unmanaged = append(t.unmanaged, name)
		}
	}
	return t
}

// zoneOf derives a bridge's conntrack zone from its name, so that a restarted
// agent finds the flows where it left them. Two names that hash alike are told
// apart in the order of names.
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
	return maps.Equal(t.bridges, o.bridges) && slices.Equal(t.unmanaged, o.unmanaged) && slices.Equal(t.guarded, o.guarded)
}

// addTopology puts chains and elements for the links into the tables.
func (d defs) addTopology(e elements, t topology) {
	for _, port := range t.unmanaged {
		e.add(bridgeTable, d.set(bridgeTable, "unmanaged"), nft.Value{}, nft.IfName(port))
	}
	for name, b := range t.bridges {
		for _, f := range families {
			table := d[f.table]
			table.AddChain(zoneChain(name, b))
			e.add(f.table, d.set(f.table, "entry"), nft.Goto("zone/"+name), nft.IfName(name))
			e.add(f.table, d.set(f.table, "bridges"), nft.Value{}, nft.IfName(name))
		}
	}
}

// zoneChain puts the frames of a bridge into its zone, but not those to the
// bridge's own MAC: the host's answers, and what it routes, are in the host's
// zone, and would be taken for new.
func zoneChain(name string, b bridge) *nft.Chain {
	return &nft.Chain{Name: "zone/" + name, Rules: []nft.Rule{
		rule(equal(etherDst, b.mac[:]), accept()),
		rule([]expr.Any{
			&expr.Immediate{Register: 1, Data: nativeZone(b.zone)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true},
		}),
	}}
}

func nativeZone(z uint16) []byte {
	b := native32(uint32(z)) // a little-endian zone is the first half
	if b[0] == 0 && z != 0 && b[3] == byte(z) {
		return b[2:]
	}
	return b[:2]
}

func guardChain(device string) string { return "link-local/" + device }

// linkLocalGuard drops frames to 01:80:c2:00:00:0X at the ports, or counts them
// only. A bridge hands them to the host, on the port itself, without asking any
// bridge hook.
//
// Each port has a chain of its own: kernels before 6.4 cannot add a device to a
// chain, and take a request to remove one for a request to remove the chain.
func linkLocalGuard(devices []string, countOnly bool) *nft.Table {
	t := nft.NewTable(netdevTable.Family, netdevTable.Name)
	t.AddSet(newCounterSet(counterSet(core.Egress, core.ReasonLinkLocal)))
	// Nearly all frames are for others, as their first four bytes say.
	reserved := []nft.Rule{
		rule(masked(etherDst, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, expr.CmpOpNeq, []byte{0x01, 0x80, 0xc2, 0, 0, 0}), accept()),
		rule(count(core.Egress, core.ReasonLinkLocal)),
	}
	if !countOnly {
		reserved = append(reserved, rule(drop()))
	}
	t.AddChain(&nft.Chain{Name: "reserved", Rules: reserved})
	for _, d := range devices {
		t.AddChain(&nft.Chain{Name: guardChain(d), Rules: []nft.Rule{rule(equal(etherDst4, []byte{0x01, 0x80, 0xc2, 0}), goTo("reserved"))},
			Base: &nft.Base{Type: nft.TypeFilter, Hook: nft.NetDevIngress, Priority: 0, Policy: nft.Accept, Devices: []string{d}}})
	}
	return t
}
