package policy

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// match finds the first entry of the NIC's groups that allows the packet; peer
// is the other end's address.
func match(rs *core.Ruleset, n core.NICPolicy, d core.Direction, p *IP, peer netip.Addr) *Match {
	f := core.FamilyOf(peer)
	for _, name := range n.Groups {
		for _, e := range entriesOf(rs.Groups[name].Entries, d, f) {
			if matchTransport(e, p.Transport) && matchPeer(rs, e.Peer, peer) {
				return &Match{name, e}
			}
		}
	}
	return nil
}

// entriesOf cuts out a direction and family; entries are sorted by both first.
func entriesOf(es []core.Entry, d core.Direction, f core.Family) []core.Entry {
	at := func(f core.Family) int {
		i, _ := slices.BinarySearchFunc(es, f, func(e core.Entry, f core.Family) int {
			if e.Direction != d {
				return int(e.Direction) - int(d)
			}
			if e.Family < f {
				return -1
			}
			return 1 // equal too: the first of its family is wanted
		})
		return i
	}
	return es[at(f):at(f+1)]
}

func matchTransport(e core.Entry, t Transport) bool {
	switch {
	case e.Protocol == core.AnyProtocol:
		return true
	case t == nil || t.Protocol() != e.Protocol:
		return false
	case e.Span == core.AnySpan:
		return true
	}
	_, raw := t.(Raw) // its ports are not to be seen
	return !raw && e.Span.Contains(t.Selector())
}

func matchPeer(rs *core.Ruleset, p core.Peer, a netip.Addr) bool {
	if p.Group == "" {
		return p.Prefix.Contains(a)
	}
	_, member := slices.BinarySearchFunc(rs.Sets[p.Group].Members, a, netip.Addr.Compare)
	return member
}
