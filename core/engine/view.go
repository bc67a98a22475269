package engine

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// view is what everything should be: desired state and inventory in one, and
// the ruleset of every point. It is immutable.
type view struct {
	seq      uint64
	snapshot *state.Snapshot
	options  core.Options
	*merged
	stock   stock
	ready   bool // the adapter has answered
	targets map[string]*target
	// attempts that had ended at each point when it was given this view.
	attempts map[string]uint64
}

// target is what one point should hold.
type target struct {
	policy.Versioned
	seq uint64 // of the view that brought it
	// unsupported: what the backend cannot do, and is spared.
	unsupported map[unit]error
	// err: the backend can do nothing of it.
	err error
	// doubtful: see inventory.
	doubtful bool
}

// same says whether there is nothing in t that is not in o.
func (t *target) same(o *target) bool {
	return o != nil && t.Fingerprint == o.Fingerprint && t.doubtful == o.doubtful && (t.err == nil) == (o.err == nil) &&
		maps.EqualFunc(t.unsupported, o.unsupported, func(error, error) bool { return true })
}

// input is all that a view is made from.
type input struct {
	snapshot *state.Snapshot
	options  core.Options
	stock    stock
	backends map[string]core.Info
}

// build makes a view. It cannot fail: what is wrong becomes a problem of those
// whom it concerns. The caller decides whether a change may bring one.
func build(in input, seq uint64) *view {
	groups := make([]core.Group, 0, len(in.snapshot.Groups))
	for _, name := range slices.Sorted(maps.Keys(in.snapshot.Groups)) {
		groups = append(groups, in.snapshot.Groups[name].Group)
	}
	v := &view{seq: seq, snapshot: in.snapshot, options: in.options, stock: in.stock, ready: in.stock.ready,
		merged: merge(in.snapshot.VMs, groups, in.stock), targets: map[string]*target{}, attempts: map[string]uint64{}}
	v.validate(groups)
	for _, point := range slices.Sorted(maps.Keys(in.backends)) {
		t := v.compile(point, groups, in.backends[point])
		t.seq, t.doubtful = seq, in.stock.doubtful || !in.stock.ready
		v.targets[point] = t
	}
	return v
}

// indexed is a place in one of the two lists; a NIC has groups by index, too.
var indexed = regexp.MustCompile(`(^| )(vms|groups)\[(\d+)\]`)

// validate notes what core.Validate finds, with names for list indexes, which
// mean nothing to people here.
func (v *view) validate(groups []core.Group) {
	var joined interface{ Unwrap() []error }
	if err := core.Validate(groups, v.vms, core.AllowReserved); !errors.As(err, &joined) {
		return
	}
	named := func(s string) string {
		return indexed.ReplaceAllStringFunc(s, func(at string) string {
			m := indexed.FindStringSubmatch(at)
			i, _ := strconv.Atoi(m[3])
			if m[2] == "vms" {
				return m[1] + "vm " + v.vms[i].Name
			}
			return m[1] + "group " + groups[i].Name
		})
	}
	for _, err := range joined.Unwrap() {
		var f *core.FieldError
		if errors.As(err, &f) {
			err = &core.FieldError{Path: named(f.Path), Value: f.Value, Reason: named(f.Reason)}
		}
		v.problem(err.Error(), err)
	}
}

// compile makes a point's target. NICs that Compile refuses lose their binding,
// and so their policy: their ports are closed.
func (v *view) compile(point string, groups []core.Group, backend core.Info) *target {
	in := policy.Input{Options: v.options, Groups: groups, VMs: v.vms, Point: point}
	rs, err := policy.Compile(in)
	for tries := 0; err != nil; tries++ {
		refused := objectErrors(err)
		if len(refused) == 0 || tries > len(v.nics) {
			v.problem("point "+point+" compile", err)
			return &target{err: err}
		}
		in.VMs = slices.Clone(in.VMs)
		for _, o := range refused {
			v.problem(o.Error(), o)
			for _, k := range o.NICs {
				unbind(in.VMs, k)
				if n := v.nics[k]; n != nil {
					n.problem = o.Err
				}
			}
		}
		rs, err = policy.Compile(in)
	}
	t := &target{Versioned: policy.Version(rs)}
	t.unsupported, t.err = unsupported(backend, rs)
	if t.err != nil {
		v.problem("point "+point+" features", t.err)
	}
	for u, err := range t.unsupported {
		v.problem("point "+point+" "+u.String()+" features", fmt.Errorf("%s: %w", u, err))
	}
	return t
}

func unbind(vms []core.VM, k core.NICKey) {
	for i, vm := range vms {
		if vm.Key != k.VM {
			continue
		}
		vms[i].NICs = slices.Clone(vm.NICs)
		for j, n := range vm.NICs {
			if n.MAC == k.MAC {
				vms[i].NICs[j].Binding = core.Binding{}
			}
		}
	}
}

// objectErrors finds every ObjectError in a tree of errors.
func objectErrors(err error) []*core.ObjectError {
	switch e := err.(type) { //nolint:errorlint // this unwraps
	case nil:
		return nil
	case *core.ObjectError:
		return append([]*core.ObjectError{e}, objectErrors(e.Err)...)
	case interface{ Unwrap() error }:
		return objectErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*core.ObjectError
		for _, e := range e.Unwrap() {
			all = append(all, objectErrors(e)...)
		}
		return all
	}
	return nil
}

// unsupported finds the objects that need what the backend lacks, or the error
// when it is the options that do.
func unsupported(backend core.Info, r core.Ruleset) (map[unit]error, error) {
	lacks := func(r core.Ruleset) error { return core.CheckFeatures(backend.Name, backend.Features, r) }
	if lacks(r) == nil {
		return nil, nil
	}
	if err := lacks(core.Ruleset{Options: r.Options}); err != nil {
		return nil, err
	}
	out := map[unit]error{}
	for name, g := range r.Groups {
		if err := lacks(core.Ruleset{Options: r.Options, Groups: map[string]core.GroupPolicy{name: g}}); err != nil {
			out[unit{group: name}] = err
		}
	}
	vms := map[core.VMKey]map[core.NICKey]core.NICPolicy{}
	for k, n := range r.NICs {
		if vms[k.VM] == nil {
			vms[k.VM] = map[core.NICKey]core.NICPolicy{}
		}
		vms[k.VM][k] = n
	}
	for _, nics := range vms {
		bad := false
		for k, n := range nics {
			if err := lacks(core.Ruleset{Options: r.Options, NICs: map[core.NICKey]core.NICPolicy{k: n}}); err != nil {
				out[unit{nic: k}] = err
				bad = true
			}
		}
		if err := lacks(core.Ruleset{Options: r.Options, NICs: nics}); err != nil && !bad {
			for k := range nics { // together they need multi-nic
				out[unit{nic: k}] = err
			}
		}
	}
	return out, nil
}
