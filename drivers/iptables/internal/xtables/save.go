package xtables

import (
	"fmt"
	"strconv"
	"strings"
)

// Counted is a rule's counters.
type Counted struct{ Packets, Bytes uint64 }

// Plus adds two.
func (c Counted) Plus(o Counted) Counted { return Counted{c.Packets + o.Packets, c.Bytes + o.Bytes} }

// Counts are the counters of what was read, by table, chain and place.
type Counts map[TableID]map[string][]Counted

// Parse reads what a save program printed, with counters when it was asked for
// them.
func Parse(f Family, text string) (State, Counts, error) {
	s, counts := State{}, Counts{}
	var id TableID
	var t *Table
	for n, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(l)
		switch {
		case l == "", l[0] == '#', l == "COMMIT":
			continue
		case l[0] == '*':
			id = TableID{f, l[1:]}
			t = NewTable()
			s[id], counts[id] = t, map[string][]Counted{}
			continue
		case t == nil:
			return nil, nil, fmt.Errorf("%s-save, line %d: %q outside of a table", f, n+1, l)
		case l[0] == ':':
			fields := strings.Fields(l[1:])
			if len(fields) < 2 {
				return nil, nil, fmt.Errorf("%s-save, line %d: %q is no chain", f, n+1, l)
			}
			if isBuiltIn(fields[0]) {
				t.Base[fields[0]] = nil
			} else {
				t.Chains[fields[0]] = Chain{}
			}
			continue
		}
		c, rest, err := counted(l)
		rest, ok := strings.CutPrefix(rest, "-A ")
		if err != nil || !ok {
			return nil, nil, fmt.Errorf("%s-save, line %d: %q is no rule", f, n+1, l)
		}
		chain, spec, _ := strings.Cut(rest, " ")
		r := parseRule(spec)
		if _, user := t.Chains[chain]; user {
			t.Add(chain, r)
		} else {
			t.Hook(chain, r)
		}
		counts[id][chain] = append(counts[id][chain], c)
	}
	return s, counts, nil
}

func counted(l string) (Counted, string, error) {
	if l[0] != '[' {
		return Counted{}, l, nil
	}
	numbers, rest, ok := strings.Cut(l[1:], "] ")
	packets, bytes, ok2 := strings.Cut(numbers, ":")
	p, err := strconv.ParseUint(packets, 10, 64)
	b, err2 := strconv.ParseUint(bytes, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil {
		return Counted{}, "", fmt.Errorf("no counters: %q", l)
	}
	return Counted{p, b}, rest, nil
}

func isBuiltIn(chain string) bool {
	switch chain {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING":
		return true
	}
	return false
}
