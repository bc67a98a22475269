package xenserver_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

type fixture struct {
	pool    *sim.Pool
	hosts   []*sim.Host
	network sim.Ref
	adapter *xenserver.Adapter
}

func site(t *testing.T, change func(*xenserver.Options)) *fixture {
	t.Helper()
	f := &fixture{pool: sim.NewPool(sim.Options{})}
	f.hosts = []*sim.Host{f.pool.AddHost(sim.HostSpec{Name: "xen1"}), f.pool.AddHost(sim.HostSpec{Name: "xen2"})}
	f.network = f.pool.AddNetwork(sim.NetworkSpec{Name: "guests", Bridge: "xenbr0"})
	s, err := f.hosts[0].Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := xapi.New(xapi.Options{Hosts: []string{s.Addr}, User: "root", Password: "secret", Pins: []string{s.Fingerprint}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	o := xenserver.Options{XAPI: c, Host: "xen1", Log: slog.New(slog.DiscardHandler), Backoff: 5 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	f.adapter = xenserver.New(o)
	t.Cleanup(func() { f.adapter.Close() })
	return f
}

func mac(n byte) core.MAC { return core.MAC{2, 0, 0, 0, 0, n} }

func (f *fixture) vm(name string, n byte, config map[string]string) *sim.VM {
	return f.pool.AddVM(sim.VMSpec{Name: name, VIFs: []sim.VIFSpec{{Network: f.network, MAC: mac(n).String(), OtherConfig: config}}})
}

func list(t *testing.T, a core.HypervisorAdapter) []core.Instance {
	t.Helper()
	got, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestList(t *testing.T) {
	f := site(t, nil)
	f.pool.AddTemplate("CentOS 7")
	f.vm("halted", 1, nil)
	f.vm("elsewhere", 2, nil).Start(f.hosts[1])
	storage := f.pool.AddNetwork(sim.NetworkSpec{Name: "storage", Bridge: "xapi3"})
	web := f.pool.AddVM(sim.VMSpec{Name: "web", OtherConfig: map[string]string{"ringwall-groups": "web", "folder": "/x"}, VIFs: []sim.VIFSpec{
		{Network: f.network, MAC: mac(3).String(), LockingMode: "locked", IPv4Allowed: []string{"10.0.0.3"}, IPv6Allowed: []string{"fd00::3"}},
		{Network: storage, MAC: mac(4).String(), OtherConfig: map[string]string{"ringwall-groups": "nfs, bastion", "ringwall-addresses": "10.9.0.4",
			"ringwall-allowed-pairs": "10.9.0.100, 10.9.1.0/24 at 00:00:5e:00:01:01", "ringwall-anti-spoofing": "off"}},
	}})
	web.Start(f.hosts[0])
	got := list(t, f.adapter)
	want := []core.Instance{{Claims: true, DomainID: "1", VM: core.VM{Key: core.VMKey(web.UUID), Name: "web", NICs: []core.NIC{
		{MAC: mac(3), Addresses: addrs("10.0.0.3", "fd00::3"), Groups: []string{"web"},
			Binding: core.Binding{Bridge: "xenbr0", Devices: []string{"tap1.0", "vif1.0"}}},
		{MAC: mac(4), Addresses: addrs("10.9.0.4"), Groups: []string{"nfs", "bastion"}, SpoofingAllowed: true,
			Pairs: []core.AddressPair{{Prefix: netip.MustParsePrefix("10.9.0.100/32")},
				{Prefix: netip.MustParsePrefix("10.9.1.0/24"), MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}}},
			Binding: core.Binding{Bridge: "xapi3", Devices: []string{"tap1.1", "vif1.1"}}},
	}}}}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Error(diff)
	}
}

// The whole pool is in view when no host is named; every NIC says where it is.
func TestPoints(t *testing.T) {
	f := site(t, func(o *xenserver.Options) { o.Host = "" })
	f.vm("a", 1, nil).Start(f.hosts[0])
	f.vm("b", 2, nil).Start(f.hosts[1])
	points := map[string]string{}
	for _, in := range list(t, f.adapter) {
		points[in.VM.Name] = in.VM.NICs[0].Binding.Point
	}
	if diff := cmp.Diff(map[string]string{"a": f.hosts[0].UUID, "b": f.hosts[1].UUID}, points); diff != "" {
		t.Error(diff)
	}
}

func TestKinds(t *testing.T) {
	f := site(t, func(o *xenserver.Options) { o.CloudStackNames = true })
	f.vm("r-4-VM", 1, nil).Start(f.hosts[0])
	f.vm("i-2-3-VM", 2, nil).Start(f.hosts[0])
	user := f.vm("s-1-VM", 3, nil)
	f.pool.Set("vm", user.Ref, "other_config", map[string]string{"ringwall-kind": "user"})
	user.Start(f.hosts[0])
	kinds := map[string]string{}
	for _, in := range list(t, f.adapter) {
		kinds[in.VM.Name] = in.VM.Kind.String()
	}
	if diff := cmp.Diff(map[string]string{"r-4-VM": "system", "i-2-3-VM": "user", "s-1-VM": "user"}, kinds); diff != "" {
		t.Error(diff)
	}
}

// Faulty metadata claims the VM and allows nothing.
func TestFaultyMetadata(t *testing.T) {
	for key, value := range map[string]string{
		"ringwall-groups":        "web,,bastion",
		"ringwall-addresses":     "10.0.0.1, 10.0.0",
		"ringwall-allowed-pairs": "10.0.0.1 at nowhere",
		"ringwall-anti-spoofing": "no",
		"ringwall-group":         "web",
		"ringwall-address":       "10.0.0.1",
	} {
		t.Run(key, func(t *testing.T) {
			f := site(t, nil)
			config := map[string]string{"ringwall-groups": "web", "ringwall-addresses": "10.0.0.1"}
			config[key] = value
			f.vm("web", 1, config).Start(f.hosts[0])
			got := list(t, f.adapter)
			if len(got) != 1 || !got[0].Claims || len(got[0].VM.NICs) != 1 {
				t.Fatalf("%+v", got)
			}
			if n := got[0].VM.NICs[0]; len(n.Groups)+len(n.Addresses)+len(n.Pairs) > 0 || n.SpoofingAllowed || len(n.Binding.Devices) != 2 {
				t.Errorf("%+v", n)
			}
			checks, err := f.adapter.Preflight(t.Context())
			if c := find(checks, "vms"); err != nil || c.Status != core.StatusError || !strings.Contains(c.Evidence, key) {
				t.Error(c, err)
			}
		})
	}
}

func find(checks []core.Check, name string) core.Check {
	for _, c := range checks {
		if c.Name == name {
			return c
		}
	}
	return core.Check{}
}

func TestLockingMode(t *testing.T) {
	f := site(t, nil)
	closed := f.pool.AddNetwork(sim.NetworkSpec{Name: "closed", Bridge: "xapi4", DefaultLockingMode: "disabled"})
	beyond := map[string]string{"ringwall-addresses": "10.0.0.1, 10.0.0.66", "ringwall-allowed-pairs": "10.0.0.77", "ringwall-anti-spoofing": "off"}
	f.pool.AddVM(sim.VMSpec{Name: "vm", VIFs: []sim.VIFSpec{
		{Network: f.network, MAC: mac(1).String(), LockingMode: "locked", IPv4Allowed: []string{"10.0.0.1", "10.0.0.2"}, OtherConfig: beyond},
		{Network: f.network, MAC: mac(2).String(), LockingMode: "disabled"},
		{Network: closed, MAC: mac(3).String()},
		{Network: f.network, MAC: mac(4).String(), LockingMode: "unlocked", OtherConfig: map[string]string{"ringwall-addresses": "10.0.0.66"}},
	}}).Start(f.hosts[0])
	got := list(t, f.adapter)[0].VM.NICs
	want := []core.NIC{
		{MAC: mac(1), Addresses: addrs("10.0.0.1"), Binding: core.Binding{Bridge: "xenbr0", Devices: []string{"tap1.0", "vif1.0"}}},
		{MAC: mac(2)}, {MAC: mac(3)},
		{MAC: mac(4), Addresses: addrs("10.0.0.66"), Binding: core.Binding{Bridge: "xenbr0", Devices: []string{"tap1.3", "vif1.3"}}},
	}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownHost(t *testing.T) {
	f := site(t, func(o *xenserver.Options) { o.Host = "xen9" })
	if got, err := f.adapter.List(t.Context()); !errors.Is(err, core.ErrNotFound) {
		t.Error(got, err)
	}
}

// In dom0 the host is the one that the machine says it is.
func TestLocal(t *testing.T) {
	pool := sim.NewPool(sim.Options{})
	h := pool.AddHost(sim.HostSpec{Name: "xen1"})
	network := pool.AddNetwork(sim.NetworkSpec{Bridge: "xenbr0"})
	pool.AddVM(sim.VMSpec{Name: "here", VIFs: []sim.VIFSpec{{Network: network, MAC: mac(1).String()}}}).Start(h)
	pool.AddVM(sim.VMSpec{Name: "there", VIFs: []sim.VIFSpec{{Network: network, MAC: mac(2).String()}}}).Start(pool.AddHost(sim.HostSpec{Name: "xen2"}))
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/xensource-inventory":       "PRODUCT_BRAND='XCP-ng'\nINSTALLATION_UUID='" + h.UUID + "'\n",
		"etc/xensource/network.conf":    "openvswitch\n",
		"proc/sys/kernel/osrelease":     "4.19.0+1\n",
		"proc/sys/net/bridge/x":         "",
		"var/lib/xcp/placeholder":       "",
		"proc/sys/net/bridge/unrelated": "1",
	} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(root, "var/lib/xcp/xapi")
	s, err := h.ServeLocal(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := xapi.New(xapi.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	a := xenserver.New(xenserver.Options{XAPI: c, Local: true, Root: root, Log: slog.New(slog.DiscardHandler)})
	defer a.Close()
	got := list(t, a)
	if len(got) != 1 || got[0].VM.Name != "here" || got[0].VM.NICs[0].Binding.Point != "" {
		t.Errorf("%+v", got)
	}
	checks, err := a.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := find(checks, "network-conf"); c.Status != core.StatusError || !strings.Contains(c.Fix, "xe-switch-network-backend bridge") {
		t.Error(c)
	}
	if c := find(checks, "br-netfilter"); c.Status != core.StatusWarning || !strings.Contains(c.Fix, "modprobe br_netfilter") {
		t.Error(c)
	}
	if c := find(checks, "tools"); !strings.Contains(c.Summary+c.Evidence, "4.19.0+1") {
		t.Error(c)
	}
	if c := find(checks, "network-backend"); c.Status != core.StatusOK {
		t.Error(c)
	}
}

func TestPreflightRefusesOpenVSwitch(t *testing.T) {
	f := site(t, nil)
	f.hosts[1].SetBackend("openvswitch") // not in view
	checks, err := f.adapter.Preflight(t.Context())
	if c := find(checks, "network-backend"); err != nil || c.Status != core.StatusOK {
		t.Error(checks, err)
	}
	f.hosts[0].SetBackend("openvswitch")
	checks, err = f.adapter.Preflight(t.Context())
	if c := find(checks, "network-backend"); err != nil || c.Status != core.StatusError || !strings.Contains(c.Fix, "xe-switch-network-backend bridge") {
		t.Error(checks, err)
	}
}

func TestDriver(t *testing.T) {
	d := xenserver.Driver()
	a, err := d.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.List(t.Context()); !errors.Is(err, core.ErrNotReady) {
		t.Error(err)
	}
	a.Close()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]core.Settings{
		"no such setting":      {"host_name": "x"},
		"no password":          {"hosts": []any{"xen1"}},
		"a readable password":  {"hosts": []any{"xen1"}, "password_file": password},
		"plain http":           {"hosts": []any{"http://xen1"}},
		"not a duration":       {"timeout": "soon"},
		"not a list":           {"pins": 5},
		"not a truth":          {"cloudstack_names": "yes"},
		"a pin that is no sum": {"hosts": []any{"xen1"}, "pins": []any{"00"}},
	} {
		var fe *core.FieldError
		if _, err := d.Open(t.Context(), s); !errors.As(err, &fe) || !strings.HasPrefix(fe.Path, "hypervisor.settings") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// poolAdapter sees every host of the pool.
func (f *fixture) poolAdapter(t *testing.T) *xenserver.Adapter {
	t.Helper()
	s, err := f.hosts[0].Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := xapi.New(xapi.Options{Hosts: []string{s.Addr}, User: "root", Password: "secret", Pins: []string{s.Fingerprint}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	a := xenserver.New(xenserver.Options{XAPI: c, Log: slog.New(slog.DiscardHandler), Backoff: 5 * time.Millisecond})
	t.Cleanup(func() { a.Close() })
	return a
}
