package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/source/manifest"
	"github.com/ringwall/ringwall/core/state"
)

// Apply puts what a manifest names.
func (a *Agent) Apply(ctx context.Context, in api.ApplyRequest) (api.Change, error) {
	m, err := manifest.Parse([]byte(in.Manifest))
	if err != nil {
		return api.Change{}, err
	}
	return a.change(ctx, in.DryRun, func(r *recorder) error {
		for _, g := range m.Groups {
			if err := r.putGroup(g); err != nil {
				return err
			}
		}
		for _, vm := range m.VMs {
			if err := r.putVM(vm); err != nil {
				return err
			}
		}
		if in.Prune {
			if err := r.prune(m); err != nil {
				return err
			}
		}
		return m.CheckGroups(func(name string) bool {
			_, ok := r.tx.Group(name)
			return ok
		})
	})
}

// Delete takes groups and VMs away.
func (a *Agent) Delete(ctx context.Context, in api.DeleteRequest) (api.Change, error) {
	if len(in.Groups)+len(in.VMs) == 0 {
		return api.Change{}, &core.FieldError{Path: "request", Reason: "names no group and no VM"}
	}
	return a.change(ctx, in.DryRun, func(r *recorder) error {
		var errs []error
		note := func(err error) {
			if !in.IgnoreMissing || !errors.Is(err, core.ErrNotFound) {
				errs = append(errs, err)
			}
		}
		for _, name := range in.VMs {
			note(r.deleteVM(name))
		}
		for _, name := range in.Groups {
			note(r.deleteGroup(name))
		}
		for _, name := range in.Groups {
			note(r.unused(name))
		}
		return errors.Join(errs...)
	})
}

// change runs edit upon desired state, or only plans it.
func (a *Agent) change(ctx context.Context, dry bool, edit func(*recorder) error) (api.Change, error) {
	var r *recorder
	run := func(tx *state.Tx) error {
		r = &recorder{tx: tx} // it may run more than once
		return edit(r)
	}
	if dry {
		if err := a.ready(ctx); err != nil {
			return api.Change{}, err
		}
		deltas, err := a.engine.Plan(ctx, run)
		if err != nil {
			return api.Change{}, err
		}
		out := api.Change{Objects: r.objects}
		for _, point := range slices.Sorted(maps.Keys(deltas)) {
			now, _ := a.engine.Ruleset(point) // empty when it is not known: then nothing goes
			out.Elements = append(out.Elements, elements(point, now, deltas[point])...)
		}
		return out, nil
	}
	if a.o.Standalone {
		a.Start()
	}
	res, err := a.engine.Change(ctx, run)
	if err != nil {
		return api.Change{}, err
	}
	out := api.Change{Objects: r.objects, NICs: res.NICs}
	for i := range out.NICs {
		strip(&out.NICs[i])
	}
	return out, nil
}

// recorder edits desired state on behalf of manifests, and notes what becomes
// of each object.
type recorder struct {
	tx      *state.Tx
	objects []api.ObjectChange
}

func (r *recorder) note(kind, name string, existed bool, before, after any) {
	action := api.Created
	switch {
	case existed && reflect.DeepEqual(before, after):
		action = api.Unchanged
	case existed:
		action = api.Updated
	}
	r.objects = append(r.objects, api.ObjectChange{Kind: kind, Name: name, Action: action})
}

func (r *recorder) putGroup(g core.Group) error {
	before, existed := r.tx.Group(g.Name)
	if err := r.tx.PutGroup(state.Group{Group: g, Source: state.SourceManifest}); err != nil {
		return err
	}
	after, _ := r.tx.Group(g.Name)
	r.note("group", g.Name, existed, before, after)
	return nil
}

func (r *recorder) putVM(vm core.VM) error {
	before, existed := r.tx.VM(vm.Key)
	if err := r.tx.PutVM(state.VM{VM: vm, Source: state.SourceManifest}); err != nil {
		return err
	}
	after, _ := r.tx.VM(vm.Key)
	r.note("vm", after.Name, existed, before, after)
	return nil
}

func (r *recorder) deleteGroup(name string) error {
	if err := r.tx.DeleteGroup(state.SourceManifest, name); err != nil {
		return err
	}
	r.objects = append(r.objects, api.ObjectChange{Kind: "group", Name: name, Action: api.Deleted})
	return nil
}

// unused refuses the deletion of a group that something refers to still.
func (r *recorder) unused(group string) error {
	if _, there := r.tx.Group(group); there {
		return nil
	}
	var users []string
	for _, vm := range r.tx.VMs() {
		if slices.ContainsFunc(vm.NICs, func(n core.NIC) bool { return slices.Contains(n.Groups, group) }) {
			users = append(users, "vm "+vm.Name)
		}
	}
	for _, g := range r.tx.Groups() {
		if slices.ContainsFunc(g.Rules, func(r core.Rule) bool { return r.Peers != nil && slices.Contains(r.Peers.Groups, group) }) {
			users = append(users, "group "+g.Name)
		}
	}
	if len(users) == 0 {
		return nil
	}
	slices.Sort(users)
	return fmt.Errorf("group %s is in use by %s; take it out there first: %w", group, strings.Join(users, ", "), core.ErrConflict)
}

// deleteVM takes a key, or a name that one VM has.
func (r *recorder) deleteVM(name string) error {
	key := core.VMKey(name)
	if _, ok := r.tx.VM(key); !ok {
		var named []core.VMKey
		for k, vm := range r.tx.VMs() {
			if vm.Name == name {
				named = append(named, k)
			}
		}
		if len(named) > 1 {
			slices.Sort(named)
			return fmt.Errorf("vm %s: several have that name; use a key: %v: %w", name, named, core.ErrConflict)
		}
		if len(named) == 1 {
			key = named[0]
		}
	}
	if err := r.tx.DeleteVM(state.SourceManifest, key); err != nil {
		return err
	}
	r.objects = append(r.objects, api.ObjectChange{Kind: "vm", Name: name, Action: api.Deleted})
	return nil
}

// prune deletes what manifests have put and m does not name.
func (r *recorder) prune(m manifest.Manifest) error {
	groups, vms := map[string]bool{}, map[core.VMKey]bool{}
	for _, g := range m.Groups {
		groups[g.Name] = true
	}
	for _, vm := range m.VMs {
		vms[vm.Key] = true
	}
	var errs []error
	for _, key := range stale(r.tx.VMs(), func(v state.VM) bool { return v.Source == state.SourceManifest && !vms[v.Key] }) {
		errs = append(errs, r.deleteVM(string(key)))
	}
	for _, name := range stale(r.tx.Groups(), func(g state.Group) bool { return g.Source == state.SourceManifest && !groups[g.Name] }) {
		errs = append(errs, r.deleteGroup(name))
	}
	return errors.Join(errs...)
}

// stale lists the keys of records that is says yes to, sorted.
func stale[K ~string, V any](records func(func(K, V) bool), is func(V) bool) (out []K) {
	for k, v := range records {
		if is(v) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// elements puts a delta into lines. now is the ruleset that it leads on from.
func elements(point string, now core.Ruleset, d core.Delta) (out []api.Element) {
	line := func(add bool, what, value string) {
		out = append(out, api.Element{Point: point, Add: add, What: what, Value: value})
	}
	if d.Options != nil {
		line(false, "options", optionText(now.Options))
		line(true, "options", optionText(*d.Options))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Groups)) {
		g, what := d.Groups[name], "group "+name
		gone := g.Remove
		if g.Gone {
			gone = now.Groups[name].Entries
		}
		if _, had := now.Groups[name]; !had && len(g.Add) == 0 {
			line(true, what, "no rules")
		}
		if g.Gone && len(gone) == 0 {
			line(false, what, "no rules")
		}
		for _, e := range gone {
			line(false, what, entryText(e))
		}
		for _, e := range g.Add {
			line(true, what, entryText(e))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Sets)) {
		s, what := d.Sets[name], "members of "+name
		gone := s.Remove
		if s.Gone {
			gone = now.Sets[name].Members
		}
		if len(gone) > 0 {
			line(false, what, addresses(gone))
		}
		if len(s.Add) > 0 {
			line(true, what, addresses(s.Add))
		}
	}
	for _, k := range d.Removed {
		line(false, "nic "+k.String(), nicText(now.NICs[k]))
	}
	for _, n := range d.NICs {
		if old, had := now.NICs[n.Key]; had {
			line(false, "nic "+n.Key.String(), nicText(old))
		}
		line(true, "nic "+n.Key.String(), nicText(n))
	}
	return out
}

// entryText is an entry with its selector as get rules shows it.
func entryText(e core.Entry) string {
	end := "from"
	if e.Direction == core.Egress {
		end = "to"
	}
	parts := []string{e.Direction.String(), e.Family.String(), e.Protocol.String(), match(e), end, e.Peer.String()}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

func addresses(list []netip.Addr) string { return joined(list) }

func joined[T any](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = fmt.Sprint(v)
	}
	return strings.Join(s, ", ")
}

func nicText(n core.NICPolicy) string {
	parts := []string{n.Kind.String() + " VM"}
	add := func(label, text string) {
		if text != "" {
			parts = append(parts, strings.TrimSpace(label+" "+text))
		}
	}
	add("on", n.Bridge)
	add("at", joined(n.Devices))
	add("addresses", joined(n.Addresses))
	add("pairs", joined(n.Pairs))
	add("groups", joined(n.Groups))
	if n.SpoofingAllowed {
		parts = append(parts, "anti-spoofing off")
	}
	return strings.Join(parts, "; ")
}

func optionText(o core.Options) string {
	return fmt.Sprintf("bridges %v, unmanaged %v, vm_ports %v, uplinks %v, egress_default %s, dns %v, multicast %s, enforce %v",
		o.Bridges, o.Unmanaged, o.VMPorts, o.Uplinks, o.EgressDefault, o.AllowDNS, o.Multicast, !o.CountOnly)
}
