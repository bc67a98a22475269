package nftables

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Interval sets want disjoint elements: contained and partly overlapping ones
// are refused (EEXIST), and a containing one is taken or not depending on the
// order (nft_set_pipapo, kernel 6.18). Prefixes either nest or do not meet,
// which makes taking entries apart simple: a prefix needs only those spans that
// no wider prefix has.

// widest leaves out prefixes that lie within others.
func widest(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, comparePrefixes)
	var out []netip.Prefix
	for _, p := range sorted {
		// Sorted, a containing prefix comes before what it contains, and
		// nothing that it does not contain comes between.
		if n := len(out); n > 0 && out[n-1].Contains(p.Addr()) && out[n-1].Bits() <= p.Bits() {
			continue
		}
		out = append(out, p)
	}
	return out
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// disjoint takes entries with prefix peers apart so that no two of the same
// protocol overlap. The union stays what it was.
func disjoint(entries []core.Entry) []core.Entry {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b core.Entry) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), comparePrefixes(a.Peer.Prefix, b.Peer.Prefix),
			cmp.Compare(a.Span.First, b.Span.First))
	})
	// The chain of prefixes that contain the current one, with all spans that
	// they and what contains them allow.
	type level struct {
		protocol core.Protocol
		prefix   netip.Prefix
		spans    []core.Span
	}
	var stack []level
	var out []core.Entry
	for i := 0; i < len(sorted); {
		e := sorted[i]
		var own []core.Span
		for i < len(sorted) && sorted[i].Protocol == e.Protocol && sorted[i].Peer.Prefix == e.Peer.Prefix {
			own = append(own, sorted[i].Span)
			i++
		}
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			if top.protocol == e.Protocol && top.prefix.Contains(e.Peer.Prefix.Addr()) {
				break
			}
			stack = stack[:len(stack)-1]
		}
		var covered []core.Span
		if len(stack) > 0 {
			covered = stack[len(stack)-1].spans
		}
		for _, s := range subtract(union(own), covered) {
			e.Span = s
			out = append(out, e)
		}
		stack = append(stack, level{e.Protocol, e.Peer.Prefix, union(append(slices.Clone(covered), own...))})
	}
	return out
}

// union sorts spans and merges those that touch.
func union(spans []core.Span) []core.Span {
	s := slices.Clone(spans)
	slices.SortFunc(s, func(a, b core.Span) int { return cmp.Compare(a.First, b.First) })
	var out []core.Span
	for _, x := range s {
		if n := len(out); n > 0 && int(x.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, x.Last)
			continue
		}
		out = append(out, x)
	}
	return out
}

// subtract takes the spans of b, sorted and disjoint, out of those of a.
func subtract(a, b []core.Span) []core.Span {
	var out []core.Span
	for _, x := range a {
		first := int(x.First)
		for _, y := range b {
			if int(y.Last) < first || int(y.First) > int(x.Last) {
				continue
			}
			if int(y.First) > first {
				out = append(out, core.Span{First: uint16(first), Last: y.First - 1})
			}
			first = int(y.Last) + 1
		}
		if first <= int(x.Last) {
			out = append(out, core.Span{First: uint16(first), Last: x.Last})
		}
	}
	return out
}
