package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Difference is one object that is not as it should be. Want or Have is empty
// if the object is missing on that side.
type Difference struct {
	Object string // "bridge ringwall chain early rule 3"
	Want   string // in nft's words
	Have   string
}

func (d Difference) String() string {
	switch {
	case d.Have == "":
		return fmt.Sprintf("%s: missing, want: %s", d.Object, d.Want)
	case d.Want == "":
		return fmt.Sprintf("%s: not ours: %s", d.Object, d.Have)
	}
	return fmt.Sprintf("%s: is: %s, want: %s", d.Object, d.Have, d.Want)
}

// Compare lists what differs between the wanted tables and those read back:
// missing and foreign objects, other rules, elements, policies, hooks. Tables
// that are not wanted are not looked at. What dynamic sets hold and what
// counters have counted is no difference.
func Compare(want, have State) []Difference {
	var list []Difference
	for _, id := range sortedIDs(want) {
		c := comparison{id: id, want: want[id], have: have[id]}
		c.table()
		list = append(list, c.found...)
	}
	return list
}

func sortedIDs(s State) []TableID {
	ids := make([]TableID, 0, len(s))
	for id := range s {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, TableID.compare)
	return ids
}

type comparison struct {
	id         TableID
	want, have *Table
	found      []Difference
}

func (c *comparison) note(object, want, have string) {
	c.found = append(c.found, Difference{strings.TrimSpace(c.id.String() + " " + object), want, have})
}

func (c *comparison) table() {
	if c.have == nil {
		c.found = append(c.found, Difference{"table " + c.id.String(), "present", ""})
		return
	}
	if c.have.Dormant {
		c.found = append(c.found, Difference{"table " + c.id.String(), "active", "dormant"})
	}
	for _, name := range union(c.want.Chains, c.have.Chains) {
		c.chain(name, c.want.Chains[name], c.have.Chains[name])
	}
	for _, name := range union(c.want.Sets, c.have.Sets) {
		c.set(name, c.want.Sets[name], c.have.Sets[name])
	}
	for _, object := range c.have.Foreign {
		if !slices.Contains(c.want.Foreign, object) {
			c.note(object.String(), "", "present")
		}
	}
}

func union[V any](a, b map[string]V) []string {
	names := sortedKeys(a)
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *comparison) chain(name string, want, have *Chain) {
	object := "chain " + name
	switch {
	case have == nil:
		c.note(object, want.headline(c.id.Family), "")
		return
	case want == nil:
		c.note(object, "", fmt.Sprintf("%s with %d rules", have.headline(c.id.Family), len(have.Rules)))
		return
	}
	if w, h := want.headline(c.id.Family), have.headline(c.id.Family); w != h {
		c.note(object, w, h)
	}
	if sameRules(c.id.Family, want.Rules, have.Rules) {
		return
	}
	c.rules(object, want, have)
}

// rules tells which rules differ. Equal rules at the start and the end are left
// out, so that one inserted rule is one difference.
func (c *comparison) rules(object string, want, have *Chain) {
	w, h := want.Rules, have.Rules
	first := 0
	for len(w) > 0 && len(h) > 0 && sameRule(c.id.Family, w[0], h[0]) {
		w, h, first = w[1:], h[1:], first+1
	}
	for len(w) > 0 && len(h) > 0 && sameRule(c.id.Family, w[len(w)-1], h[len(h)-1]) {
		w, h = w[:len(w)-1], h[:len(h)-1]
	}
	text := func(t *Table, rules []Rule, i int) string {
		if i >= len(rules) {
			return ""
		}
		return t.formatRule(rules[i])
	}
	for i := range max(len(w), len(h)) {
		if i < len(w) && i < len(h) && sameRule(c.id.Family, w[i], h[i]) {
			continue
		}
		c.note(fmt.Sprintf("%s rule %d", object, first+i+1), text(c.want, w, i), text(c.have, h, i))
	}
}

func (c *comparison) set(name string, want, have *Set) {
	object := "set " + name
	switch {
	case have == nil:
		c.note(object, want.headline(), "")
		return
	case want == nil:
		c.note(object, "", fmt.Sprintf("%s with %d elements", have.headline(), len(have.Elements)))
		return
	}
	if !want.sameDefinition(have) {
		c.note(object, want.headline(), have.headline())
		return
	}
	if want.Dynamic {
		return
	}
	for _, e := range sortedElements(want.Elements) {
		value, ok := have.Elements[e.key]
		text := want.formatElement(e.key, e.value)
		switch {
		case !ok:
			c.note(object+" element "+text, text, "")
		case value != e.value:
			c.note(object+" element "+want.formatKey(e.key), text, want.formatElement(e.key, value))
		}
	}
	for _, e := range sortedElements(have.Elements) {
		if _, ok := want.Elements[e.key]; !ok {
			text := have.formatElement(e.key, e.value)
			c.note(object+" element "+text, "", text)
		}
	}
}
