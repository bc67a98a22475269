package iptables

import (
	"context"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Counters gives what was denied to and from each NIC, by reason, from the
// counters that the kernel keeps for each rule; and what passed in all, from the
// devices' own. A chain that is written again starts at nothing.
func (b *Backend) Counters(ctx context.Context) ([]core.Counter, error) {
	b.mu.Lock()
	e := b.enforced
	b.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	sums := map[tally]xtables.Counted{}
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
				addCounts(sums, c.Rules, state[id].Chains[chain].Rules, counts[id][chain])
			}
		}
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
			d := denied[t.nic]
			denied[t.nic] = xtables.Counted{Packets: d.Packets + c.Packets, Bytes: d.Bytes + c.Bytes}
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

// addCounts sums up the counters of labelled rules, when the chain is as it was
// written.
func addCounts(sums map[tally]xtables.Counted, want, have []xtables.Rule, counts []xtables.Counted) {
	if !xtables.SameRules(want, have) || len(counts) != len(want) {
		return
	}
	for i, r := range want {
		if t, ok := r.Label.(tally); ok {
			s := sums[t]
			sums[t] = xtables.Counted{Packets: s.Packets + counts[i].Packets, Bytes: s.Bytes + counts[i].Bytes}
		}
	}
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
