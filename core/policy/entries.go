package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// compileGroup takes a group's rules apart into entries, in normal form.
func compileGroup(g core.Group) []core.Entry {
	var es []core.Entry
	for _, r := range g.Rules {
		es = append(es, EntriesOf(r)...)
	}
	return mergeSpans(es)
}

// EntriesOf takes one rule apart. Families that the rule says nothing about
// get no entries.
func EntriesOf(r core.Rule) []core.Entry {
	var es []core.Entry
	for _, f := range core.Families {
		if !r.Protocol.In(f) {
			continue
		}
		for _, p := range peersOf(r, f) {
			for _, s := range spansOf(r) {
				es = append(es, core.Entry{Direction: r.Direction, Family: f, Protocol: r.Protocol, Span: s, Peer: p})
			}
		}
	}
	return es
}

// everybody is any address of a family.
func everybody(f core.Family) netip.Prefix {
	if f == core.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func peersOf(r core.Rule, f core.Family) []core.Peer {
	if r.Peers == nil {
		return []core.Peer{{Prefix: everybody(f)}}
	}
	var ps []core.Peer
	for _, c := range r.Peers.CIDRs {
		if core.FamilyOf(c.Addr()) == f {
			ps = append(ps, core.Peer{Prefix: c.Masked()})
		}
	}
	for _, g := range r.Peers.Groups {
		ps = append(ps, core.Peer{Group: g})
	}
	return ps
}

func spansOf(r core.Rule) []core.Span {
	switch {
	case r.Protocol.HasPorts() && len(r.Ports) > 0:
		return r.Ports
	case r.Protocol.IsICMP() && r.ICMP != nil:
		return []core.Span{r.ICMP.Span()}
	}
	return []core.Span{core.AnySpan}
}

// mergeSpans sorts entries and joins the spans of those that differ in nothing
// else, where they overlap or touch.
func mergeSpans(es []core.Entry) []core.Entry {
	slices.SortFunc(es, core.Entry.Compare)
	var out []core.Entry
	for _, e := range es {
		if n := len(out); n > 0 && joins(out[n-1], e) {
			out[n-1].Span.Last = max(out[n-1].Span.Last, e.Span.Last)
			continue
		}
		out = append(out, e)
	}
	return out
}

// joins says whether b, which sorts behind a, continues it.
func joins(a, b core.Entry) bool {
	start := int(b.Span.First)
	last := int(a.Span.Last)
	a.Span, b.Span = core.Span{}, core.Span{}
	return a == b && start <= last+1
}

// RuleRef is a rule as its user wrote it.
type RuleRef struct {
	Group string
	Index int // in the group's rules
}

// RuleOf finds the rules of a group that an entry was compiled from: those that
// say all or a part of it, since the spans of several may have been joined.
// Rules that match the selector exactly come first.
func RuleOf(groups []core.Group, m Match) []RuleRef {
	type found struct {
		RuleRef
		exact bool
	}
	var refs []found
	for _, g := range groups {
		if g.Name != m.Group {
			continue
		}
		for i, r := range g.Rules {
			for _, e := range EntriesOf(r) {
				if e.Span.First < m.Entry.Span.First || e.Span.Last > m.Entry.Span.Last {
					continue
				}
				exact := e == m.Entry
				e.Span = m.Entry.Span
				if e == m.Entry {
					refs = append(refs, found{RuleRef{g.Name, i}, exact})
					break
				}
			}
		}
	}
	slices.SortStableFunc(refs, func(a, b found) int {
		return cmp.Compare(map[bool]int{true: 0, false: 1}[a.exact], map[bool]int{true: 0, false: 1}[b.exact])
	})
	out := make([]RuleRef, len(refs))
	for i, f := range refs {
		out[i] = f.RuleRef
	}
	return out
}
