package xtables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Script is the input of one restore program: a transaction for each table.
type Script struct {
	Family Family
	lines  []line
	// Changed are the chains that are written or removed, and so lose their
	// counters.
	Changed []ChainID
}

// ChainID names a chain.
type ChainID struct {
	Table TableID
	Chain string
}

// line is one line with what it is about, for errors.
type line struct {
	text  string
	table TableID
	chain string
	about any
}

// Empty says that there is nothing to do.
func (s Script) Empty() bool { return len(s.lines) == 0 }

// Text is what the program reads.
func (s Script) Text() string {
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.String()
}

// Diff leads a family's tables from have to want. have may be what was read
// (narrowed by Ours, with the rules of others in read) or what was last
// written; read is nil in that case.
func Diff(f Family, have, want, read State) Script {
	s := Script{Family: f}
	for _, id := range tablesOf(f, have, want) {
		h, w := have[id], want[id]
		if h == nil {
			h = NewTable()
		}
		if w == nil {
			w = NewTable()
		}
		var foreign map[string][]Rule
		if read != nil && read[id] != nil {
			foreign = read[id].Base
		}
		d := tableDiff{script: &s, id: id}
		d.run(h, w, foreign)
	}
	return s
}

type tableDiff struct {
	script *Script
	id     TableID
	body   []line
}

func (d *tableDiff) add(chain string, about any, format string, args ...any) {
	d.body = append(d.body, line{fmt.Sprintf(format, args...), d.id, chain, about})
}

func (d *tableDiff) run(have, want *Table, read map[string][]Rule) {
	var changed, gone []string
	for _, name := range slices.Sorted(maps.Keys(want.Chains)) {
		if old, ok := have.Chains[name]; !ok || !SameRules(old.Rules, want.Chains[name].Rules) {
			changed = append(changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.Chains)) {
		if _, ok := want.Chains[name]; !ok {
			gone = append(gone, name)
		}
	}
	// Declaring a chain makes it or flushes it, under --noflush just that one.
	// Flushing all first takes every reference out of the way.
	for _, name := range slices.Concat(changed, gone) {
		policy := "- [0:0]"
		if d.id.Family == Bridge {
			policy = "RETURN"
		}
		about := want.Chains[name].About
		if about == nil {
			about = have.Chains[name].About
		}
		d.add(name, about, ":%s %s", name, policy)
	}
	bases := map[string]bool{}
	for b := range have.Base {
		bases[b] = true
	}
	for b := range want.Base {
		bases[b] = true
	}
	sortedBases := slices.Sorted(maps.Keys(bases))
	kept := map[string][]Rule{}
	for _, base := range sortedBases {
		kept[base] = d.unhook(base, have.Base[base], want.Base[base], read[base])
	}
	for _, name := range changed {
		for _, r := range want.Chains[name].Rules {
			d.add(name, want.Chains[name].About, "-A %s %s", name, r.Text())
		}
	}
	for _, base := range sortedBases {
		d.hook(base, kept[base], want.Base[base])
	}
	for _, name := range gone {
		d.add(name, have.Chains[name].About, "-X %s", name)
	}
	if len(d.body) == 0 {
		return
	}
	for _, name := range slices.Concat(changed, gone) {
		d.script.Changed = append(d.script.Changed, ChainID{d.id, name})
	}
	d.script.lines = append(d.script.lines, line{text: "*" + d.id.Name, table: d.id})
	d.script.lines = append(d.script.lines, d.body...)
	d.script.lines = append(d.script.lines, line{text: "COMMIT", table: d.id})
}

// unhook deletes from a built-in chain what is not wanted, and gives what stays:
// a part of want in its order, at the head of the chain.
func (d *tableDiff) unhook(base string, have, want, read []Rule) []Rule {
	wanted := keys(want)
	var kept []Rule
	next := 0
	inOrder := atHead(have, read)
	var gone []Rule
	for _, r := range have {
		at := -1
		for i := next; i < len(wanted); i++ {
			if wanted[i] == r.Key() {
				at = i
				break
			}
		}
		if at < 0 {
			gone = append(gone, r)
			continue
		}
		next = at + 1
		kept = append(kept, want[at])
	}
	if !inOrder {
		// Somebody's rule stands between or before ours.
		gone, kept = have, nil
	}
	for _, r := range gone {
		d.add(base, nil, "-D %s %s", base, r.Text())
	}
	return kept
}

// atHead says whether ours are the first rules of what was read.
func atHead(ours, read []Rule) bool {
	if read == nil {
		return true
	}
	if len(read) < len(ours) {
		return false
	}
	for i, r := range ours {
		if read[i].Key() != r.Key() {
			return false
		}
	}
	return true
}

func (d *tableDiff) hook(base string, kept, want []Rule) {
	k := 0
	for i, r := range want {
		if k < len(kept) && kept[k].Key() == r.Key() {
			k++
			continue
		}
		d.add(base, nil, "-I %s %d %s", base, i+1, r.Text())
	}
}

// SameRules compares what the rules of two chains say.
func SameRules(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool { return x.Key() == y.Key() })
}

func keys(rules []Rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.Key()
	}
	return out
}
