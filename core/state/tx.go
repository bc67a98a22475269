package state

import (
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Tx is a set of changes to a Snapshot, in memory. It is not safe for
// concurrent use, and must not be kept beyond the function it was given to.
type Tx struct {
	base    *Snapshot
	groups  layer[string, Group]
	vms     layer[core.VMKey, VM]
	values  layer[ValueKey, []byte]
	touched Touched
}

// Touched names what a Tx has put or deleted, even where nothing changed by
// it.
type Touched struct {
	Groups map[string]bool
	VMs    map[core.VMKey]bool
}

// Touched says what was put or deleted so far.
func (tx *Tx) Touched() Touched { return tx.touched }

// Stage runs fn upon what tx holds. When fn fails, its changes are taken back
// and tx goes on without them.
func (tx *Tx) Stage(fn func(*Tx) error) error {
	child := tx.Child()
	if err := fn(child); err != nil {
		return err
	}
	tx.Absorb(child)
	return nil
}

// Child starts a transaction upon what tx holds, for Absorb.
func (tx *Tx) Child() *Tx {
	return &Tx{base: tx.base, groups: tx.groups.push(), vms: tx.vms.push(), values: tx.values.push(),
		touched: Touched{Groups: map[string]bool{}, VMs: map[core.VMKey]bool{}}}
}

// Absorb takes over the changes of a child.
func (tx *Tx) Absorb(child *Tx) {
	tx.groups.absorb(child.groups)
	tx.vms.absorb(child.vms)
	tx.values.absorb(child.values)
	maps.Copy(tx.touched.Groups, child.touched.Groups)
	maps.Copy(tx.touched.VMs, child.touched.VMs)
}

// Snapshot is the state as it will be when tx is committed.
func (tx *Tx) Snapshot() *Snapshot {
	s := &Snapshot{Revision: tx.base.Revision, Groups: tx.groups.merged(), VMs: tx.vms.merged(), Values: tx.values.merged()}
	if !tx.empty() {
		s.Revision++
	}
	return s
}

func (tx *Tx) empty() bool {
	return len(tx.groups.over) == 0 && len(tx.vms.over) == 0 && len(tx.values.over) == 0
}

// Group finds a group by name. The result shares memory with the state: do not
// change it.
func (tx *Tx) Group(name string) (Group, bool) { return tx.groups.get(name) }

// Groups walks all groups, in no order.
func (tx *Tx) Groups() iter.Seq2[string, Group] { return tx.groups.all() }

// PutGroup creates or replaces a group. ErrInvalid: no name or no source, or
// a reserved name from another source than cloudstack. ErrConflict: the group
// is another source's.
func (tx *Tx) PutGroup(g Group) error {
	switch {
	case g.Source == "":
		return &core.FieldError{Path: "source", Reason: "a group needs one"}
	case g.Source != SourceCloudStack && strings.HasPrefix(g.Name, core.ReservedGroupPrefix):
		return &core.FieldError{Path: "name", Value: g.Name, Reason: "names starting with " + core.ReservedGroupPrefix + " are reserved; choose another"}
	}
	if err := checkKey("name", g.Name); err != nil {
		return err
	}
	if err := g.check(); err != nil {
		return err
	}
	old, ok := tx.Group(g.Name)
	if ok {
		if err := own("group", g.Name, old.Source, g.Source); err != nil {
			return err
		}
	}
	g = g.clone()
	tx.touched.Groups[g.Name] = true
	if !ok || !reflect.DeepEqual(old, g) {
		tx.groups.set(g.Name, &g)
	}
	return nil
}

// DeleteGroup takes a source's group out. ErrNotFound: there is none of that
// name. ErrConflict: it is another source's.
func (tx *Tx) DeleteGroup(source, name string) error {
	old, ok := tx.Group(name)
	if !ok {
		return fmt.Errorf("group %s: %w", name, core.ErrNotFound)
	}
	if err := own("group", name, old.Source, source); err != nil {
		return err
	}
	tx.touched.Groups[name] = true
	tx.groups.set(name, nil)
	return nil
}

// VM finds a VM by key. The result shares memory with the state: do not change
// it.
func (tx *Tx) VM(key core.VMKey) (VM, bool) { return tx.vms.get(key) }

// VMs walks all VMs, in no order.
func (tx *Tx) VMs() iter.Seq2[core.VMKey, VM] { return tx.vms.all() }

// PutVM creates or replaces a VM's record. An empty name becomes the key.
// ErrInvalid: no key, no source, two NICs with one MAC, or what the file could
// not keep. ErrConflict: the VM, by key or by name, is another source's.
func (tx *Tx) PutVM(v VM) error {
	if v.Source == "" {
		return &core.FieldError{Path: "source", Reason: "a VM needs one"}
	}
	if err := checkKey("key", string(v.Key)); err != nil {
		return err
	}
	if v.Name == "" {
		v.Name = string(v.Key)
	}
	if err := v.check(); err != nil {
		return err
	}
	// One source may know a VM by UUID and another by name.
	for _, key := range []core.VMKey{v.Key, core.VMKey(v.Name)} {
		if other, ok := tx.VM(key); ok {
			if err := own("vm", v.Name, other.Source, v.Source); err != nil {
				return err
			}
		}
	}
	v = v.clone()
	old, ok := tx.VM(v.Key)
	tx.touched.VMs[v.Key] = true
	if !ok || !reflect.DeepEqual(old, v) {
		tx.vms.set(v.Key, &v)
	}
	return nil
}

// DeleteVM takes a source's VM out. ErrNotFound: there is none with that key.
// ErrConflict: it is another source's.
func (tx *Tx) DeleteVM(source string, key core.VMKey) error {
	old, ok := tx.VM(key)
	if !ok {
		return fmt.Errorf("vm %s: %w", key, core.ErrNotFound)
	}
	if err := own("vm", string(key), old.Source, source); err != nil {
		return err
	}
	tx.touched.VMs[key] = true
	tx.vms.set(key, nil)
	return nil
}

// Value finds what a source has kept under key. Do not change it.
func (tx *Tx) Value(source, key string) ([]byte, bool) { return tx.values.get(ValueKey{source, key}) }

// Values walks what a source has kept, in no order.
func (tx *Tx) Values(source string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range tx.values.all() {
			if k.Source == source && !yield(k.Key, v) {
				return
			}
		}
	}
}

// PutValue keeps a value for a source. ErrInvalid: no source or no key.
func (tx *Tx) PutValue(source, key string, value []byte) error {
	if err := checkKey("source", source); err != nil {
		return err
	}
	if err := checkKey("key", key); err != nil {
		return err
	}
	if old, ok := tx.Value(source, key); ok && string(old) == string(value) {
		return nil
	}
	value = slices.Clone(value)
	tx.values.set(ValueKey{source, key}, &value)
	return nil
}

// DeleteValue forgets a value; it need not be there.
func (tx *Tx) DeleteValue(source, key string) {
	if _, ok := tx.Value(source, key); ok {
		tx.values.set(ValueKey{source, key}, nil)
	}
}

func own(kind, name, owner, claimant string) error {
	if owner != claimant {
		return fmt.Errorf("%s %s belongs to source %s; source %s cannot change it: delete it there first: %w", kind, name, owner, claimant, core.ErrConflict)
	}
	return nil
}
