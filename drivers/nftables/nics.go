package nftables

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// elements collects what goes into shared sets: by table, set and key.
type elements map[nft.TableID]map[string]map[nft.Key]nft.Value

// add puts an element into a set of a table. set is the definition, which
// knows how to build the key.
func (e elements) add(t nft.TableID, set *nft.Set, v nft.Value, fields ...nft.Field) {
	sets := e[t]
	if sets == nil {
		sets = map[string]map[nft.Key]nft.Value{}
		e[t] = sets
	}
	m := sets[set.Name]
	if m == nil {
		m = map[nft.Key]nft.Value{}
		sets[set.Name] = m
	}
	m[set.MakeKey(fields...)] = v
}

// identity is one (MAC, prefix) that a NIC may speak with.
type identity struct {
	mac    core.MAC
	prefix netip.Prefix
	own    bool // an own address, not a pair's
}

// identities lists what a checked NIC may speak with, prefixes that lie within
// others left out: overlapping elements of an interval set hang on the order of
// insertion.
func identities(n core.NICPolicy) []identity {
	var all []identity
	for _, a := range n.Addresses {
		all = append(all, identity{n.Key.MAC, netip.PrefixFrom(a, a.BitLen()), true})
	}
	for _, p := range n.Pairs {
		mac := p.MAC
		if mac == (core.MAC{}) {
			mac = n.Key.MAC
		}
		all = append(all, identity{mac, p.Prefix.Masked(), false})
	}
	if hasFamily(n, core.IPv6) {
		for i, m := range macsOf(n) {
			ll := m.LinkLocal()
			all = append(all, identity{m, netip.PrefixFrom(ll, 128), i == 0})
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(id identity) bool {
		return slices.ContainsFunc(all, func(o identity) bool {
			return o.mac == id.mac && !o.prefix.IsSingleIP() && o.prefix != id.prefix &&
				o.prefix.Bits() < id.prefix.Bits() && o.prefix.Contains(id.prefix.Addr()) && !id.prefix.IsSingleIP()
		})
	})
}

// macsOf lists a NIC's own MAC, and then those of its pairs.
func macsOf(n core.NICPolicy) []core.MAC {
	macs := []core.MAC{n.Key.MAC}
	for _, p := range n.Pairs {
		if p.MAC != (core.MAC{}) && !slices.Contains(macs, p.MAC) {
			macs = append(macs, p.MAC)
		}
	}
	return macs
}

// prefixPairs lists the pairs of a family that are more than one address.
func prefixPairs(n core.NICPolicy, f core.Family) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range n.Pairs {
		if core.FamilyOf(p.Prefix.Addr()) == f && !p.Prefix.IsSingleIP() {
			out = append(out, p.Prefix.Masked())
		}
	}
	return out
}

// hasFamily says whether a NIC has an address or a pair in a family.
func hasFamily(n core.NICPolicy, f core.Family) bool {
	return slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return core.FamilyOf(a) == f }) ||
		slices.ContainsFunc(n.Pairs, func(p core.AddressPair) bool { return core.FamilyOf(p.Prefix.Addr()) == f })
}

// defs finds set definitions by name.
type defs map[nft.TableID]*nft.Table

func (d defs) set(t nft.TableID, name string) *nft.Set { return d[t].Sets[name] }

// addNIC puts everything into e that the sets hold for a NIC.
func (d defs) addNIC(e elements, o core.Options, has sides, n core.NICPolicy) {
	if n.Bridge != "" && !o.ManagesBridge(n.Bridge) {
		return // its ports are none of our business
	}
	bridge := func(set string, v nft.Value, fields ...nft.Field) {
		e.add(bridgeTable, d.set(bridgeTable, set), v, fields...)
	}
	none := nft.Value{}
	for _, device := range n.Devices {
		dev := nft.IfName(device)
		bridge("nics", none, dev)
		if !o.IsVMPort(device) {
			bridge("odd-ports", none, dev)
		}
		if n.Kind == core.SystemVM {
			bridge("system", none, dev)
			continue
		}
		for _, f := range families {
			e.add(f.table, d.set(f.table, "entry"), nft.Goto("not-bridged"), dev)
		}
		for _, m := range macsOf(n) {
			bridge("here", none, nft.MAC(m[:]))
			bridge("macs", none, dev, nft.MAC(m[:]))
		}
		mac := nft.MAC(n.Key.MAC[:])
		bridge("own-mac", none, dev, mac)
		bridge("rarp", none, dev, mac, mac, mac)
		for _, f := range core.Families {
			for _, dir := range []core.Direction{core.Ingress, core.Egress} {
				bridge(verdictMap(dir, f), nft.Goto(has.profileOf(n, dir, f).chain()), dev)
			}
		}
		for _, id := range identities(n) {
			if id.prefix.IsSingleIP() { // of the others see addOwned
				bridge(hereSet(id.prefix.Addr()), none, nft.Addr(id.prefix.Addr()))
			}
		}
		if n.SpoofingAllowed {
			bridge("open", none, dev)
			for _, id := range identities(n) { // by them it knows what it is the receiver of
				d.addSource(e, dev, id)
			}
			continue
		}
		if !hasFamily(n, core.IPv4) {
			bridge("bare4", none, dev)
		}
		ll := n.Key.MAC.LinkLocal()
		bridge("dad6", none, dev, nft.Addr(core.SolicitedNode(ll)), nft.Addr(ll))
		if !hasFamily(n, core.IPv6) {
			bridge("bare6", none, dev)
			for _, m := range macsOf(n) {
				bridge("link-local6", none, dev, nft.MAC(m[:]), nft.Addr(m.LinkLocal()))
				bridge("nd6", none, dev, nft.Addr(m.LinkLocal()))
			}
		}
		for _, id := range identities(n) {
			d.addIdentity(e, n, dev, id)
		}
		for _, p := range widest(prefixPairs(n, core.IPv6)) { // an advertisement is good with any MAC
			bridge("nd6-prefix", none, dev, nft.Prefix(p))
		}
	}
}

// addSource puts an identity into the sets of sources, and gives the ending of
// their names and the key's last field.
func (d defs) addSource(e elements, dev nft.Field, id identity) (suffix string, addr nft.Field) {
	suffix, addr = "", nft.Addr(id.prefix.Addr())
	if !id.prefix.IsSingleIP() {
		suffix, addr = "-prefix", nft.Prefix(id.prefix)
	}
	set := "src4"
	if core.FamilyOf(id.prefix.Addr()) == core.IPv6 {
		set = "src6"
	}
	e.add(bridgeTable, d.set(bridgeTable, set+suffix), nft.Value{}, dev, nft.MAC(id.mac[:]), addr)
	return suffix, addr
}

// hereSet names the set that holds all NICs' addresses of a family.
func hereSet(a netip.Addr) string {
	if core.FamilyOf(a) == core.IPv4 {
		return "here4"
	}
	return "here6"
}

func (d defs) addIdentity(e elements, n core.NICPolicy, dev nft.Field, id identity) {
	none := nft.Value{}
	mac := nft.MAC(id.mac[:])
	suffix, addr := d.addSource(e, dev, id)
	bridge := func(set string, fields ...nft.Field) {
		e.add(bridgeTable, d.set(bridgeTable, set), none, fields...)
	}
	f := familyOf(core.FamilyOf(id.prefix.Addr()))
	bridge("macs", dev, mac)
	if f.Family == core.IPv4 {
		bridge("arp4"+suffix, dev, mac, mac, addr)
	} else {
		if id.prefix.IsSingleIP() {
			bridge("nd6", dev, addr)
		}
		if id.own {
			bridge("dad6", dev, nft.Addr(core.SolicitedNode(id.prefix.Addr())), addr)
		}
	}
	// Who may speak of a flow: see the chain "related". Prefixes are addOwned's.
	e.add(f.table, d.set(f.table, "checked"), none, nft.IfName(n.Bridge), mac)
	if id.prefix.IsSingleIP() {
		e.add(f.table, d.set(f.table, "owner"), none, nft.IfName(n.Bridge), mac, addr)
	}
}

// owned is a prefix that some NIC may speak with, as the ip hooks see it: they
// know the bridge and not the port, so that NICs with one virtual MAC meet here,
// and what one has may lie within what another has.
type owned struct {
	bridge string
	mac    core.MAC
	prefix netip.Prefix
	open   bool // by a NIC that may speak with any
}

func ownedBy(o core.Options, n core.NICPolicy) []owned {
	if n.Kind == core.SystemVM || !o.ManagesBridge(n.Bridge) {
		return nil
	}
	var out []owned
	for _, id := range identities(n) {
		if !id.prefix.IsSingleIP() {
			out = append(out, owned{n.Bridge, id.mac, id.prefix, n.SpoofingAllowed})
		}
	}
	return out
}

// addOwned puts the prefixes of all NICs into e, those within others left out.
func (d defs) addOwned(e elements, all map[owned]int) {
	type speaker struct {
		bridge string
		mac    core.MAC
	}
	prefixes := map[speaker][]netip.Prefix{}
	here := map[core.Family][]netip.Prefix{}
	for o := range all {
		f := core.FamilyOf(o.prefix.Addr())
		if here[f] = append(here[f], o.prefix); o.open {
			continue
		}
		s := speaker{o.bridge, o.mac}
		prefixes[s] = append(prefixes[s], o.prefix)
	}
	for _, ps := range here {
		for _, p := range widest(ps) {
			e.add(bridgeTable, d.set(bridgeTable, hereSet(p.Addr())+"-prefix"), nft.Value{}, nft.Prefix(p))
		}
	}
	for s, ps := range prefixes {
		for _, p := range widest(ps) {
			t := familyOf(core.FamilyOf(p.Addr())).table
			e.add(t, d.set(t, "owner-prefix"), nft.Value{}, nft.IfName(s.bridge), nft.MAC(s.mac[:]), nft.Prefix(p))
		}
	}
}

func verdictMap(dir core.Direction, f core.Family) string {
	side := "in"
	if dir == core.Egress {
		side = "out"
	}
	if f == core.IPv4 {
		return side + "4"
	}
	return side + "6"
}
