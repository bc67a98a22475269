package kvm_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

var comparers = cmp.Options{
	cmpopts.IgnoreFields(core.Instance{}, "DomainID"), // a real libvirt gives others each time
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func mac(last byte) core.MAC { return core.MAC{0x52, 0x54, 0, 0, 0, last} }

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func on(bridge, device string) core.Binding {
	return core.Binding{Bridge: bridge, Devices: []string{device}}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseRunningDomain(t *testing.T) {
	d, err := kvm.ParseDomain(readFile(t, "testdata/running.xml"), kvm.ParseOptions{})
	if err != nil || len(d.Problems) > 0 || !d.Active {
		t.Fatalf("error %v, problems %v, active %v", err, d.Problems, d.Active)
	}
	d.Locate(kvm.FakeLinks{
		"vnet0": {Name: "vnet0", Kind: "tun", Master: "cloudbr0", MasterKind: "bridge"},
		"vnet1": {Name: "vnet1", Kind: "tun", Master: "virbr9", MasterKind: "bridge"}, // moved by hand
		"vnet2": {Name: "vnet2", Kind: "tun"},
		"tap8":  {Name: "tap8", Kind: "tun", Master: "br8", MasterKind: "bridge"},
	}, func(name string) (string, error) { return "bridge-of-" + name, nil })
	pair := netip.MustParsePrefix("10.1.1.100/32")
	want := core.Instance{Claims: true, VM: core.VM{
		Key: "6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a01", Name: "web-1",
		NICs: []core.NIC{
			{MAC: mac(1), Binding: on("cloudbr0", "vnet0"), Addresses: addrs("10.1.1.11", "fd00::11"), Groups: []string{"web", "bastion"},
				Pairs: []core.AddressPair{{Prefix: pair, MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}}, {Prefix: netip.MustParsePrefix("10.9.0.0/16")}}},
			{MAC: mac(2), Binding: on("virbr9", "vnet1"), SpoofingAllowed: true},
			{MAC: mac(3), Binding: on("bridge-of-old", "vnet2")},
			{MAC: mac(4), Binding: on("cloudbr1", "vnet3"), Addresses: addrs("10.1.2.11", "10.1.2.12", "fd00:2::11")},
			{MAC: mac(5)}, {MAC: mac(6)}, {MAC: mac(7)},
			{MAC: mac(8), Binding: on("br8", "tap8")},
		},
	}}
	if diff := cmp.Diff(want, d.Instance(), comparers); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	if id := d.Instance().DomainID; id != "7" {
		t.Errorf("domain id %q", id)
	}
}

// domain writes a running domain around interfaces and metadata.
func domain(name, metadata string, interfaces ...string) string {
	return fmt.Sprintf(`<domain type='kvm' id='1'><name>%s</name><uuid>6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a02</uuid>
<metadata>%s</metadata><devices>%s</devices></domain>`, name, metadata, strings.Join(interfaces, "\n"))
}

func bridged(mac, bridge, device string) string {
	return fmt.Sprintf(`<interface type='bridge'><mac address='%s'/><source bridge='%s'/><target dev='%s'/></interface>`, mac, bridge, device)
}

func TestParseDomainNICs(t *testing.T) {
	const m1 = "52:54:00:00:00:01"
	for _, tc := range []struct {
		name       string
		interfaces []string
		want       []core.NIC
		problem    string // part of the only one; empty = none
	}{
		{name: "not plugged in yet", interfaces: []string{`<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>`},
			want: []core.NIC{{MAC: mac(1)}}},
		{name: "a bond in the guest", interfaces: []string{bridged(m1, "br0", "vnet1"), bridged(m1, "br0", "vnet0")},
			want: []core.NIC{{MAC: mac(1), Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet0", "vnet1"}}}}},
		{name: "one MAC on two bridges", interfaces: []string{bridged(m1, "br0", "vnet0"), bridged(m1, "br1", "vnet1")},
			want: []core.NIC{{MAC: mac(1), Binding: on("br0", "vnet0")}}},
		{name: "one MAC, the first not on a bridge", interfaces: []string{`<interface type='user'><mac address='52:54:00:00:00:01'/></interface>`, bridged(m1, "br1", "vnet1")},
			want: []core.NIC{{MAC: mac(1), Binding: on("br1", "vnet1")}}},
		{name: "one device twice", interfaces: []string{bridged(m1, "br0", "vnet0"), bridged(m1, "br0", "vnet0")},
			want: []core.NIC{{MAC: mac(1), Binding: on("br0", "vnet0")}}},
		{name: "multicast MAC", interfaces: []string{bridged("01:00:5e:00:00:01", "br0", "vnet0"), bridged(m1, "br0", "vnet1")},
			want: []core.NIC{{MAC: mac(1), Binding: on("br0", "vnet1")}}, problem: "interface[0].mac"},
		{name: "no MAC", interfaces: []string{`<interface type='bridge'/>`}, problem: "interface[0].mac"},
		{name: "not a device", interfaces: []string{bridged(m1, "br0", "../../etc")},
			want: []core.NIC{{MAC: mac(1)}}, problem: "interface[0].target.dev"},
		{name: "not a bridge", interfaces: []string{bridged(m1, "a name that is too long", "vnet0")},
			want: []core.NIC{{MAC: mac(1)}}, problem: "interface[0].source.bridge"},
		{name: "nwfilter with a loopback address", interfaces: []string{`<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/>
<filterref filter='f'><parameter name='IP' value='127.0.0.1'/><parameter name='IP' value='10.0.0.1'/></filterref></interface>`},
			want: []core.NIC{{MAC: mac(1), Binding: on("br0", "vnet0"), Addresses: addrs("10.0.0.1")}}, problem: "interface[0].filterref.IP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := kvm.ParseDomain(domain("a", "", tc.interfaces...), kvm.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			in := d.Instance()
			if diff := cmp.Diff(tc.want, in.VM.NICs, comparers); diff != "" || in.Claims {
				t.Errorf("claims %v, NICs (-want +got):\n%s", in.Claims, diff)
			}
			checkProblem(t, d.Problems, tc.problem)
		})
	}
}

func checkProblem(t *testing.T, got []error, want string) {
	t.Helper()
	switch {
	case want == "" && len(got) > 0:
		t.Errorf("problems: %v", got)
	case want != "" && (len(got) != 1 || !strings.Contains(got[0].Error(), want) || !errors.Is(got[0], core.ErrInvalid)):
		t.Errorf("problems %v; want one with %q", got, want)
	}
}

func TestTwoDevicesOfOneNameBelongToOneNIC(t *testing.T) {
	d, err := kvm.ParseDomain(domain("a", "", bridged("52:54:00:00:00:01", "br0", "vnet0"), bridged("52:54:00:00:00:02", "br0", "vnet0")), kvm.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Validate(nil, []core.VM{d.Instance().VM}); err != nil {
		t.Error(err)
	}
}

func TestSystemVMsByName(t *testing.T) {
	for name, want := range map[string]core.VMKind{
		"r-4-VM": core.SystemVM, "s-1-VM": core.SystemVM, "v-2-VM": core.SystemVM, "r-l-4-VM": core.UserVM, "v-12-VM-x": core.SystemVM,
		"i-2-7-VM": core.UserVM, "r-x-VM": core.UserVM, "r-4": core.UserVM, "xr-4-VM": core.UserVM, "l-4-VM": core.SystemVM,
	} {
		for _, cloudstack := range []bool{true, false} {
			d, err := kvm.ParseDomain(domain(name, ""), kvm.ParseOptions{CloudStackNames: cloudstack})
			if err != nil {
				t.Fatal(err)
			}
			if !cloudstack {
				want = core.UserVM
			}
			if got := d.Instance().VM.Kind; got != want {
				t.Errorf("%s, CloudStack names %v: %v, want %v", name, cloudstack, got, want)
			}
		}
	}
}

func TestMetadataOverrulesTheName(t *testing.T) {
	d, err := kvm.ParseDomain(domain("r-4-VM", `<vm xmlns="urn:ringwall:vm:1" kind="user"/>`), kvm.ParseOptions{CloudStackNames: true})
	if err != nil {
		t.Fatal(err)
	}
	if in := d.Instance(); in.VM.Kind != core.UserVM || !in.Claims {
		t.Errorf("%+v", in)
	}
}

// What claims nothing valid must not be opened by its name, nor be mistaken for a
// VM that nobody claims.
func TestFaultyMetadataClaimsAndAllowsNothing(t *testing.T) {
	d, err := kvm.ParseDomain(domain("web", `<vm xmlns="urn:ringwall:vm:1" kind="system"><nic mac="52:54:00:00:00:01"><adress>10.0.0.1</adress></nic></vm>`,
		bridged("52:54:00:00:00:01", "br0", "vnet0")), kvm.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := core.Instance{Claims: true, VM: core.VM{Key: "6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a02", Name: "web",
		NICs: []core.NIC{{MAC: mac(1), Binding: on("br0", "vnet0")}}}}
	if diff := cmp.Diff(want, d.Instance(), comparers); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	checkProblem(t, d.Problems, "adress")
}

func TestParseDomainRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":       "",
		"another":     "<network><name>x</name></network>",
		"no uuid":     "<domain><name>x</name></domain>",
		"cut":         domain("x", "")[:80],
		"entity":      `<!DOCTYPE d [<!ENTITY a "aaaa">]><domain><name>&a;</name><uuid>1</uuid></domain>`,
		"control":     "<domain><name>x</name><uuid>a&#10;b</uuid></domain>",
		"very long":   "<domain>" + strings.Repeat(" ", 17<<20) + "</domain>",
		"very deep":   strings.Repeat("<domain>", 200_000),
		"not utf-8":   "<domain><name>\xff</name><uuid>1</uuid></domain>",
		"other codec": `<?xml version="1.0" encoding="EBCDIC"?><domain/>`,
	} {
		if d, err := kvm.ParseDomain(text, kvm.ParseOptions{}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: %v, %+v; want an ErrInvalid", name, err, d)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	f.Add(readFile(f, "testdata/running.xml"), true)
	f.Add(domain("r-4-VM", `<vm xmlns="urn:ringwall:vm:1"/>`, bridged("52:54:00:00:00:01", "br0", "vnet0")), true)
	f.Fuzz(func(t *testing.T, text string, cloudstack bool) {
		d, err := kvm.ParseDomain(text, kvm.ParseOptions{CloudStackNames: cloudstack})
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		d.Locate(kvm.FakeLinks{}, func(string) (string, error) { return "br0", nil })
		vm := d.Instance().VM
		if err := core.Validate(groupsOf(vm), []core.VM{vm}); err != nil {
			t.Errorf("a VM that core refuses: %v", err)
		}
	})
}

// groupsOf makes the VM's groups exist.
func groupsOf(vm core.VM) (out []core.Group) {
	seen := map[string]bool{}
	for _, n := range vm.NICs {
		for _, g := range n.Groups {
			if !seen[g] {
				seen[g] = true
				out = append(out, core.Group{Name: g})
			}
		}
	}
	return out
}
