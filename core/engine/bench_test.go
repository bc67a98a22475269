package engine

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// big is a host of CloudStack's kind: every VM with a group of its own.
func big(vms, rules int) input {
	tx := (&state.Snapshot{}).Edit()
	in := input{options: testOptions, stock: stock{adapter: true, ready: true, vms: map[core.VMKey]core.Instance{}},
		backends: map[string]core.Info{"": {Name: "fake", Features: coretest.AllFeatures}}}
	for n := range vms {
		g := state.Group{Source: state.SourceAPI, Group: core.Group{Name: fmt.Sprintf("g-%d", n)}}
		for i := range rules {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24)
			g.Rules = append(g.Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolTCP,
				Ports: []core.Span{{First: uint16(i), Last: uint16(i)}}, Peers: &core.Peers{CIDRs: []netip.Prefix{p}}})
		}
		if err := tx.PutGroup(g); err != nil {
			panic(err)
		}
		if err := tx.PutVM(record(n, g.Name)); err != nil {
			panic(err)
		}
		in.stock.vms[key(n)] = instance(n)
	}
	in.snapshot = tx.Snapshot()
	return in
}

// BenchmarkView is what every batch of changes costs before the backend: the
// view of 4,000 VMs with 20 rules each, and the way there from the one before.
func BenchmarkView(b *testing.B) {
	in := big(4000, 20)
	before := build(in, 0).targets[""]
	for b.Loop() {
		policy.Diff(before.Versioned, build(in, 1).targets[""].Versioned)
	}
}
