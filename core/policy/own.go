package policy

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// holder answers what belongs to a NIC. "Own" leaves pairs out.
type holder struct{ core.NICPolicy }

func (h holder) checked() bool { return !h.SpoofingAllowed }

// pairMAC is the address a pair is used with.
func (h holder) pairMAC(p core.AddressPair) core.MAC {
	if p.MAC == (core.MAC{}) {
		return h.Key.MAC
	}
	return p.MAC
}

// hasMAC: the NIC's or a pair's.
func (h holder) hasMAC(m core.MAC) bool {
	return m == h.Key.MAC || slices.ContainsFunc(h.Pairs, func(p core.AddressPair) bool { return h.pairMAC(p) == m })
}

// ownAddress: the NIC's addresses and the link-local one of its MAC.
func (h holder) ownAddress(a netip.Addr) bool {
	return slices.Contains(h.Addresses, a) || a == h.Key.MAC.LinkLocal()
}

// hasPair: the address is a pair's, with whatever MAC.
func (h holder) hasPair(a netip.Addr) bool {
	return slices.ContainsFunc(h.Pairs, func(p core.AddressPair) bool { return p.Prefix.Contains(a) })
}

// hasAddress: own or a pair's, the link-local addresses of all its MACs too.
func (h holder) hasAddress(a netip.Addr) bool {
	return h.ownAddress(a) || h.hasPair(a) ||
		slices.ContainsFunc(h.Pairs, func(p core.AddressPair) bool { return h.pairMAC(p).LinkLocal() == a })
}

// hasEnd: the NIC may speak, and is spoken to, with this MAC and address
// together. A MAC that is a pair's brings its own link-local address.
func (h holder) hasEnd(m core.MAC, a netip.Addr) bool {
	if m == h.Key.MAC && slices.Contains(h.Addresses, a) {
		return true
	}
	if h.hasMAC(m) && a == m.LinkLocal() {
		return true
	}
	return slices.ContainsFunc(h.Pairs, func(p core.AddressPair) bool { return h.pairMAC(p) == m && p.Prefix.Contains(a) })
}

// hasFamily: it has an address or a pair of the family. Link-local addresses
// that nobody gave it do not count.
func (h holder) hasFamily(f core.Family) bool {
	return slices.ContainsFunc(h.Addresses, func(a netip.Addr) bool { return core.FamilyOf(a) == f }) ||
		slices.ContainsFunc(h.Pairs, func(p core.AddressPair) bool { return core.FamilyOf(p.Prefix.Addr()) == f })
}
