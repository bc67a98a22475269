package engine

import (
	"cmp"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// Inventory is what the adapter says of VMs.
type Inventory struct {
	Adapter bool // there is one
	Ready   bool // it has answered, and is believed
	VMs     []core.Instance
}

// Find gives the VM of that name.
func (i Inventory) Find(name string) (core.Instance, bool) {
	for _, in := range i.VMs {
		if in.VM.Name == name {
			return in, true
		}
	}
	return core.Instance{}, false
}

// Inventory is what is known now, sorted by name; it asks nobody.
func (e *Engine) Inventory() Inventory {
	s := e.inv.stock()
	out := Inventory{Adapter: s.adapter, Ready: s.ready && !s.doubtful}
	for _, in := range s.vms {
		out.VMs = append(out.VMs, in)
	}
	slices.SortFunc(out.VMs, func(a, b core.Instance) int {
		return cmp.Or(cmp.Compare(a.VM.Name, b.VM.Name), cmp.Compare(a.VM.Key, b.VM.Key))
	})
	return out
}

// Snapshot is desired state as the engine has it.
func (e *Engine) Snapshot() *state.Snapshot {
	v, _ := e.now()
	return v.snapshot
}
