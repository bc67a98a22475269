package nftables

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/core"
)

func matches(entries []core.Entry, p core.Protocol, a netip.Addr, port uint16) bool {
	return slices.ContainsFunc(entries, func(e core.Entry) bool {
		return e.Protocol == p && e.Peer.Prefix.Contains(a) && e.Span.Contains(port)
	})
}

// TestDisjoint: taking entries apart changes no verdict, and no two results
// overlap.
func TestDisjoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := func(label string) netip.Addr { // few addresses, so that prefixes meet
			return netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 1).Draw(t, label)), 0, byte(rapid.IntRange(0, 7).Draw(t, label))})
		}
		var entries []core.Entry
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			first := rapid.IntRange(0, 20).Draw(t, "first")
			entries = append(entries, core.Entry{
				Protocol: rapid.SampledFrom([]core.Protocol{core.ProtocolTCP, core.ProtocolUDP}).Draw(t, "protocol"),
				Span:     core.Span{First: uint16(first), Last: uint16(rapid.IntRange(first, 20).Draw(t, "last"))},
				Peer:     core.Peer{Prefix: netip.PrefixFrom(addr("prefix"), rapid.SampledFrom([]int{0, 8, 15, 24, 29, 30, 32}).Draw(t, "bits")).Masked()},
			})
		}
		out := disjoint(entries)
		for i, a := range out {
			for _, b := range out[i+1:] {
				if a.Protocol == b.Protocol && a.Peer.Prefix.Overlaps(b.Peer.Prefix) && a.Span.First <= b.Span.Last && b.Span.First <= a.Span.Last {
					t.Fatalf("%v and %v overlap", a, b)
				}
			}
		}
		for range 50 {
			a, port := addr("probe"), uint16(rapid.IntRange(0, 22).Draw(t, "port"))
			for _, p := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP} {
				if got, want := matches(out, p, a, port), matches(entries, p, a, port); got != want {
					t.Fatalf("%v %v %d: %v, want %v", p, a, port, got, want)
				}
			}
		}
	})
}

func TestWidest(t *testing.T) {
	in := []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"),
		netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("192.0.2.0/31"), netip.MustParsePrefix("192.0.2.2/32"),
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/31"), netip.MustParsePrefix("192.0.2.2/32")}
	if got := widest(in); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
