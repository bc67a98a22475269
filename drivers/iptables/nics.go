package iptables

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// identity is one (MAC, prefix) that a NIC may speak with, and is spoken to.
type identity struct {
	mac    core.MAC
	prefix netip.Prefix
	own    bool // no pair's
}

// identities lists what a checked NIC may speak with in a family: its addresses,
// its pairs, and in IPv6 the link-local address of each of its MACs.
func identities(n core.NICPolicy, f core.Family) []identity {
	var all []identity
	add := func(id identity) {
		if core.FamilyOf(id.prefix.Addr()) == f && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	for _, a := range n.Addresses {
		add(identity{n.Key.MAC, netip.PrefixFrom(a, a.BitLen()), true})
	}
	for i, m := range macsOf(n) {
		add(identity{m, netip.PrefixFrom(m.LinkLocal(), 128), i == 0})
	}
	for _, p := range n.Pairs {
		add(identity{pairMAC(n, p), p.Prefix.Masked(), false})
	}
	return all
}

func pairMAC(n core.NICPolicy, p core.AddressPair) core.MAC {
	if p.MAC == (core.MAC{}) {
		return n.Key.MAC
	}
	return p.MAC
}

// macsOf lists a NIC's own MAC, and then those of its pairs.
func macsOf(n core.NICPolicy) []core.MAC {
	macs := []core.MAC{n.Key.MAC}
	for _, p := range n.Pairs {
		if m := pairMAC(n, p); !slices.Contains(macs, m) {
			macs = append(macs, m)
		}
	}
	return macs
}

// prefixes are the distinct ones of a NIC's identities.
func prefixes(ids []identity) []netip.Prefix {
	var out []netip.Prefix
	for _, id := range ids {
		if !slices.Contains(out, id.prefix) {
			out = append(out, id.prefix)
		}
	}
	return out
}

// hasFamily says whether a NIC has an address or a pair in a family; the
// link-local address that nobody gave it does not count.
func hasFamily(n core.NICPolicy, f core.Family) bool {
	return slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return core.FamilyOf(a) == f }) ||
		slices.ContainsFunc(n.Pairs, func(p core.AddressPair) bool { return core.FamilyOf(p.Prefix.Addr()) == f })
}

// homeless: checked, and without an address in the family.
func homeless(n core.NICPolicy, f core.Family) bool { return !n.SpoofingAllowed && !hasFamily(n, f) }
