package iptables

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

var update = flag.Bool("update", false, "write the golden files")

func rendered(t *testing.T, vms ...core.VM) (renderer, objects) {
	t.Helper()
	s, err := parseSettings(nil)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := policy.Compile(policy.Input{
		Options: core.Options{Bridges: []core.Pattern{"cloudbr0"}, VMPorts: []core.Pattern{"vnet*"}, AllowDNS: true},
		Groups: []core.Group{{Name: "web", Rules: []core.Rule{
			{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 80}}},
			{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 22, Last: 22}},
				Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")}, Groups: []string{"web"}}},
			{Direction: core.Egress, Protocol: core.ProtocolICMP},
		}}},
		VMs: vms,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := renderer{s, topology{bridges: []bridge{{name: "cloudbr0", mac: core.MAC{2, 0, 0, 0, 0, 0xfe}, zone: 7, uplinks: []string{"eth0"}}}, guarded: []string{"vnet0", "vnet9"}}}
	o, err := r.all(rs)
	if err != nil {
		t.Fatal(err)
	}
	return r, o
}

func vm(name, device string, last byte, addrs ...string) core.VM {
	n := core.NIC{MAC: core.MAC{2, 0, 0, 0, 0, last}, Groups: []string{"web"}, Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{device}}}
	for _, a := range addrs {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{n}}
}

// What the three programs read for one VM.
func TestRestoreText(t *testing.T) {
	_, o := rendered(t, vm("i-2-7-VM", "vnet0", 0x0a, "10.0.0.10", "fd00::a"))
	for _, f := range xtables.Families {
		got := xtables.Diff(f, nil, o.rules, nil).Text()
		path := filepath.Join("testdata", f.String()+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-update writes it anew): %s", path, d)
		}
	}
}

// Between two rulesets ebtables allows what both allow.
func TestNarrowedIsBoth(t *testing.T) {
	a := vm("i-2-7-VM", "vnet0", 0x0a, "10.0.0.10", "10.0.0.11")
	b := vm("i-2-7-VM", "vnet0", 0x0a, "10.0.0.11", "10.0.0.12")
	_, old := rendered(t, a)
	r, next := rendered(t, b)
	nat := xtables.TableID{Family: xtables.Bridge, Name: "nat"}
	narrow := r.narrowed(core.Options{VMPorts: []core.Pattern{"vnet*"}}, old.views, next.views)
	text := xtables.Diff(xtables.Bridge, nil, xtables.State{nat: narrow[nat]}, nil).Text()
	for addr, want := range map[string]bool{"10.0.0.10": false, "10.0.0.11": true, "10.0.0.12": false} {
		if got := slices.Contains(strings.Fields(text), addr); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	// On another device it is another port: both are closed.
	_, moved := rendered(t, vm("i-2-7-VM", "vnet5", 0x0a, "10.0.0.10"))
	narrow = r.narrowed(core.Options{}, old.views, moved.views)
	if _, open := narrow[nat].Chains["i-2-7-VM-in"]; open {
		t.Error("a NIC that moves is open while it does")
	}
}

// Names are bounded, and two VMs never share one.
func TestNames(t *testing.T) {
	nic := func(name string, last byte) core.NICPolicy {
		return core.NICPolicy{Key: core.NICKey{VM: core.VMKey(name), MAC: core.MAC{2, 0, 0, 0, 0, last}}, VM: name, Devices: []string{"vnet0"}}
	}
	nics := []core.NICPolicy{nic("i-2-7-VM", 1), nic("i-2-7-VM", 2), nic("i-2-7-VM-eg", 3), nic("MARK", 4), nic("a name with blanks", 5),
		nic("a-very-long-name-of-a-virtual-machine", 6), nic("a-very-long-name-of-a-virtual-machine-2", 7), nic("rw-send", 8), nic("i-2-7-XX", 9)}
	taken := map[string]core.NICKey{}
	for k, n := range assignNames(nics) {
		if len(n.base) > maxBase {
			t.Errorf("%s is too long", n.base)
		}
		if frame := n.frame(partOutType); len(frame) > 28 {
			t.Errorf("%s is longer than ebtables-nft takes", frame)
		}
		for _, name := range n.all() {
			if other, ok := taken[name]; ok {
				t.Errorf("%s is %s's and %s's", name, k, other)
			}
			if len(name) > 28 {
				t.Errorf("%s is longer than a chain's name may be", name)
			}
			taken[name] = k
		}
	}
	if n := assignNames(nics)[nics[0].Key]; n.base != "i-2-7-VM" {
		t.Errorf("CloudStack's name became %s", n.base)
	}
}
