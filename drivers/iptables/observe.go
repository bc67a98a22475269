package iptables

import (
	"context"
	"encoding"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Observe reads everything back and compares it with what is wanted.
func (b *Backend) Observe(ctx context.Context) (core.Observation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observe(ctx)
}

func (b *Backend) observe(ctx context.Context) (core.Observation, error) {
	var want objects
	if b.enforced != nil {
		want = b.enforced.objects
	}
	have, err := b.read(ctx, want)
	if err != nil {
		return core.Observation{}, err
	}
	o := core.Observation{Fingerprint: parseFingerprint(have.note)}
	if b.lost != nil {
		o.Drift = []core.Drift{{Object: "tables", Difference: "not as they were left: " + b.lost.Error()}}
	}
	if b.enforced == nil {
		return o, nil
	}
	for _, d := range xtables.Compare(have.objects.rules, want.rules, have.read) {
		o.Drift = append(o.Drift, core.Drift{Object: d.Object, Difference: d.Difference, NIC: nicOf(d.About)})
	}
	o.Drift = append(o.Drift, setDrift(have.objects.sets, want.sets)...)
	now, err := links.List(ctx, links.Options{NetNS: b.fd()})
	if err != nil {
		return core.Observation{}, err
	}
	for _, br := range b.enforced.topo.bridges {
		if l, ok := now.Bridges[br.name]; ok && l.NFCall != links.AllNFCall {
			o.Drift = append(o.Drift, core.Drift{Object: "bridge " + br.name,
				Difference: "netfilter is switched off for it (nf_call_iptables, nf_call_ip6tables or nf_call_arptables is 0)"})
		}
	}
	guard, err := b.guardDrift(now)
	o.Drift = append(o.Drift, guard...)
	return o, err
}

func setDrift(have, want ipset.Sets) []core.Drift {
	var out []core.Drift
	c := ipset.Diff(have, want)
	add := func(name, difference string) {
		var of any
		if want[name] != nil {
			of = want[name].About
		}
		out = append(out, core.Drift{Object: "set " + name, Difference: difference, NIC: nicOf(of)})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Create)) {
		add(name, "missing")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Add)) {
		add(name, "lacks "+listed(c.Add[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Remove)) {
		add(name, "holds "+listed(c.Remove[name])+" beside what is wanted")
	}
	for _, name := range c.Destroy {
		add(name, "unexpected")
	}
	return out
}

// listed shows some of many.
func listed(all []netip.Prefix) string {
	var out []string
	for i, p := range all {
		if i == 5 {
			return strings.Join(out, ", ") + fmt.Sprintf(" and %d more", len(all)-i)
		}
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

func nicOf(of any) core.NICKey {
	if a, ok := of.(about); ok {
		return a.nic
	}
	return core.NICKey{}
}

// parseFingerprint is zero for what is none.
func parseFingerprint(text string) core.Fingerprint {
	var f core.Fingerprint
	var u encoding.TextUnmarshaler = &f
	if u.UnmarshalText([]byte(text)) != nil {
		return core.Fingerprint{}
	}
	return f
}
