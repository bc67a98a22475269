package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"

	"github.com/ringwall/ringwall/core"
)

// match finds the first entry of the NIC's groups, in their order, that allows
// the packet; peer is the other end's address.
//
// Entries are sorted, so that those that could match are found by halving: a
// group may have 100,000 of them, and a sweep of flows asks 100,000 times.
func match(rs *core.Ruleset, n core.NICPolicy, d core.Direction, p *IP, peer netip.Addr) *Match {
	f := core.FamilyOf(peer)
	protocols := []core.Protocol{core.AnyProtocol}
	if p.Transport != nil {
		protocols = append(protocols, p.Transport.Protocol())
	}
	for _, name := range n.Groups {
		for _, protocol := range protocols {
			es := where(entriesOf(rs.Groups[name].Entries, d, f), func(e *core.Entry) int { return cmp.Compare(e.Protocol, protocol) })
			if e := matchPrefixes(es, p.Transport, peer); e != nil {
				return &Match{name, *e}
			}
			if e := matchGroups(rs, es, p.Transport, peer); e != nil {
				return &Match{name, *e}
			}
		}
	}
	return nil
}

// matchPrefixes tries every prefix that holds the address, widest first.
func matchPrefixes(es []core.Entry, t Transport, peer netip.Addr) *core.Entry {
	es = where(es, func(e *core.Entry) int { return cmp.Compare(e.Peer.Group, "") })
	for bits := 0; bits <= peer.BitLen() && len(es) > 0; bits++ {
		prefix, _ := peer.Prefix(bits)
		same := where(es, func(e *core.Entry) int {
			if c := e.Peer.Prefix.Addr().Compare(prefix.Addr()); c != 0 {
				return c
			}
			return e.Peer.Prefix.Bits() - bits
		})
		for i := range same {
			if selects(&same[i], t) {
				return &same[i]
			}
		}
	}
	return nil
}

// matchGroups tries the remote groups that have the address as a member. They
// sort behind all prefixes.
func matchGroups(rs *core.Ruleset, es []core.Entry, t Transport, peer netip.Addr) *core.Entry {
	for i := len(where(es, func(e *core.Entry) int { return cmp.Compare(e.Peer.Group, "") })); i < len(es); i++ {
		if selects(&es[i], t) && isMember(rs, es[i].Peer.Group, peer) {
			return &es[i]
		}
	}
	return nil
}

// entriesOf cuts out a direction and family.
func entriesOf(es []core.Entry, d core.Direction, f core.Family) []core.Entry {
	return where(es, func(e *core.Entry) int {
		if c := cmp.Compare(e.Direction, d); c != 0 {
			return c
		}
		return cmp.Compare(e.Family, f)
	})
}

// where cuts out the entries for which compare gives 0, by which they are
// sorted.
func where(es []core.Entry, compare func(*core.Entry) int) []core.Entry {
	first := sort.Search(len(es), func(i int) bool { return compare(&es[i]) >= 0 })
	es = es[first:]
	return es[:sort.Search(len(es), func(i int) bool { return compare(&es[i]) > 0 })]
}

// selects says whether an entry of the packet's protocol, or of any, selects
// its ports or its type and code.
func selects(e *core.Entry, t Transport) bool {
	if e.Span == core.AnySpan {
		return true
	}
	_, raw := t.(Raw) // its ports are not to be seen
	return !raw && e.Span.Contains(t.Selector())
}

func isMember(rs *core.Ruleset, group string, a netip.Addr) bool {
	_, member := slices.BinarySearchFunc(rs.Sets[group].Members, a, netip.Addr.Compare)
	return member
}
