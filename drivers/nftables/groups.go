package nftables

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// A group has up to four chains, one for each direction and family that it has
// entries in. A chain asks at most three sets of CIDRs, whatever their number:
//
//	.../any    addresses, any protocol            interval set
//	.../ports  address . protocol . 16 bits       concatenated interval set
//	.../icmp   address . 16 bits (type, code)     concatenated interval set
//	.../proto  address . protocol                 concatenated interval set
//
// and, for each remote group, the hash set of its members, which all groups
// share, followed by the ports.

func groupChain(group string, d core.Direction, f core.Family) string {
	return "group/" + verdictMap(d, f) + "/" + group
}

func memberSet(group string, f core.Family) string {
	if f == core.IPv4 {
		return "members4/" + group
	}
	return "members6/" + group
}

// side is where an entry stands.
type side struct {
	direction core.Direction
	family    core.Family
}

func sidesOf(g core.GroupPolicy) map[side][]core.Entry {
	out := map[side][]core.Entry{}
	for _, e := range g.Entries {
		s := side{e.Direction, e.Family}
		out[s] = append(out[s], e)
	}
	return out
}

// renderGroup adds the group's chains and sets to the bridge table.
func renderGroup(t *nft.Table, name string, g core.GroupPolicy) {
	for s, entries := range sidesOf(g) {
		groupSide{t, name, s, familyOf(s.family)}.render(entries)
	}
}

type groupSide struct {
	table *nft.Table
	group string
	side
	fam family
}

func (g groupSide) peer() operand {
	if g.direction == core.Ingress {
		return g.fam.src
	}
	return g.fam.dst
}

func (g groupSide) set(kind string, key ...nft.DataType) *nft.Set {
	return g.table.AddSet(&nft.Set{
		Name: groupChain(g.group, g.direction, g.family) + "/" + kind,
		Key:  append(nft.Types(g.fam.addr), key...), Interval: true,
	})
}

func (g groupSide) render(entries []core.Entry) {
	c := g.table.AddChain(&nft.Chain{Name: groupChain(g.group, g.direction, g.family)})
	var any []netip.Prefix
	var ports, icmp, protos []core.Entry
	remote := map[string][]core.Entry{}
	for _, e := range entries {
		switch {
		case e.Peer.Group != "":
			remote[e.Peer.Group] = append(remote[e.Peer.Group], e)
		case e.Protocol == core.AnyProtocol:
			any = append(any, e.Peer.Prefix)
		case e.Protocol.HasPorts():
			ports = append(ports, e)
		case e.Protocol.IsICMP():
			icmp = append(icmp, e)
		default:
			protos = append(protos, e)
		}
	}
	if any = widest(any); len(any) > 0 {
		s := g.set("any")
		for _, p := range any {
			s.Add(nft.Value{}, nft.Prefix(p))
		}
		c.Rules = append(c.Rules, rule(in(s.Name, g.peer()), accept()))
	}
	if boxes := disjoint(ports); len(boxes) > 0 {
		s := g.set("ports", nft.TypeProto, nft.TypePort)
		for _, b := range boxes {
			s.Add(nft.Value{}, nft.Prefix(b.Peer.Prefix), nft.U8(uint8(b.Protocol)), nft.U16Range(b.Span.First, b.Span.Last))
		}
		c.Rules = append(c.Rules, rule(in(s.Name, g.peer(), l4proto, dstPort), accept()))
	}
	if boxes := disjoint(icmp); len(boxes) > 0 {
		s := g.set("icmp", nft.TypePort)
		for _, b := range boxes {
			s.Add(nft.Value{}, nft.Prefix(b.Peer.Prefix), nft.U16Range(b.Span.First, b.Span.Last))
		}
		c.Rules = append(c.Rules, rule(isL4(boxes[0].Protocol), in(s.Name, g.peer(), icmpTyCode), accept()))
	}
	if boxes := disjoint(protos); len(boxes) > 0 {
		s := g.set("proto", nft.TypeProto)
		for _, b := range boxes {
			s.Add(nft.Value{}, nft.Prefix(b.Peer.Prefix), nft.U8(uint8(b.Protocol)))
		}
		c.Rules = append(c.Rules, rule(in(s.Name, g.peer(), l4proto), accept()))
	}
	names := make([]string, 0, len(remote))
	for n := range remote {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		c.Rules = append(c.Rules, g.remote(n, remote[n])...)
	}
}

// remote gives the rules for the members of another group, one for each
// protocol, with a set of port ranges when there are many.
func (g groupSide) remote(peer string, entries []core.Entry) []nft.Rule {
	member := in(memberSet(peer, g.family), g.peer())
	spans := map[core.Protocol][]core.Span{}
	for _, e := range entries {
		spans[e.Protocol] = append(spans[e.Protocol], e.Span)
	}
	if spans[core.AnyProtocol] != nil {
		return []nft.Rule{rule(member, accept())}
	}
	protocols := make([]core.Protocol, 0, len(spans))
	for p := range spans {
		protocols = append(protocols, p)
	}
	slices.Sort(protocols)
	var rules []nft.Rule
	for _, p := range protocols {
		selector := dstPort
		if p.IsICMP() {
			selector = icmpTyCode
		}
		switch {
		case !p.HasPorts() && !p.IsICMP(), len(spans[p]) == 1 && spans[p][0] == core.AnySpan:
			rules = append(rules, rule(isL4(p), member, accept()))
		case len(spans[p]) == 1:
			rules = append(rules, rule(isL4(p), span(selector, spans[p][0]), member, accept()))
		default:
			s := g.table.AddSet(&nft.Set{
				Name: groupChain(g.group, g.direction, g.family) + "/" + p.String() + "/" + peer,
				Key:  nft.Types(nft.TypePort), Interval: true,
			})
			for _, sp := range spans[p] {
				s.Add(nft.Value{}, nft.U16Range(sp.First, sp.Last))
			}
			rules = append(rules, rule(isL4(p), in(s.Name, selector), member, accept()))
		}
	}
	return rules
}

// renderMembers adds a remote group's member sets, with the given members.
func renderMembers(t *nft.Table, name string, members []netip.Addr) {
	for _, f := range families {
		s := t.AddSet(&nft.Set{Name: memberSet(name, f.Family), Key: nft.Types(f.addr)})
		for _, a := range members {
			if core.FamilyOf(a) == f.Family {
				s.Add(nft.Value{}, nft.Addr(a))
			}
		}
	}
}
