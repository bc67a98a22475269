package iptables

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// counted keeps what rules counted before they were written again: the kernel
// starts a new rule at nothing. What came in between the last look and the
// writing is lost.
type counted struct {
	before map[tally]xtables.Counted
	last   map[xtables.ChainID]map[tally]xtables.Counted
}

func newCounted() counted {
	return counted{map[tally]xtables.Counted{}, map[xtables.ChainID]map[tally]xtables.Counted{}}
}

// rewritten notes that chains start anew.
func (c counted) rewritten(chains []xtables.ChainID) {
	for _, id := range chains {
		for t, n := range c.last[id] {
			c.before[t] = c.before[t].Plus(n)
		}
		delete(c.last, id)
	}
}

// forget drops what was counted for NICs and ports that e does not know, so that
// a later owner of a name starts at nothing.
func (c counted) forget(e *enforced) {
	for t := range c.before {
		if _, ok := e.ruleset.NICs[t.nic]; !ok && !slices.Contains(e.topo.guarded, t.device) {
			delete(c.before, t)
		}
	}
}

// sums reads all counters.
func (b *Backend) sums(ctx context.Context, e *enforced) (map[tally]xtables.Counted, error) {
	for _, f := range xtables.Families {
		state, counts, err := b.tools.Read(ctx, f)
		if err != nil {
			return nil, err
		}
		for id, t := range e.objects.rules {
			if id.Family != f || state[id] == nil {
				continue
			}
			for chain, c := range t.Chains {
				if n := labelledCounts(c.Rules, state[id].Chains[chain].Rules, counts[id][chain]); len(n) > 0 {
					b.counted.last[xtables.ChainID{Table: id, Chain: chain}] = n
				}
			}
		}
	}
	sums := maps.Clone(b.counted.before)
	for _, chain := range b.counted.last {
		for t, n := range chain {
			sums[t] = sums[t].Plus(n)
		}
	}
	return sums, b.countGuards(sums)
}

// labelledCounts gives the counters of labelled rules, when the chain is as it
// was written.
func labelledCounts(want, have []xtables.Rule, counts []xtables.Counted) map[tally]xtables.Counted {
	labelled := slices.ContainsFunc(want, func(r xtables.Rule) bool { return r.Label != nil })
	if !labelled || len(counts) != len(want) || !xtables.SameRules(want, have) {
		return nil
	}
	out := map[tally]xtables.Counted{}
	for i, r := range want {
		if t, ok := r.Label.(tally); ok {
			out[t] = out[t].Plus(counts[i])
		}
	}
	return out
}

// Counters gives what was denied to and from each NIC, by reason, from the
// counters that the kernel keeps for each rule; and what passed in all, from the
// devices' own.
func (b *Backend) Counters(ctx context.Context) ([]core.Counter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.enforced
	if e == nil {
		return nil, nil
	}
	sums, err := b.sums(ctx, e)
	if err != nil {
		return nil, err
	}
	stats, err := links.ReadStats(ctx, links.Options{NetNS: b.fd()})
	if err != nil {
		return nil, err
	}
	device := map[core.NICKey]string{}
	denied := map[core.NICKey]xtables.Counted{}
	for _, v := range e.objects.views {
		device[v.policy.Key] = v.policy.Devices[0]
	}
	var out []core.Counter
	for t, c := range sums {
		if t.device == "" {
			t.device = device[t.nic]
		}
		out = append(out, core.Counter{NIC: t.nic, Device: t.device, Direction: t.direction, Reason: t.reason, Packets: c.Packets, Bytes: c.Bytes})
		if t.direction == core.Egress && t.reason != core.ReasonSystem {
			denied[t.nic] = denied[t.nic].Plus(c)
		}
	}
	for _, v := range e.objects.views {
		out = append(out, passed(v.policy, stats, denied[v.policy.Key])...)
	}
	slices.SortFunc(out, func(x, y core.Counter) int {
		return strings.Compare(x.Device+x.Direction.String()+string(x.Reason), y.Device+y.Direction.String()+string(y.Reason))
	})
	return out, nil
}

func passed(n core.NICPolicy, stats map[string]links.Stats, denied xtables.Counted) []core.Counter {
	var sum links.Stats
	for _, d := range n.Devices {
		s := stats[d]
		sum.RxPackets, sum.RxBytes = sum.RxPackets+s.RxPackets, sum.RxBytes+s.RxBytes
		sum.TxPackets, sum.TxBytes = sum.TxPackets+s.TxPackets, sum.TxBytes+s.TxBytes
	}
	return []core.Counter{
		{NIC: n.Key, Device: n.Devices[0], Direction: core.Egress, Reason: core.ReasonPassed,
			Packets: sum.RxPackets - min(denied.Packets, sum.RxPackets), Bytes: sum.RxBytes - min(denied.Bytes, sum.RxBytes)},
		{NIC: n.Key, Device: n.Devices[0], Direction: core.Ingress, Reason: core.ReasonPassed, Packets: sum.TxPackets, Bytes: sum.TxBytes},
	}
}
