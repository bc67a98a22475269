package vmware

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// vcenter is govmomi's simulator, and what it does not model of a switch:
// private VLANs, the versions that guard a configuration, and that what is in
// use cannot be removed. Without that it would take whatever is written.
type vcenter struct {
	t       *testing.T
	model   *simulator.Model
	server  *simulator.Server
	admin   *govmomi.Client
	dvs     types.ManagedObjectReference
	dc      *object.Datacenter
	network object.NetworkReference // app-net: VLAN 100

	mu       sync.Mutex
	refuse   func(method string, this types.ManagedObjectReference) types.BaseMethodFault // at once
	fail     func(method string, this types.ManagedObjectReference) types.BaseMethodFault // of the task
	calls    map[string]int
	versions map[types.ManagedObjectReference]int
}

func newVCenter(t *testing.T, vms int) *vcenter {
	t.Helper()
	model := simulator.VPX()
	model.Host, model.Machine, model.Autostart = 0, vms, true
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(model.Remove)
	model.Service.TLS = &tls.Config{}
	model.Service.RegisterEndpoints = true
	v := &vcenter{t: t, model: model, calls: map[string]int{}, versions: map[types.ManagedObjectReference]int{}}
	v.server = model.Service.NewServer()
	t.Cleanup(v.server.Close)
	admin, err := govmomi.NewClient(t.Context(), v.server.URL, true)
	check(t, err)
	v.admin = admin
	finder := find.NewFinder(admin.Client)
	model.Map().Handler = v.handle
	v.dc, err = finder.DefaultDatacenter(t.Context())
	check(t, err)
	finder.SetDatacenter(v.dc)
	dvs, err := finder.Network(t.Context(), "DVS0")
	check(t, err)
	v.dvs = dvs.Reference()
	v.addPortGroup("app-net", &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 100})
	v.network = v.portGroup("app-net")
	for i, vm := range v.vms() {
		v.setMAC(vm, i+1)
		v.connect(vm, v.network)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (v *vcenter) thumbprint() string {
	sum := sha256.Sum256(v.server.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// settings of both, for a backend with the network 100:2000-2009.
func (v *vcenter) settings(backend bool) core.Settings {
	v.t.Helper()
	file := filepath.Join(v.t.TempDir(), "password")
	check(v.t, os.WriteFile(file, []byte("secret-pass\n"), 0o600))
	s := core.Settings{"url": "https://" + v.server.URL.Host, "user": "ringwall@vsphere.local", "password_file": file,
		"thumbprint": v.thumbprint(), "switch": "DVS0"}
	if backend {
		s["networks"], s["anti_spoofing"] = []any{"100:2000-2009"}, "mac-only"
	}
	return s
}

func (v *vcenter) backend(change ...func(core.Settings)) *Backend {
	v.t.Helper()
	s := v.settings(true)
	for _, c := range change {
		c(s)
	}
	b, err := BackendDriver().Open(v.t.Context(), s)
	check(v.t, err)
	v.t.Cleanup(func() { check(v.t, b.Close()) })
	return b.(*Backend)
}

// handle stands before the simulator's objects.
func (v *vcenter) handle(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls[m.Name]++
	if v.refuse != nil {
		if fault := v.refuse(m.Name, m.This); fault != nil {
			return nil, fault
		}
	}
	if ctx.Session == nil || !slices.Contains(writingMethods, m.Name) {
		return nil, nil
	}
	var failure types.BaseMethodFault
	if v.fail != nil {
		failure = v.fail(m.Name, m.This)
	}
	// The session's own objects go before the simulator's, whose code in turn
	// relies on finding its own.
	switch o := ctx.Map.Get(m.This).(type) {
	case *simulator.DistributedVirtualSwitch:
		ctx.Session.Registry.Put(&realSwitch{o, v, failure})
	case *simulator.DistributedVirtualPortgroup:
		ctx.Session.Registry.Put(&realPortGroup{o, v, failure})
	case *simulator.VirtualMachine:
		ctx.Session.Registry.Put(&realVM{o, v, failure})
	default:
		ctx.Session.Registry.Remove(ctx, m.This)
	}
	return nil, nil
}

var writingMethods = []string{"AddDVPortgroup_Task", "ReconfigureDVPortgroup_Task", "ReconfigureDvs_Task", "ReconfigVM_Task", "Destroy_Task"}

// writes is how often something was written.
func (v *vcenter) writes() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range writingMethods {
		n += v.calls[m]
	}
	return n
}

func (v *vcenter) on(what *func(string, types.ManagedObjectReference) types.BaseMethodFault, f func(string, types.ManagedObjectReference) types.BaseMethodFault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*what = f
}

// guard is the optimistic lock of a configuration.
func (v *vcenter) guard(ref types.ManagedObjectReference, given string) types.BaseMethodFault {
	if given != "" && given != strconv.Itoa(v.versions[ref]) {
		return &types.ConcurrentAccess{}
	}
	v.versions[ref]++
	return nil
}

type realSwitch struct {
	*simulator.DistributedVirtualSwitch
	v       *vcenter
	failure types.BaseMethodFault
}

func (s *realSwitch) config() *types.VMwareDVSConfigInfo {
	return s.Config.(*types.VMwareDVSConfigInfo)
}

// task runs run as the simulator does, unless it is to fail.
func task(ctx *simulator.Context, on mo.Reference, name string, failure types.BaseMethodFault, run func() types.BaseMethodFault) types.ManagedObjectReference {
	return simulator.CreateTask(on, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if failure != nil {
			return nil, failure
		}
		return nil, run()
	}).Run(ctx)
}

func (s *realSwitch) ReconfigureDvsTask(ctx *simulator.Context, req *types.ReconfigureDvs_Task) soap.HasFault {
	spec, private := req.Spec.(*types.VMwareDVSConfigSpec)
	if !private {
		return s.DistributedVirtualSwitch.ReconfigureDvsTask(ctx, req)
	}
	ref := task(ctx, s, "reconfigureDvs", s.failure, func() types.BaseMethodFault {
		if f := s.v.guard(s.Self, spec.ConfigVersion); f != nil {
			return f
		}
		next := slices.Clone(s.config().PvlanConfig)
		for _, c := range spec.PvlanConfigSpec {
			var f types.BaseMethodFault
			if next, f = s.edit(ctx, next, c); f != nil {
				return f
			}
		}
		config := *s.config()
		config.PvlanConfig, config.ConfigVersion = next, strconv.Itoa(s.v.versions[s.Self])
		ctx.Update(s.DistributedVirtualSwitch, []types.PropertyChange{{Name: "config", Val: &config}})
		return nil
	})
	return &methods.ReconfigureDvs_TaskBody{Res: &types.ReconfigureDvs_TaskResponse{Returnval: ref}}
}

func (s *realSwitch) edit(ctx *simulator.Context, m []types.VMwareDVSPvlanMapEntry, c types.VMwareDVSPvlanConfigSpec) ([]types.VMwareDVSPvlanMapEntry, types.BaseMethodFault) {
	e := c.PvlanEntry
	has := func(match func(o types.VMwareDVSPvlanMapEntry) bool) bool { return slices.ContainsFunc(m, match) }
	primary := func(o types.VMwareDVSPvlanMapEntry) bool {
		return o.PrimaryVlanId == e.PrimaryVlanId && o.SecondaryVlanId == e.PrimaryVlanId
	}
	if c.Operation == string(types.ConfigSpecOperationAdd) {
		switch {
		case has(func(o types.VMwareDVSPvlanMapEntry) bool { return o.SecondaryVlanId == e.SecondaryVlanId }):
			return nil, &types.AlreadyExists{Name: fmt.Sprint(e)}
		case e.PvlanType == "promiscuous" != (e.PrimaryVlanId == e.SecondaryVlanId), e.PvlanType != "promiscuous" && !has(primary),
			e.PvlanType == "isolated" && has(func(o types.VMwareDVSPvlanMapEntry) bool {
				return o.PrimaryVlanId == e.PrimaryVlanId && o.PvlanType == "isolated"
			}):
			return nil, &types.InvalidArgument{InvalidProperty: fmt.Sprintf("pvlanConfigSpec %v", e)}
		}
		return append(m, e), nil
	}
	if !slices.Contains(m, e) {
		return nil, &types.NotFound{}
	}
	for _, ref := range s.Portgroup {
		pg := ctx.Map.Get(ref).(*simulator.DistributedVirtualPortgroup)
		if pvlanOf(pg.Config.DefaultPortConfig) == e.SecondaryVlanId {
			return nil, &types.ResourceInUse{Type: "PVLAN", Name: fmt.Sprint(e.SecondaryVlanId)}
		}
	}
	m = slices.DeleteFunc(m, func(o types.VMwareDVSPvlanMapEntry) bool { return o == e })
	if e.PrimaryVlanId == e.SecondaryVlanId && has(func(o types.VMwareDVSPvlanMapEntry) bool { return o.PrimaryVlanId == e.PrimaryVlanId }) {
		return nil, &types.ResourceInUse{Type: "PVLAN", Name: fmt.Sprint(e.PrimaryVlanId)}
	}
	return m, nil
}

func pvlanOf(s types.BaseDVPortSetting) int32 {
	if setting, ok := s.(*types.VMwareDVSPortSetting); ok {
		if p, ok := setting.Vlan.(*types.VmwareDistributedVirtualSwitchPvlanSpec); ok {
			return p.PvlanId
		}
	}
	return 0
}

// known refuses a private VLAN id that is not in the map.
func (s *realSwitch) known(setting types.BaseDVPortSetting) types.BaseMethodFault {
	id := pvlanOf(setting)
	if id == 0 || slices.ContainsFunc(s.config().PvlanConfig, func(e types.VMwareDVSPvlanMapEntry) bool { return e.SecondaryVlanId == id }) {
		return nil
	}
	return &types.InvalidArgument{InvalidProperty: fmt.Sprintf("pvlanId %d", id)}
}

func (s *realSwitch) AddDVPortgroupTask(ctx *simulator.Context, req *types.AddDVPortgroup_Task) soap.HasFault {
	fault := s.failure
	for i := range req.Spec {
		if f := s.known(req.Spec[i].DefaultPortConfig); f != nil && fault == nil {
			fault = f
		}
		req.Spec[i].ConfigVersion = "0"
	}
	if fault == nil {
		return s.DistributedVirtualSwitch.AddDVPortgroupTask(ctx, req)
	}
	ref := task(ctx, s, "addDVPortgroup", fault, nil)
	return &methods.AddDVPortgroup_TaskBody{Res: &types.AddDVPortgroup_TaskResponse{Returnval: ref}}
}

type realPortGroup struct {
	*simulator.DistributedVirtualPortgroup
	v       *vcenter
	failure types.BaseMethodFault
}

func (g *realPortGroup) ReconfigureDVPortgroupTask(ctx *simulator.Context, req *types.ReconfigureDVPortgroup_Task) soap.HasFault {
	ref := task(ctx, g, "reconfigureDvPortgroup", g.failure, func() types.BaseMethodFault {
		s := &realSwitch{ctx.Map.Get(g.v.dvs).(*simulator.DistributedVirtualSwitch), g.v, nil}
		if f := s.known(req.Spec.DefaultPortConfig); f != nil {
			return f
		}
		if f := g.v.guard(g.Self, req.Spec.ConfigVersion); f != nil {
			return f
		}
		config := g.Config
		config.Name, config.Description, config.Policy, config.DefaultPortConfig = req.Spec.Name, req.Spec.Description, req.Spec.Policy, req.Spec.DefaultPortConfig
		config.ConfigVersion = strconv.Itoa(g.v.versions[g.Self])
		ctx.Update(g.DistributedVirtualPortgroup, []types.PropertyChange{{Name: "config", Val: config}})
		return nil
	})
	return &methods.ReconfigureDVPortgroup_TaskBody{Res: &types.ReconfigureDVPortgroup_TaskResponse{Returnval: ref}}
}

func (g *realPortGroup) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	fault := g.failure
	for _, e := range ctx.Map.All("VirtualMachine") {
		for _, d := range e.(*simulator.VirtualMachine).Config.Hardware.Device {
			if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo); ok && b.Port.PortgroupKey == g.Key && fault == nil {
				fault = &types.ResourceInUse{Type: "DistributedVirtualPortgroup", Name: g.Name}
			}
		}
	}
	if fault == nil {
		return g.DistributedVirtualPortgroup.DestroyTask(ctx, req)
	}
	ref := task(ctx, g, "destroy", fault, nil)
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: ref}}
}

type realVM struct {
	*simulator.VirtualMachine
	v       *vcenter
	failure types.BaseMethodFault
}

func (vm *realVM) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	if vm.failure == nil {
		return vm.VirtualMachine.ReconfigVMTask(ctx, req)
	}
	ref := task(ctx, vm, "reconfigVm", vm.failure, nil)
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: ref}}
}

// What an administrator does.

func (v *vcenter) finish(t *object.Task, err error) {
	v.t.Helper()
	check(v.t, err)
	check(v.t, t.Wait(context.Background()))
}

func (v *vcenter) addPortGroup(name string, vlan types.BaseVmwareDistributedVirtualSwitchVlanSpec) {
	v.t.Helper()
	v.finish(object.NewDistributedVirtualSwitch(v.admin.Client, v.dvs).AddPortgroup(v.t.Context(), []types.DVPortgroupConfigSpec{{
		Name: name, Type: "earlyBinding", NumPorts: 8, DefaultPortConfig: &types.VMwareDVSPortSetting{Vlan: vlan}}}))
}

func (v *vcenter) portGroup(name string) object.NetworkReference {
	v.t.Helper()
	finder := find.NewFinder(v.admin.Client)
	finder.SetDatacenter(v.dc)
	n, err := finder.Network(v.t.Context(), name)
	check(v.t, err)
	return n
}

// vms, sorted by name: DC0_C0_RP0_VM0 and so on.
func (v *vcenter) vms() []*object.VirtualMachine {
	v.t.Helper()
	finder := find.NewFinder(v.admin.Client)
	finder.SetDatacenter(v.dc)
	vms, err := finder.VirtualMachineList(v.t.Context(), "*")
	check(v.t, err)
	slices.SortFunc(vms, func(a, b *object.VirtualMachine) int {
		return len(a.Name())*1000 - len(b.Name())*1000 + slices.Compare([]byte(a.Name()), []byte(b.Name()))
	})
	return vms
}

func macOf(i int) core.MAC { return core.MAC{0, 0x50, 0x56, 0, byte(i >> 8), byte(i)} }

func (v *vcenter) card(vm *object.VirtualMachine) types.BaseVirtualEthernetCard {
	v.t.Helper()
	devices, err := vm.Device(v.t.Context())
	check(v.t, err)
	cards := devices.SelectByType((*types.VirtualEthernetCard)(nil))
	if len(cards) == 0 {
		v.t.Fatalf("%s has no card", vm.Name())
	}
	return cards[0].(types.BaseVirtualEthernetCard)
}

func (v *vcenter) setMAC(vm *object.VirtualMachine, i int) {
	v.t.Helper()
	c := v.card(vm)
	c.GetVirtualEthernetCard().MacAddress, c.GetVirtualEthernetCard().AddressType = macOf(i).String(), "manual"
	check(v.t, vm.EditDevice(v.t.Context(), c.(types.BaseVirtualDevice)))
}

func (v *vcenter) connect(vm *object.VirtualMachine, to object.NetworkReference) {
	v.t.Helper()
	backing, err := to.EthernetCardBackingInfo(v.t.Context())
	check(v.t, err)
	c := v.card(vm)
	c.GetVirtualEthernetCard().Backing = backing
	check(v.t, vm.EditDevice(v.t.Context(), c.(types.BaseVirtualDevice)))
}

func (v *vcenter) setKeys(vm *object.VirtualMachine, kv ...string) {
	v.t.Helper()
	var spec types.VirtualMachineConfigSpec
	for i := 0; i < len(kv); i += 2 {
		spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: kv[i], Value: kv[i+1]})
	}
	v.finish(vm.Reconfigure(v.t.Context(), spec))
}

func (v *vcenter) editMap(op types.ConfigSpecOperation, entries ...entry) {
	v.t.Helper()
	spec := &types.VMwareDVSConfigSpec{}
	for _, e := range entries {
		spec.PvlanConfigSpec = append(spec.PvlanConfigSpec, types.VMwareDVSPvlanConfigSpec{Operation: string(op),
			PvlanEntry: types.VMwareDVSPvlanMapEntry{PrimaryVlanId: int32(e.Primary), SecondaryVlanId: int32(e.Secondary), PvlanType: string(e.Type)}})
	}
	v.finish(object.NewDistributedVirtualSwitch(v.admin.Client, v.dvs).Reconfigure(v.t.Context(), spec))
}

// at names the port group that a VM's card is in.
func (v *vcenter) at(vm *object.VirtualMachine) string {
	v.t.Helper()
	key := v.card(vm).GetVirtualEthernetCard().Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo).Port.PortgroupKey
	var pg mo.DistributedVirtualPortgroup
	check(v.t, v.admin.RetrieveOne(v.t.Context(), types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: key}, []string{"name"}, &pg))
	return pg.Name
}

// config is a VM's advanced configuration.
func (v *vcenter) config(vm *object.VirtualMachine) map[string]any {
	v.t.Helper()
	var o mo.VirtualMachine
	check(v.t, vm.Properties(v.t.Context(), vm.Reference(), []string{"config.extraConfig"}, &o))
	out := map[string]any{}
	for _, x := range o.Config.ExtraConfig {
		out[x.GetOptionValue().Key] = x.GetOptionValue().Value
	}
	return out
}

// loosen edits a port group's setting, as somebody in the vSphere Client does.
func (v *vcenter) loosen(pg object.NetworkReference, edit func(*types.VMwareDVSPortSetting)) {
	v.t.Helper()
	var o mo.DistributedVirtualPortgroup
	check(v.t, v.admin.RetrieveOne(v.t.Context(), pg.Reference(), []string{"config"}, &o))
	s := o.Config.DefaultPortConfig.(*types.VMwareDVSPortSetting)
	edit(s)
	v.finish(object.NewDistributedVirtualPortgroup(v.admin.Client, pg.Reference()).Reconfigure(v.t.Context(), types.DVPortgroupConfigSpec{
		Name: o.Config.Name, Description: o.Config.Description, Policy: o.Config.Policy, DefaultPortConfig: s}))
}
