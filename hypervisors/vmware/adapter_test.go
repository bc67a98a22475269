package vmware

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

func (v *vcenter) adapter() *Adapter {
	v.t.Helper()
	a, err := Driver().Open(v.t.Context(), v.settings(false))
	check(v.t, err)
	v.t.Cleanup(func() { check(v.t, a.Close()) })
	a.(*Adapter).backoff = 10 * time.Millisecond
	return a.(*Adapter)
}

func list(t *testing.T, a *Adapter) map[string]core.Instance {
	t.Helper()
	all, err := a.List(t.Context())
	check(t, err)
	out := map[string]core.Instance{}
	for _, in := range all {
		out[in.VM.Name] = in
	}
	return out
}

func (v *vcenter) powerOff(vm *object.VirtualMachine) { v.finish(vm.PowerOff(v.t.Context())) }
func (v *vcenter) powerOn(vm *object.VirtualMachine)  { v.finish(vm.PowerOn(v.t.Context())) }

// setAttribute sets a custom attribute, which it defines first.
func (v *vcenter) setAttribute(vm *object.VirtualMachine, name, value string) {
	v.t.Helper()
	m, err := object.GetCustomFieldsManager(v.admin.Client)
	check(v.t, err)
	def, err := m.Add(v.t.Context(), name, "VirtualMachine", nil, nil)
	check(v.t, err)
	check(v.t, m.Set(v.t.Context(), vm.Reference(), def.Key, value))
}

func TestList(t *testing.T) {
	v := newVCenter(t, 5)
	vms := v.vms()
	v.addPortGroup("trunk", &types.VmwareDistributedVirtualSwitchTrunkVlanSpec{VlanId: []types.NumericRange{{Start: 0, End: 4094}}})
	v.editMap(types.ConfigSpecOperationAdd, entry{300, 300, Promiscuous}, entry{300, 301, Community})
	v.addPortGroup("theirs", &types.VmwareDistributedVirtualSwitchPvlanSpec{PvlanId: 301})
	v.connect(vms[1], v.portGroup("trunk"))
	v.connect(vms[2], v.portGroup("theirs"))
	v.powerOff(vms[3])
	v.setKeys(vms[0], "ringwall.groups", "web, bastion", "ringwall.nic."+macOf(1).String()+".addresses", "10.0.0.1,fd00::1",
		"ringwall.nic."+macOf(1).String()+".allowed-pairs", "10.0.0.100 10.1.0.0/16", "guestinfo.ringwall.kind", "system")
	v.setAttribute(vms[0], "ringwall.anti-spoofing", "off")
	v.setAttribute(vms[2], "ringwall.kind", "system")
	v.setAttribute(vms[4], "ringwall.knd", "system")

	a := v.adapter()
	got := list(t, a)
	nic := func(i int, bridge string) core.NIC {
		n := core.NIC{MAC: macOf(i)}
		if bridge != "" {
			n.Binding = core.Binding{Bridge: bridge, Devices: []string{deviceOf(macOf(i))}}
		}
		return n
	}
	first := nic(1, "vlan100")
	first.Groups, first.SpoofingAllowed = []string{"web", "bastion"}, true
	first.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	first.Pairs = []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.100/32")}, {Prefix: netip.MustParsePrefix("10.1.0.0/16")}}
	want := map[string]core.Instance{}
	for i, in := range []core.Instance{
		{Claims: true, VM: core.VM{NICs: []core.NIC{first}}},
		{VM: core.VM{NICs: []core.NIC{nic(2, "")}}},
		{Claims: true, VM: core.VM{Kind: core.SystemVM, NICs: []core.NIC{nic(3, "vlan300")}}},
		{}, // off
		{VM: core.VM{NICs: []core.NIC{nic(5, "vlan100")}}}, // misspelt: nobody speaks for it
	} {
		if in.VM.NICs != nil {
			in.VM.Key, in.VM.Name = v.key(vms[i]), vms[i].Name()
			want[vms[i].Name()] = in
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	// The backend moves a NIC, and it is still where it was.
	b := v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "-"))
	if diff := cmp.Diff(want[vms[0].Name()].VM.NICs[0].Binding, list(t, a)[vms[0].Name()].VM.NICs[0].Binding); diff != "" {
		t.Errorf("after a move: %s", diff)
	}

	checks, err := a.Preflight(t.Context())
	check(t, err)
	for name, want := range map[string]string{"reach": "port group trunk, which is in no single VLAN", "metadata": "ringwall.knd"} {
		i := slices.IndexFunc(checks, func(c core.Check) bool { return c.Name == name })
		if i < 0 || checks[i].Status == core.StatusOK || !strings.Contains(checks[i].Evidence, want) || checks[i].Fix == "" {
			t.Errorf("%s: %+v", name, checks)
		}
	}
}

func TestMetadataFaults(t *testing.T) {
	for key, value := range map[string]string{
		"ringwall.kind": "router", "ringwall.nic.x.groups": "web", "ringwall.nic.00:50:56:00:00:01.grps": "web", "ringwall.vlan": "1",
		"ringwall.anti-spoofing": "maybe", "ringwall.nic.00:50:56:00:00:01.addresses": "10.0.0", "ringwall.nic.00:50:56:00:00:01.allowed-pairs": "x/1",
	} {
		_, err := parseMetadata(map[string]string{key: value})
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	m := &machine{config: map[string]string{"ringwall.groups": "web", "ringwall.home.4000": "dvportgroup-1"}, fields: map[int32]string{7: "db", 8: "x"}}
	if _, err := m.keysOf(map[int32]string{7: "Ringwall.Groups", 8: "owner"}); err == nil || !strings.Contains(err.Error(), "differ") {
		t.Errorf("got %v", err)
	}
}

func next(t *testing.T, events <-chan core.VMEvent, match func(core.VMEvent) bool) core.VMEvent {
	t.Helper()
	deadline := time.After(15 * time.Second)
	var last core.VMEvent
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the events have ended")
			}
			last = e
			if match(e) {
				return e
			}
		case <-deadline:
			t.Fatalf("no such event; the last was %+v", last)
		}
	}
}

// Everything that happens to a VM is told, and a session that ends is a Resync.
func TestWatch(t *testing.T) {
	v := newVCenter(t, 2)
	a := v.adapter()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := a.Watch(ctx)
	check(t, err)
	vm := v.vms()[0]
	of := func(kind core.VMEventKind) func(core.VMEvent) bool {
		return func(e core.VMEvent) bool {
			return e.Kind == kind && (kind == core.VMResync || e.Instance.VM.Name == vm.Name())
		}
	}
	next(t, events, of(core.VMResync))
	v.setKeys(vm, "ringwall.groups", "web")
	if e := next(t, events, of(core.VMChanged)); !e.Instance.Claims || !slices.Equal(e.Instance.VM.NICs[0].Groups, []string{"web"}) {
		t.Errorf("changed: %+v", e)
	}
	v.powerOff(vm)
	if e := next(t, events, of(core.VMStopped)); e.Instance.VM.Key != v.key(vm) {
		t.Errorf("stopped: %+v", e)
	}
	v.powerOn(vm)
	if e := next(t, events, of(core.VMStarted)); e.Instance.VM.NICs[0].Binding.Bridge != "vlan100" {
		t.Errorf("started: %+v", e)
	}
	v.addPortGroup("new", &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 200})
	next(t, events, of(core.VMResync))
	// Waiting for changes is a call of the session, which ends under it.
	_, err = methods.Logout(t.Context(), a.conn.direct, &types.Logout{This: *a.conn.client.ServiceContent.SessionManager})
	check(t, err)
	v.setKeys(vm, "ringwall.groups", "db")
	next(t, events, func(e core.VMEvent) bool {
		return e.Kind == core.VMResync && slices.Equal(list(t, a)[vm.Name()].VM.NICs[0].Groups, []string{"db"})
	})
	v.finish(vm.PowerOff(t.Context()))
	v.finish(vm.Destroy(t.Context()))
	next(t, events, of(core.VMStopped))
	cancel()
	for range events { // until it is closed
	}
}

func statuses(checks []core.Check) map[string]string {
	out := map[string]string{}
	for _, c := range checks {
		out[c.Name] = c.Status.String()
	}
	return out
}

func TestPreflight(t *testing.T) {
	v := newVCenter(t, 2)
	find := func(b *Backend) (map[string]string, string) {
		t.Helper()
		checks, err := b.Preflight(t.Context())
		check(t, err)
		var text strings.Builder
		for _, c := range checks {
			text.WriteString(c.Name + ": " + c.Summary + "; " + c.Evidence + "; " + c.Fix + "\n")
			if c.Status != core.StatusOK && c.Fix == "" {
				t.Errorf("%s has no fix", c.Name)
			}
		}
		return statuses(checks), text.String()
	}
	b := v.backend()
	got, text := find(b)
	if diff := cmp.Diff(map[string]string{"vcenter": "ok", "switch": "ok", "rights": "ok", "networks": "ok", "ports": "warning"}, got); diff != "" {
		t.Error(diff, text)
	}
	mustSync(t, b, v.ruleset(webAndDB, "-", "-"))
	v.editMap(types.ConfigSpecOperationAdd, entry{100, 2007, Community})
	if got, text := find(b); got["ports"] != "ok" || got["networks"] != "warning" || !strings.Contains(text, "private vlan 100,2007 community was made by somebody else") {
		t.Error(text)
	}
	if got, text := find(v.backend(func(s core.Settings) { s["switch"] = "vSwitch0" })); got["switch"] != "error" || !strings.Contains(text, "vSwitch0 is a standard vSwitch") {
		t.Error(text)
	}
	if got, text := find(v.backend(func(s core.Settings) { s["switch"] = "DVS9" })); got["switch"] != "error" || !strings.Contains(text, "there are DVS0") {
		t.Error(text)
	}
	if got, text := find(v.backend(func(s core.Settings) { s["url"] = "https://127.0.0.1:1" })); got["vcenter"] != "error" {
		t.Error(text)
	}
	v.editMap(types.ConfigSpecOperationAdd, entry{400, 400, Promiscuous}, entry{400, 401, Community})
	if got, text := find(v.backend(func(s core.Settings) { s["networks"] = []any{"401:2100-2109"} })); got["networks"] != "warning" || !strings.Contains(text, "VLAN 401 is a secondary of VLAN 400") {
		t.Error(text)
	}
}
