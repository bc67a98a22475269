package plugin_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

// BenchmarkBoundary is the same calls in process and to a plugin, with a
// backend that only keeps what it is told: what is left is the boundary.
func BenchmarkBoundary(b *testing.B) {
	const nics, rules = 4000, 20
	r := benchRuleset(nics, rules)
	from := r.Fingerprint()
	there, back := change(r, from)

	c, _ := config(b, "good")
	c.Heartbeat = time.Hour
	p := start(b, c)
	d, err := p.Adapter(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	remoteAdapter, err := d.Open(b.Context(), core.Settings{"vms": nics})
	if err != nil {
		b.Fatal(err)
	}
	localAdapter, err := adapterDriver{}.Open(b.Context(), core.Settings{"vms": nics})
	if err != nil {
		b.Fatal(err)
	}
	for _, at := range []struct {
		name    string
		backend core.SecurityGroupBackend
		adapter core.HypervisorAdapter
	}{
		{"in-process", &coretest.FakeBackend{}, localAdapter},
		{"plugin", openBackend(b, p, "", ""), remoteAdapter},
	} {
		b.Run(fmt.Sprintf("Sync-%dx%d/%s", nics, rules, at.name), func(b *testing.B) {
			for b.Loop() {
				if err := at.backend.Sync(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := at.backend.Sync(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		b.Run("Apply-1-NIC/"+at.name, func(b *testing.B) {
			next := there
			for b.Loop() {
				if err := at.backend.Apply(b.Context(), next); err != nil {
					b.Fatal(err)
				}
				if next.From == from {
					next = back
				} else {
					next = there
				}
			}
			if next.From != from { // leave it as it was
				at.backend.Apply(b.Context(), back)
			}
		})
		b.Run("Counters-none/"+at.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := at.backend.Counters(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("List-%d/%s", nics, at.name), func(b *testing.B) {
			for b.Loop() {
				if l, err := at.adapter.List(b.Context()); err != nil || len(l) != nics {
					b.Fatal(len(l), err)
				}
			}
		})
	}
}

// benchRuleset gives every NIC a group of its own.
func benchRuleset(nics, rules int) core.Ruleset {
	r := core.Ruleset{Options: core.Options{Bridges: []core.Pattern{"cloudbr*"}}, Groups: map[string]core.GroupPolicy{}, NICs: map[core.NICKey]core.NICPolicy{}}
	for i := range nics {
		name := fmt.Sprintf("cloudstack/i-2-%d-VM", i)
		var g core.GroupPolicy
		for j := range rules {
			g.Entries = append(g.Entries, core.Entry{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP,
				Span: core.Span{First: uint16(j), Last: uint16(j + 10)}, Peer: core.Peer{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(j), 0}), 24)}})
		}
		r.Groups[name] = g
		k := benchKey(i)
		r.NICs[k] = core.NICPolicy{Key: k, VM: string(k.VM), Bridge: "cloudbr0", Devices: []string{fmt.Sprintf("vnet%d", i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, Groups: []string{name}}
	}
	return r
}

func benchKey(i int) core.NICKey {
	return core.NICKey{VM: core.VMKey(fmt.Sprintf("i-2-%d-VM", i)), MAC: core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
}

// change gives one NIC another address, and takes that back.
func change(r core.Ruleset, from core.Fingerprint) (there, back core.Delta) {
	was := r.NICs[benchKey(7)]
	is := was
	is.Addresses = []netip.Addr{netip.MustParseAddr("10.2.0.7")}
	there = core.Delta{From: from, NICs: []core.NICPolicy{is}}
	next, err := there.Apply(r, from)
	if err != nil {
		panic(err)
	}
	there.To = next.Fingerprint()
	back = core.Delta{From: there.To, To: from, NICs: []core.NICPolicy{was}}
	return there, back
}
