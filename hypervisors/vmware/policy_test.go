package vmware

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// what says who a VM is: "system", "-" for a user VM in no group, "" for nobody
// says anything, else groups with commas.
func (v *vcenter) ruleset(groups []core.Group, what ...string) core.Ruleset {
	v.t.Helper()
	in := policy.Input{Options: core.Options{Bridges: []core.Pattern{"vlan100"}}, Groups: groups}
	for i, vm := range v.vms()[:len(what)] {
		if what[i] == "" {
			continue
		}
		nic := core.NIC{MAC: macOf(i + 1), Binding: core.Binding{Bridge: "vlan100", Devices: []string{deviceOf(macOf(i + 1))}}}
		one := core.VM{Key: v.key(vm), Name: vm.Name()}
		switch what[i] {
		case "system":
			one.Kind = core.SystemVM
		case "-":
		default:
			nic.Groups = strings.Split(what[i], ",")
		}
		one.NICs = []core.NIC{nic}
		in.VMs = append(in.VMs, one)
	}
	rs, err := policy.Compile(in)
	check(v.t, err)
	return rs
}

func (v *vcenter) key(vm *object.VirtualMachine) core.VMKey {
	v.t.Helper()
	var o mo.VirtualMachine
	check(v.t, vm.Properties(v.t.Context(), vm.Reference(), []string{"config.instanceUuid"}, &o))
	return core.VMKey(o.Config.InstanceUuid)
}

// together is a group that allows everything from itself; empty allows nothing.
func together(name string) core.Group {
	return core.Group{Name: name, Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.AnyProtocol, Peers: &core.Peers{Groups: []string{name}}}}}
}

var webAndDB = []core.Group{together("web"), together("db"), {Name: "quiet"}}

// reach reads the switch as vCenter has it, and says who meets whom by the
// rules of private VLANs: one line a VM, with + for each VM that it meets.
func (v *vcenter) reach() string {
	v.t.Helper()
	ctx := v.t.Context()
	var dvs mo.DistributedVirtualSwitch
	collector := property.DefaultCollector(v.admin.Client)
	check(v.t, collector.RetrieveOne(ctx, v.dvs, []string{"config", "portgroup"}, &dvs))
	var groups []mo.DistributedVirtualPortgroup
	check(v.t, collector.Retrieve(ctx, dvs.Portgroup, []string{"key", "config"}, &groups))
	settings := map[string]*types.VMwareDVSPortSetting{}
	for _, g := range groups {
		settings[g.Key] = g.Config.DefaultPortConfig.(*types.VMwareDVSPortSetting)
	}
	place := func(vm *object.VirtualMachine) string {
		s := settings[v.card(vm).GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo).Port.PortgroupKey]
		if isTrue(s.Blocked) {
			return "closed"
		}
		if vlan, ok := s.Vlan.(*types.VmwareDistributedVirtualSwitchVlanIdSpec); ok {
			return map[bool]string{true: "promiscuous", false: "elsewhere"}[vlan.VlanId == 100]
		}
		for _, e := range dvs.Config.(*types.VMwareDVSConfigInfo).PvlanConfig {
			if e.PrimaryVlanId == 100 && e.SecondaryVlanId == pvlanOf(s) {
				if e.PvlanType == "community" {
					return fmt.Sprint("community ", e.SecondaryVlanId)
				}
				return e.PvlanType
			}
		}
		return "nowhere"
	}
	vms := v.vms()
	places := make([]string, len(vms))
	for i, vm := range vms {
		places[i] = place(vm)
	}
	var lines []string
	for i := range places {
		line := []byte(strings.Repeat(".", len(places)))
		for j := range places {
			if i != j && meet(places[i], places[j]) {
				line[j] = '+'
			}
		}
		lines = append(lines, string(line))
	}
	return strings.Join(lines, " ")
}

func meet(a, b string) bool {
	closed := func(s string) bool { return s == "closed" || s == "nowhere" || s == "elsewhere" }
	switch {
	case closed(a), closed(b):
		return false
	case a == "promiscuous", b == "promiscuous":
		return true
	}
	return a == b && a != "isolated"
}

// ourGroups lists the port groups that are marked as ours.
func (v *vcenter) inventory() (groups, entries []string) {
	v.t.Helper()
	b := v.backend()
	_, sw, _, err := b.look(v.t.Context())
	check(v.t, err)
	for _, g := range sw.groups {
		if g.mark != nil {
			groups = append(groups, g.name)
		}
	}
	for _, e := range sw.entries {
		entries = append(entries, e.String())
	}
	slices.Sort(groups)
	return groups, entries
}

func mustSync(t *testing.T, b *Backend, r core.Ruleset) {
	t.Helper()
	check(t, b.Sync(t.Context(), r))
	o, err := b.Observe(t.Context())
	check(t, err)
	if len(o.Drift) > 0 || o.Fingerprint != r.Fingerprint() {
		t.Fatalf("after Sync: %+v, want fingerprint %s", o, r.Fingerprint().Short())
	}
}
