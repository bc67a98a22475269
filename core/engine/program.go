package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Programmed is how a NIC stands after Program.
type Programmed struct {
	NICStatus
	Outcome Outcome `json:"outcome"`
}

// Outcome is what became of a NIC that was to be programmed before its VM runs.
type Outcome uint8

const (
	// InForce: it is held to its policy.
	InForce Outcome = iota + 1
	// NoPolicy: no source says anything of it yet. Its port is closed.
	NoPolicy
	// NotOurs: it is on no bridge under management.
	NotOurs
	// Failed: it is closed, or held to an older policy; Reason says why.
	Failed
)

var outcomeNames = [...]string{"", "in-force", "no-policy", "not-ours", "failed"}

func (o Outcome) String() string { return outcomeNames[o] }

// MarshalText and UnmarshalText make an Outcome a word in JSON and YAML.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

func (o *Outcome) UnmarshalText(b []byte) error {
	i := slices.Index(outcomeNames[:], string(b))
	if i < 1 {
		return fmt.Errorf("%q is not an outcome: %w", b, core.ErrInvalid)
	}
	*o = Outcome(i)
	return nil
}

// Program takes a VM for present that is about to run, and answers when its
// NICs are held to what is wanted of them, or says why not. It asks neither the
// adapter nor the hypervisor, which may hold the VM's lock until this returns.
// The VM counts as present until the adapter has spoken of it: a List begun
// after this, or an event that says the same.
//
// ErrNotReady: the adapter has not answered since the start, while policies of
// an earlier life are in force, which could only be lost here. The NICs are
// closed then, until it has.
func (e *Engine) Program(ctx context.Context, in core.Instance) ([]Programmed, error) {
	if e.opts.Adapter == nil {
		return nil, fmt.Errorf("vm %s: there is no hypervisor adapter, so nothing would ever say that it is gone; name one in config (hypervisor.adapter): %w", in.VM.Name, core.ErrUnsupported)
	}
	e.inv.expect(in)
	s, err := e.submit(ctx, &request{})
	if err != nil {
		return nil, err
	}
	v := s.after
	reports, targets := map[string]report{}, maps.Clone(v.targets)
	var errs []error
	for _, name := range e.Points() {
		p := e.points[name]
		reports[name], _ = p.state()
		if !v.enforcesAt(name, in.VM.Key) {
			continue
		}
		rep, err := p.await(ctx, e.stopped, v.targets[name].seq, v.attempts[name])
		if reports[name] = rep; err == nil {
			err = rep.err
			targets[name] = rep.target
		}
		if err != nil {
			errs = append(errs, e.locate(name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("vm %s is not held to its policy yet: %w", in.VM.Name, err)
	}
	return programmed(newExaminer(e, v, targets, reports), in.VM.Key), nil
}

// enforcesAt says whether a VM has a NIC at a point that is under management.
func (v *view) enforcesAt(point string, vm core.VMKey) bool {
	return slices.ContainsFunc(v.byVM[vm], func(k core.NICKey) bool {
		n := v.nics[k]
		return n.present && n.binding.Point == point && v.options.ManagesBridge(n.binding.Bridge)
	})
}

func programmed(x *examiner, vm core.VMKey) []Programmed {
	var out []Programmed
	for _, k := range slices.SortedFunc(slices.Values(x.byVM[vm]), compareNICs) {
		n := x.nics[k]
		if !n.present {
			continue // a source knows more NICs than the VM has
		}
		s, o := x.nic(k), Failed
		switch {
		case s.State == Unmanaged || s.State == Pending:
			o = NotOurs
		case s.State == Enforced, s.State == Conflict && x.wants(k):
			o = InForce // even where a second source claims the VM
		case errors.Is(n.problem, core.ErrNotFound):
			o = NoPolicy
		}
		out = append(out, Programmed{s, o})
	}
	return out
}

func (x *examiner) wants(k core.NICKey) bool {
	t, ok := x.targets[x.nics[k].binding.Point]
	if !ok {
		return false
	}
	_, ok = t.NICs[k]
	return ok
}

// expect takes a VM for present before the adapter knows of it.
func (inv *inventory) expect(in core.Instance) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if len(inv.expected) == 0 {
		select {
		case inv.confirm <- struct{}{}:
		default:
		}
	}
	inv.expected[in.VM.Key] = inv.begun
	inv.claimDevices(in.VM)
	inv.vms[in.VM.Key] = in
	inv.notify()
}

// keepExpected brings back, after a List, the VMs of former that it cannot have
// known of. On the others it has spoken.
func (inv *inventory) keepExpected(list uint64, former map[core.VMKey]core.Instance) {
	for key, begun := range inv.expected {
		if begun < list {
			delete(inv.expected, key)
			continue
		}
		inv.claimDevices(former[key].VM)
		inv.vms[key] = former[key]
	}
}

// doubts says whether an event may be of a former life of an expected VM, or of
// one whose device an expected VM has now. Then only a List can tell. An event
// that says the same is the adapter's word.
func (inv *inventory) doubts(e core.VMEvent) bool {
	vm := e.Instance.VM
	for key := range inv.expected {
		in := inv.vms[key]
		has := in.VM
		switch {
		case key == vm.Key && e.Kind != core.VMStopped && in.DomainID == e.Instance.DomainID && sameBindings(has, vm):
			delete(inv.expected, key)
			return false
		case key == vm.Key, vm.Key == "" && vm.Name == has.Name:
			return true
		case e.Kind != core.VMStopped && shareDevice(has, vm):
			return true
		}
	}
	return false
}

func sameBindings(a, b core.VM) bool {
	return slices.EqualFunc(a.NICs, b.NICs, func(a, b core.NIC) bool {
		return a.MAC == b.MAC && a.Binding.Bridge == b.Binding.Bridge && a.Binding.Point == b.Binding.Point && slices.Equal(a.Binding.Devices, b.Binding.Devices)
	})
}

func shareDevice(a, b core.VM) bool {
	return slices.ContainsFunc(a.NICs, func(x core.NIC) bool {
		return slices.ContainsFunc(b.NICs, func(y core.NIC) bool {
			return x.Binding.Point == y.Binding.Point && slices.ContainsFunc(x.Binding.Devices, func(d string) bool { return slices.Contains(y.Binding.Devices, d) })
		})
	})
}
