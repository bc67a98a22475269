package iptables

import (
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// A change goes through three tables' programs, one after the other. So that no
// moment allows more than both rulesets, and never less than they have in common,
// ebtables is first led to what both allow, then iptables and ip6tables change,
// then ebtables goes the rest of the way.

// narrowed renders ebtables for what old and new have in common.
func (r renderer) narrowed(o core.Options, old, next []nicView) xtables.State {
	before := map[core.NICKey]nicView{}
	var shut []string
	for _, v := range old {
		before[v.policy.Key] = v
		shut = append(shut, v.policy.Devices...)
	}
	var common []nicView
	for _, v := range next {
		shut = append(shut, v.policy.Devices...)
		if was, ok := before[v.policy.Key]; ok && was.options.CountOnly == v.options.CountOnly {
			if was.slot != v.slot {
				for _, s := range r.settings.marks.slots {
					v.slot |= s // no packet is judged for all
				}
			}
			if v.policy, ok = commonPolicy(was.policy, v.policy); ok {
				common = append(common, v)
			}
		}
	}
	state := xtables.State{}
	r.frames(state, o, common, shut)
	return state
}

// commonPolicy is what two policies of a NIC allow its frames alike.
func commonPolicy(a, b core.NICPolicy) (core.NICPolicy, bool) {
	if a.Kind != b.Kind || a.Bridge != b.Bridge {
		return b, false
	}
	b.Devices = both(a.Devices, b.Devices)
	switch {
	case a.SpoofingAllowed && b.SpoofingAllowed:
	case a.SpoofingAllowed:
	case b.SpoofingAllowed:
		b.Addresses, b.Pairs, b.SpoofingAllowed = a.Addresses, a.Pairs, false
	default:
		b.Addresses, b.Pairs = both(a.Addresses, b.Addresses), both(a.Pairs, b.Pairs)
	}
	return b, len(b.Devices) > 0
}

func both[T comparable](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(b), func(v T) bool { return !slices.Contains(a, v) })
}

// unchanged narrows, when the ruleset that stands in the kernel is not known, to
// the NICs whose chains are there as they are to be, and to those that are new.
// The others are closed for the moment.
func unchanged(have xtables.State, want objects) []nicView {
	changed := map[core.NICKey]bool{}
	for id, t := range want.rules {
		if id.Family != xtables.Bridge || have[id] == nil {
			continue
		}
		for name, c := range t.Chains {
			of, ok := c.About.(about)
			if old, there := have[id].Chains[name]; ok && there && !xtables.SameRules(old.Rules, c.Rules) {
				changed[of.nic] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(want.views), func(v nicView) bool { return changed[v.policy.Key] })
}
