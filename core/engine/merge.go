package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// SourceHypervisor owns VMs that hypervisor metadata speaks for.
const SourceHypervisor = "hypervisor"

// merged is desired state and inventory in one.
type merged struct {
	vms  []core.VM // with bindings; of every VM that somebody speaks for
	nics map[core.NICKey]*nic
	byVM map[core.VMKey][]core.NICKey // of nics
	// keys leads from a desired record to the VM's key here, which is the
	// hypervisor's UUID where the record has but a name.
	keys     map[core.VMKey]core.VMKey
	present  map[core.VMKey]bool // desired keys of VMs that run here
	problems problems
	notes    []string // contradictions that change nothing
}

// nic is a NIC that somebody speaks for, or that is here without anybody.
type nic struct {
	vm      string
	source  string
	groups  []string
	binding core.Binding
	present bool
	problem error // why it has no policy, or not the one somebody asks for
}

// problems are faults of the input, each under a name that stays the same for
// as long as the fault does.
type problems map[string]error

// beyond gives the faults that old does not have.
func (p problems) beyond(old problems) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if _, known := old[name]; !known {
			errs = append(errs, p[name])
		}
	}
	return errors.Join(errs...)
}

// merge makes one list of VMs. The adapter has the last word on who is here
// and where a NIC is plugged in; a desired record on the rest; hypervisor
// metadata where there is no record.
func merge(desired map[core.VMKey]state.VM, groups []core.Group, inv stock) *merged {
	m := &merged{nics: map[core.NICKey]*nic{}, byVM: map[core.VMKey][]core.NICKey{}, keys: map[core.VMKey]core.VMKey{}, present: map[core.VMKey]bool{}, problems: problems{}}
	if !inv.adapter {
		for _, key := range slices.Sorted(maps.Keys(desired)) {
			m.hinted(desired[key])
		}
		return m
	}
	matches := m.match(desired, inv.vms)
	speaksFor := make(map[core.VMKey]bool, len(matches))
	for _, key := range slices.Sorted(maps.Keys(desired)) {
		in, here := matches[key]
		m.desired(desired[key], in, here)
		if here {
			speaksFor[in.VM.Key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(inv.vms)) {
		if !speaksFor[key] {
			m.metadata(inv.vms[key], groups)
		}
	}
	return m
}

// hinted takes a record's own bindings for the truth.
func (m *merged) hinted(d state.VM) {
	m.keys[d.Key] = d.Key
	m.vms = append(m.vms, d.VM)
	for _, n := range d.NICs {
		here := n.Binding.Bridge != ""
		if here {
			m.present[d.Key] = true
		}
		m.add(d.Key, n.MAC, &nic{vm: d.Name, source: d.Source, groups: n.Groups, binding: n.Binding, present: here})
	}
}

func (m *merged) add(vm core.VMKey, mac core.MAC, n *nic) {
	k := core.NICKey{VM: vm, MAC: mac}
	if _, twice := m.nics[k]; !twice {
		m.byVM[vm] = append(m.byVM[vm], k)
	}
	m.nics[k] = n
}

// match finds the instance of each desired record: by key, else by a name that
// is the record's key. Names are not unique everywhere (XenServer).
func (m *merged) match(desired map[core.VMKey]state.VM, instances map[core.VMKey]core.Instance) map[core.VMKey]core.Instance {
	out := map[core.VMKey]core.Instance{}
	owner := map[core.VMKey]state.VM{}
	for key, d := range desired {
		if in, ok := instances[key]; ok {
			out[key] = in
			owner[key] = d
		}
	}
	byName := map[string][]core.VMKey{}
	for key, in := range instances {
		byName[in.VM.Name] = append(byName[in.VM.Name], key)
	}
	for _, key := range slices.Sorted(maps.Keys(desired)) {
		if _, done := out[key]; done {
			continue
		}
		d, named := desired[key], byName[string(key)]
		switch {
		case len(named) > 1:
			m.problem("vm "+string(key)+" ambiguous", fmt.Errorf("vm %s: the hypervisor has %d VMs of that name; use its UUID: %w", key, len(named), core.ErrConflict))
		case len(named) == 1:
			if o, taken := owner[named[0]]; taken {
				m.problem("vm "+string(key)+" twice", fmt.Errorf("vm %s of source %s is vm %s, which belongs to source %s: %w", key, d.Source, o.Key, o.Source, core.ErrConflict))
				continue
			}
			out[key] = instances[named[0]]
			owner[named[0]] = d
		}
	}
	return out
}

func (m *merged) problem(name string, err error) { m.problems[name] = err }

// desired takes a record and, where it runs here, its instance.
func (m *merged) desired(d state.VM, in core.Instance, here bool) {
	vm := d.VM
	if here {
		vm.Key = in.VM.Key
		m.present[d.Key] = true
	}
	m.keys[d.Key] = vm.Key
	conflict := m.claim(d, in, here)
	plugged := map[core.MAC]core.Binding{}
	for _, n := range in.VM.NICs {
		plugged[n.MAC] = n.Binding
	}
	vm.NICs = slices.Clone(d.NICs)
	for i, n := range vm.NICs {
		binding, present := plugged[n.MAC]
		delete(plugged, n.MAC)
		m.compareHint(d, n, binding, present)
		vm.NICs[i].Binding = binding
		m.add(vm.Key, n.MAC, &nic{vm: vm.Name, source: d.Source, groups: n.Groups, binding: binding, present: present, problem: conflict})
	}
	m.vms = append(m.vms, vm)
	for mac, binding := range plugged {
		m.add(vm.Key, mac, &nic{vm: vm.Name, source: d.Source, binding: binding, present: true,
			problem: fmt.Errorf("source %s says nothing of this NIC: %w", d.Source, core.ErrNotFound)})
	}
}

// claim notes that hypervisor metadata speaks for a VM that has an owner.
// That a system VM is one, both may say.
func (m *merged) claim(d state.VM, in core.Instance, here bool) error {
	if !here || !in.Claims || in.VM.Kind == core.SystemVM && d.Kind == core.SystemVM {
		return nil
	}
	err := fmt.Errorf("vm %s belongs to source %s, but hypervisor metadata speaks for it too; take it out of one: %w", d.Name, d.Source, core.ErrConflict)
	m.problem("vm "+string(d.Key)+" claimed", err)
	return err
}

func (m *merged) compareHint(d state.VM, n core.NIC, b core.Binding, present bool) {
	h := n.Binding
	if !present || h.Bridge == "" && len(h.Devices) == 0 {
		return
	}
	missing := slices.ContainsFunc(h.Devices, func(dev string) bool { return !slices.Contains(b.Devices, dev) })
	if h.Bridge != "" && h.Bridge != b.Bridge || missing {
		m.notes = append(m.notes, fmt.Sprintf("vm %s nic %s: source %s says bridge %q devices %v, the hypervisor bridge %q devices %v; the hypervisor wins",
			d.Name, n.MAC, d.Source, h.Bridge, h.Devices, b.Bridge, b.Devices))
	}
}

// metadata takes an instance that no record is for.
func (m *merged) metadata(in core.Instance, groups []core.Group) {
	source := ""
	problem := fmt.Errorf("no source says anything of this VM: %w", core.ErrNotFound)
	if in.Claims {
		source = SourceHypervisor
		if problem = checkMetadata(in.VM, groups); problem == nil {
			m.vms = append(m.vms, in.VM)
		} else {
			m.problem("vm "+string(in.VM.Key)+" metadata", problem)
		}
	}
	for _, n := range in.VM.NICs {
		m.add(in.VM.Key, n.MAC, &nic{vm: in.VM.Name, source: source, groups: n.Groups, binding: n.Binding, present: true, problem: problem})
	}
}

// checkMetadata keeps one VM's bad metadata from everybody else's ruleset.
func checkMetadata(vm core.VM, groups []core.Group) error {
	names := make([]core.Group, 0, len(groups))
	for _, g := range groups {
		names = append(names, core.Group{Name: g.Name}) // the rules are checked elsewhere
	}
	if err := core.Validate(names, []core.VM{vm}, core.AllowReserved); err != nil {
		return fmt.Errorf("hypervisor metadata of vm %s: %w", vm.Name, err)
	}
	return nil
}
