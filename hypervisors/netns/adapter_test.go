package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/netns"
	vishvananda "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// sameDomain takes all ids for one: the kernel gives them out.
var sameDomain = cmpopts.IgnoreFields(core.Instance{}, "DomainID")

func openAdapter(t testing.TB, s core.Settings) core.HypervisorAdapter {
	t.Helper()
	a, err := netns.Driver().Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func list(t testing.TB, a core.HypervisorAdapter) []core.Instance {
	t.Helper()
	vms, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return vms
}

// attach gives a VM a NIC on a bridge.
func attach(t testing.TB, vm, device, mac, bridge string) {
	t.Helper()
	run(t, fmt.Sprintf("ip link add %s type veth peer name eth-%s netns %s address %s", device, device, vm, mac))
	if bridge != "" {
		run(t, fmt.Sprintf("ip link set %s master %s", device, bridge))
	}
}

// nics are written mac bridge device, or mac alone.
func vm(name string, nics ...string) core.Instance {
	i := core.Instance{VM: core.VM{Key: core.VMKey(name), Name: name}}
	for _, n := range nics {
		f := strings.Fields(n)
		mac, err := core.ParseMAC(f[0])
		if err != nil {
			panic(err)
		}
		nic := core.NIC{MAC: mac}
		if len(f) == 3 {
			nic.Binding = core.Binding{Bridge: f[1], Devices: []string{f[2]}}
		}
		i.VM.NICs = append(i.VM.NICs, nic)
	}
	return i
}

func TestList(t *testing.T) {
	defer clean(t)
	a := openAdapter(t, nil)
	if got := list(t, a); len(got) != 0 {
		t.Errorf("before there is any: %v", got)
	}
	run(t, "ip link add br0 type bridge")
	run(t, "ip link add br1 type bridge")
	for _, name := range []string{"vm-a", "vm-b", "vm-c", "vm-none", "other"} {
		run(t, "ip netns add "+name)
	}
	attach(t, "vm-a", "vnet1", "02:00:00:00:00:a2", "br1")
	attach(t, "vm-a", "vnet0", "02:00:00:00:00:a1", "br0")
	attach(t, "vm-b", "tap7", "02:00:00:00:00:b1", "")
	attach(t, "other", "vnet9", "02:00:00:00:00:99", "br0")
	// Links that lead elsewhere, whose indexes may equal those of ours.
	run(t, "ip link add vnet5 type veth peer name vnet6")
	run(t, "ip link set vnet5 master br0")
	run(t, "ip -n vm-a link add cross type veth peer name cross netns vm-c")
	run(t, "ip -n vm-c link add vnet0 type veth peer name vnet8")
	// Not by a name that ports knows.
	attach(t, "vm-c", "eth7", "02:00:00:00:00:c1", "br0")
	// A file that is no namespace.
	if err := os.WriteFile("/run/netns/vm-file", nil, 0o444); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/run/netns/vm-file")

	want := []core.Instance{
		vm("vm-a", "02:00:00:00:00:a1 br0 vnet0", "02:00:00:00:00:a2 br1 vnet1"),
		vm("vm-b", "02:00:00:00:00:b1"),
		vm("vm-c"),
		vm("vm-none"),
	}
	if diff := cmp.Diff(want, list(t, a), sameDomain, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}

	all := openAdapter(t, core.Settings{"namespaces": []any{"oth*", "vm-c"}, "ports": []string{"*"}})
	want = []core.Instance{
		vm("other", "02:00:00:00:00:99 br0 vnet9"),
		vm("vm-c", "02:00:00:00:00:c1 br0 eth7"),
	}
	if diff := cmp.Diff(want, list(t, all), sameDomain, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// The bridges are those of the namespace in which the adapter was opened.
func TestBridgesOfAnotherNamespace(t *testing.T) {
	defer clean(t)
	for _, name := range []string{"host1", "vm-a"} {
		run(t, "ip netns add "+name)
	}
	for _, prefix := range []string{"ip ", "ip -n host1 "} {
		run(t, prefix+"link add br0 type bridge")
	}
	attach(t, "vm-a", "vnet0", "02:00:00:00:00:01", "br0") // here
	run(t, "ip -n host1 link add vnet0 type veth peer name eth-host1 netns vm-a address 02:00:00:00:00:02")
	run(t, "ip -n host1 link set vnet0 master br0")

	here := openAdapter(t, nil)
	var there core.HypervisorAdapter
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread dies with its namespace
		done <- func() error {
			ns, err := vishvananda.GetFromPath("/run/netns/host1")
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := vishvananda.Set(ns); err != nil {
				return err
			}
			there, err = netns.Driver().Open(context.Background(), nil)
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	for mac, a := range map[string]core.HypervisorAdapter{"02:00:00:00:00:01": here, "02:00:00:00:00:02": there} {
		if diff := cmp.Diff([]core.Instance{vm("vm-a", mac+" br0 vnet0")}, list(t, a), sameDomain); diff != "" {
			t.Error(diff)
		}
	}
	w := watch(t, there)
	run(t, "ip -n host1 link set vnet0 nomaster")
	w.until("vnet0 unplugged", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:02")) })
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		s    core.Settings
		path string
	}{
		{core.Settings{"namespace": "vm-*"}, "hypervisor.settings.namespace"},
		{core.Settings{"namespaces": 7}, "hypervisor.settings.namespaces"},
		{core.Settings{"namespaces": []any{}}, "hypervisor.settings.namespaces"},
		{core.Settings{"namespaces": []any{"vm-*", "a/b"}}, "hypervisor.settings.namespaces[1]"},
		{core.Settings{"namespaces": []any{"vm-*-x*"}}, "hypervisor.settings.namespaces[0]"},
		{core.Settings{"namespaces": []any{""}}, "hypervisor.settings.namespaces[0]"},
		{core.Settings{"ports": []any{"vnet*", 7}}, "hypervisor.settings.ports[1]"},
		{core.Settings{"ports": []string{"longer-than-names-are*"}}, "hypervisor.settings.ports[0]"},
		{core.Settings{"directory": "run/netns"}, "hypervisor.settings.directory"},
		{core.Settings{"directory": true}, "hypervisor.settings.directory"},
	} {
		_, err := netns.Driver().Open(t.Context(), c.s)
		var field *core.FieldError
		if !errors.As(err, &field) || field.Path != c.path || !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%v: %v", c.s, err)
		}
	}
	for _, s := range []core.Settings{
		{"namespaces": "vm-*"},
		{"namespaces": []string{"*", strings.Repeat("long", 20) + "*"}, "ports": []any{"vnet*"}, "directory": "/run/netns/"},
	} {
		a, err := netns.Driver().Open(t.Context(), s)
		if err != nil {
			t.Errorf("%v: %v", s, err)
			continue
		}
		a.Close()
	}
	for _, i := range netns.Driver().Info().Settings {
		if i.Type == "" || i.Default == "" || i.Help == "" {
			t.Errorf("setting %s is not described: %+v", i.Name, i)
		}
	}
}

func TestPreflight(t *testing.T) {
	defer clean(t)
	run(t, "ip link add br0 type bridge")
	run(t, "ip netns add vm-a")
	attach(t, "vm-a", "vnet0", "02:00:00:00:00:01", "br0")
	a := openAdapter(t, nil)
	checks := func(a core.HypervisorAdapter) map[string]core.Check {
		t.Helper()
		all, err := a.Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]core.Check{}
		for _, c := range all {
			if (c.Status == core.StatusOK) != (c.Fix == "") {
				t.Errorf("a fix where there is a fault, and only there: %+v", c)
			}
			m[c.Name] = c
		}
		return m
	}
	got := checks(a)
	if c := got["namespaces"]; len(got) != 1 || c.Status != core.StatusOK || c.Summary != "1 VMs with 1 NICs" {
		t.Errorf("%+v", got)
	}

	attach(t, "vm-a", "eth7", "02:00:00:00:00:02", "br0")
	if err := os.WriteFile("/run/netns/vm-file", nil, 0o444); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/run/netns/vm-file")
	if err := os.WriteFile("/run/netns/vm-twice", nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/run/netns/vm-a", "/run/netns/vm-twice", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	got = checks(a)
	for name, want := range map[string]string{
		"port-not-named":        "eth7",
		"namespace-left-over":   "vm-file",
		"namespace-named-twice": "vm-twice",
	} {
		if c := got[name]; c.Status != core.StatusWarning || !strings.Contains(c.Summary, want) || !strings.Contains(c.Fix, want) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if n := len(list(t, a)); n != 1 {
		t.Errorf("%d VMs, want 1", n)
	}

	// Without the capability, on a thread that ends with it.
	done := make(chan map[string]core.Check)
	go func() {
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
		}
		m := map[string]core.Check{}
		all, err := a.Preflight(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, c := range all {
			m[c.Name] = c
		}
		done <- m
	}()
	if got := <-done; got["namespaces"].Status != core.StatusError || !strings.Contains(got["namespaces"].Fix, "CAP_SYS_ADMIN") {
		t.Errorf("without CAP_SYS_ADMIN: %+v", got)
	}
}

// A List that cannot know says so, and gives no list.
func TestListFails(t *testing.T) {
	defer clean(t)
	file := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a := openAdapter(t, core.Settings{"directory": file})
	if vms, err := a.List(t.Context()); err == nil || vms != nil {
		t.Errorf("%v, %v", vms, err)
	}
	run(t, "ip netns add vm-a")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if vms, err := openAdapter(t, nil).List(ended); !errors.Is(err, context.Canceled) || vms != nil {
		t.Errorf("%v, %v", vms, err)
	}
}

func BenchmarkList(b *testing.B) {
	defer clean(b)
	run(b, "ip link add br0 type bridge")
	const n = 100
	for i := range n {
		run(b, fmt.Sprintf("ip netns add vm-%d", i))
		attach(b, fmt.Sprintf("vm-%d", i), fmt.Sprintf("vnet%d", i), fmt.Sprintf("02:00:00:00:00:%02x", i), "br0")
	}
	a := openAdapter(b, nil)
	for b.Loop() {
		if got := list(b, a); len(got) != n {
			b.Fatal(len(got))
		}
	}
}
