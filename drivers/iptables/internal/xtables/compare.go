package xtables

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Difference is one between what should stand and what does.
type Difference struct {
	Object     string // iptables filter chain i-2-7-VM
	Difference string
	About      any
}

// Compare lists how have (what was read, narrowed to ours) differs from want.
func Compare(have, want, read State) []Difference {
	var out []Difference
	add := func(id TableID, chain string, about any, format string, args ...any) {
		out = append(out, Difference{id.String() + " chain " + chain, fmt.Sprintf(format, args...), about})
	}
	for _, id := range slices.SortedFunc(maps.Keys(mergeKeys(have, want)), func(a, b TableID) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Name, b.Name))
	}) {
		h, w := have[id], want[id]
		if h == nil {
			h = NewTable()
		}
		if w == nil {
			w = NewTable()
		}
		for _, name := range slices.Sorted(maps.Keys(w.Chains)) {
			c := w.Chains[name]
			if old, ok := h.Chains[name]; !ok {
				add(id, name, c.About, "missing")
			} else if d := rulesDiffer(old.Rules, c.Rules); d != "" {
				add(id, name, c.About, "%s", d)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(h.Chains)) {
			if _, ok := w.Chains[name]; !ok {
				add(id, name, nil, "unexpected")
			}
		}
		for _, base := range slices.Sorted(maps.Keys(w.Base)) {
			if d := rulesDiffer(h.Base[base], w.Base[base]); d != "" {
				add(id, base, nil, "%s", d)
			} else if read[id] != nil && !atHead(h.Base[base], read[id].Base[base]) {
				add(id, base, nil, "rules of others stand before ours")
			}
		}
	}
	return out
}

func mergeKeys(states ...State) map[TableID]bool {
	ids := map[TableID]bool{}
	for _, s := range states {
		for id := range s {
			ids[id] = true
		}
	}
	return ids
}

// rulesDiffer shows the first rule that is another one.
func rulesDiffer(have, want []Rule) string {
	for i := range max(len(have), len(want)) {
		switch {
		case i >= len(have):
			return fmt.Sprintf("changed: rule %d is missing: %s", i+1, want[i].Text())
		case i >= len(want):
			return fmt.Sprintf("changed: rule %d is unexpected: %s", i+1, have[i].Text())
		case have[i].Key() != want[i].Key():
			return fmt.Sprintf("changed: rule %d is %s, should be %s", i+1, have[i].Text(), want[i].Text())
		}
	}
	return ""
}
