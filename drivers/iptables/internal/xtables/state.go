package xtables

import (
	"maps"
	"slices"
	"strings"
)

// Family is one of the three programs' worlds.
type Family uint8

const (
	IPv4 Family = iota
	IPv6
	Bridge // ebtables
)

// Families lists all three.
var Families = []Family{IPv4, IPv6, Bridge}

func (f Family) String() string { return [...]string{"iptables", "ip6tables", "ebtables"}[f] }

// TableID names a table.
type TableID struct {
	Family Family
	Name   string // filter, nat, raw
}

func (t TableID) String() string { return t.Family.String() + " " + t.Name }

// State is the content of tables.
type State map[TableID]*Table

// Table is a table's chains.
type Table struct {
	// Base holds, for a built-in chain, our rules in a state that is wanted,
	// and all rules in one that was read.
	Base map[string][]Rule
	// Chains are those that users make. In a state that is wanted, all are ours.
	Chains map[string]Chain
}

// Chain is a chain that is no built-in one.
type Chain struct {
	Rules []Rule
	// About is carried to errors and drift: what the chain is for.
	About any
}

// NewTable is an empty table.
func NewTable() *Table { return &Table{Base: map[string][]Rule{}, Chains: map[string]Chain{}} }

// Add appends a rule to a chain of ours, and makes the chain.
func (t *Table) Add(chain string, rules ...Rule) {
	c := t.Chains[chain]
	c.Rules = append(c.Rules, rules...)
	t.Chains[chain] = c
}

// Set makes a chain what is given.
func (t *Table) Set(chain string, about any, rules ...Rule) {
	t.Chains[chain] = Chain{Rules: rules, About: about}
}

// Hook appends a rule to our part of a built-in chain.
func (t *Table) Hook(chain string, rules ...Rule) { t.Base[chain] = append(t.Base[chain], rules...) }

// Markers tell chains of ours from those of others in what was read back, by
// name or by the first rule.
type Markers struct {
	Prefix string // names that start so are ours
	// Rules are the keys of first rules that mark a chain as ours, whatever
	// its name.
	Rules []string
}

// Ours narrows what was read to what concerns want: our chains by their
// markers, and those that want names, whoever made them; of built-in chains,
// the rules that lead to such chains.
func (s State) Ours(m Markers, want State) State {
	out := State{}
	for id, t := range s {
		mine := NewTable()
		for name, c := range t.Chains {
			if strings.HasPrefix(name, m.Prefix) || len(c.Rules) > 0 && slices.Contains(m.Rules, c.Rules[0].Key()) || want.has(id, name) {
				mine.Chains[name] = c
			}
		}
		// Parts of a chain of ours bear its name, and no marker: packets would pay.
		for name, c := range t.Chains {
			for part := name; id.Family == Bridge; {
				i := strings.LastIndexByte(part, '-')
				if i < 0 {
					break
				}
				if part = part[:i]; mine.Chains[part].Rules != nil {
					mine.Chains[name] = c
					break
				}
			}
		}
		for base, rules := range t.Base {
			mine.Base[base] = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool {
				_, ok := mine.Chains[r.Target()]
				return !ok
			})
		}
		out[id] = mine
	}
	return out
}

func (s State) has(id TableID, chain string) bool {
	t := s[id]
	if t == nil {
		return false
	}
	_, ok := t.Chains[chain]
	return ok
}

// Empty says that there is nothing in any table.
func (s State) Empty() bool {
	for _, t := range s {
		if len(t.Chains) > 0 {
			return false
		}
		for _, rules := range t.Base {
			if len(rules) > 0 {
				return false
			}
		}
	}
	return true
}

// tables lists a family's tables of both states, sorted.
func tablesOf(f Family, states ...State) []TableID {
	ids := map[TableID]bool{}
	for _, s := range states {
		for id := range s {
			if id.Family == f {
				ids[id] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(ids), func(a, b TableID) int { return strings.Compare(a.Name, b.Name) })
}
