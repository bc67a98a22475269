package nft

import (
	"slices"

	"github.com/google/nftables/expr"
)

// Diff writes the transaction that turns have into want: by rule and by
// element, keeping tables, chains and sets that are in both. It looks only at
// the objects it is given: of a large state, pass the touched chains and sets
// on both sides, and of a set the touched elements. A set or base chain whose
// definition differs is made again, and for that have must hold the chains that
// use the set. The table's id must be in both states, or the table is new (not
// in have) or gone (not in want).
func Diff(have, want State) *Tx {
	tx := new(Tx)
	ids := make([]TableID, 0, len(want))
	for id := range want {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, TableID.compare)
	for _, id := range ids {
		d := newTableDiff(tx, have[id], want[id])
		d.write()
	}
	gone := make([]TableID, 0)
	for id := range have {
		if want[id] == nil {
			gone = append(gone, id)
		}
	}
	slices.SortFunc(gone, TableID.compare)
	for _, id := range gone {
		tx.DeleteTable(id)
	}
	return tx
}

// tableDiff sorts what changes in a table by what must be done about it.
type tableDiff struct {
	tx         *Tx
	id         TableID
	have, want *Table

	newSets, goneSets, remadeSets       []string
	newChains, goneChains, remadeChains []string
	replaced                            []string // chains to flush and fill again
	appended                            []string // chains whose first rules stay
}

func newTableDiff(tx *Tx, have, want *Table) *tableDiff {
	if have == nil {
		tx.AddTable(want.TableID)
		have = NewTable(want.Family, want.Name)
	} else if have.Dormant {
		tx.AddTable(want.TableID)
	}
	d := &tableDiff{tx: tx, id: want.TableID, have: have, want: want}
	d.compareSets()
	d.compareChains()
	return d
}

func (d *tableDiff) compareSets() {
	for _, name := range sortedKeys(d.want.Sets) {
		have := d.have.Sets[name]
		switch {
		case have == nil:
			d.newSets = append(d.newSets, name)
		case !have.sameDefinition(d.want.Sets[name]):
			d.remadeSets = append(d.remadeSets, name)
		}
	}
	for _, name := range sortedKeys(d.have.Sets) {
		if d.want.Sets[name] == nil {
			d.goneSets = append(d.goneSets, name)
		}
	}
}

func (d *tableDiff) compareChains() {
	for _, name := range sortedKeys(d.want.Chains) {
		have, want := d.have.Chains[name], d.want.Chains[name]
		switch {
		case have == nil:
			d.newChains = append(d.newChains, name)
		case !have.Base.sameHook(want.Base):
			d.remadeChains = append(d.remadeChains, name)
		case d.usesRemadeSet(have), !sameRules(d.id.Family, have.Rules, want.Rules[:min(len(have.Rules), len(want.Rules))]):
			d.replaced = append(d.replaced, name)
		case len(want.Rules) > len(have.Rules):
			d.appended = append(d.appended, name)
		}
	}
	for _, name := range sortedKeys(d.have.Chains) {
		if d.want.Chains[name] == nil {
			d.goneChains = append(d.goneChains, name)
		}
	}
}

func (d *tableDiff) usesRemadeSet(c *Chain) bool {
	if len(d.remadeSets) == 0 {
		return false
	}
	for _, r := range c.Rules {
		for _, e := range r.Exprs {
			if slices.Contains(d.remadeSets, setOf(e)) {
				return true
			}
		}
	}
	return false
}

// setOf is the name of the set that an expression uses, or "".
func setOf(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Lookup:
		return e.SetName
	case *expr.Dynset:
		return e.SetName
	}
	return ""
}

// write appends the messages: first what refers to nothing, then every
// reference that must go, then their targets, then the new references.
func (d *tableDiff) write() {
	d.addTargets()
	d.dropReferences()
	d.dropTargets()
	d.addReferences()
}

func (d *tableDiff) addTargets() {
	for _, name := range d.newChains {
		d.tx.AddChain(d.id, d.want.Chains[name])
	}
	for _, name := range d.newSets {
		d.tx.AddSet(d.id, d.want.Sets[name])
	}
	for _, name := range sortedKeys(d.want.Chains) {
		if have := d.have.Chains[name]; have != nil && !slices.Contains(d.remadeChains, name) {
			d.updateBase(have, d.want.Chains[name])
		}
	}
}

func (d *tableDiff) updateBase(have, want *Chain) {
	if want.Base == nil {
		return
	}
	if have.Base.Policy != want.Base.Policy {
		d.tx.SetPolicy(d.id, want)
	}
	if more := missing(have.Base.Devices, want.Base.Devices); len(more) > 0 {
		d.tx.AddDevices(d.id, want, more)
	}
	if less := missing(want.Base.Devices, have.Base.Devices); len(less) > 0 {
		d.tx.DeleteDevices(d.id, want, less)
	}
}

// missing lists what is in all and not in some.
func missing(some, all []string) []string {
	var list []string
	for _, s := range all {
		if !slices.Contains(some, s) {
			list = append(list, s)
		}
	}
	return list
}

func (d *tableDiff) dropReferences() {
	for _, name := range d.replaced {
		d.flush(name)
	}
	for _, name := range d.goneChains {
		d.flush(name)
	}
	for _, name := range d.remadeChains {
		d.flush(name)
	}
	for _, name := range sortedKeys(d.want.Sets) {
		have, want := d.have.Sets[name], d.want.Sets[name]
		if have == nil || want.Dynamic || slices.Contains(d.remadeSets, name) {
			continue
		}
		gone := make([]Key, 0)
		for key, value := range have.Elements {
			if now, ok := want.Elements[key]; !ok || now != value {
				gone = append(gone, key)
			}
		}
		d.tx.DeleteElements(d.id, have, gone)
	}
}

func (d *tableDiff) flush(name string) {
	if len(d.have.Chains[name].Rules) > 0 {
		d.tx.FlushChain(d.id, name)
	}
}

func (d *tableDiff) dropTargets() {
	for _, name := range d.goneSets {
		d.tx.DeleteSet(d.id, name)
	}
	for _, name := range d.remadeSets {
		d.tx.DeleteSet(d.id, name)
	}
	for _, object := range d.have.Foreign {
		if !slices.Contains(d.want.Foreign, object) {
			d.tx.DeleteObject(d.id, object)
		}
	}
	for _, name := range d.goneChains {
		d.tx.DeleteChain(d.id, name)
	}
	for _, name := range d.remadeChains {
		d.tx.DeleteChain(d.id, name)
	}
	for _, name := range d.remadeChains {
		d.tx.AddChain(d.id, d.want.Chains[name])
	}
	for _, name := range d.remadeSets {
		d.tx.AddSet(d.id, d.want.Sets[name])
	}
}

func (d *tableDiff) addReferences() {
	for _, name := range sortedKeys(d.want.Sets) {
		have, want := d.have.Sets[name], d.want.Sets[name]
		if want.Dynamic {
			continue
		}
		if have == nil || slices.Contains(d.remadeSets, name) {
			d.tx.AddElements(d.id, want, want.Elements)
			continue
		}
		added := make(map[Key]Value)
		for key, value := range want.Elements {
			if was, ok := have.Elements[key]; !ok || was != value {
				added[key] = value
			}
		}
		d.tx.AddElements(d.id, want, added)
	}
	for _, names := range [][]string{d.newChains, d.remadeChains, d.replaced} {
		for _, name := range names {
			d.tx.AppendRules(d.id, name, d.want.Chains[name].Rules)
		}
	}
	for _, name := range d.appended {
		d.tx.AppendRules(d.id, name, d.want.Chains[name].Rules[len(d.have.Chains[name].Rules):])
	}
}
