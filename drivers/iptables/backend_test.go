package iptables_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/iptables"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// site is a host with one bridge and an uplink, and VMs' devices on it.
type site struct {
	t    *testing.T
	host *labtest.Host
}

func newSite(t *testing.T) site {
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "cloudbr0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	port := func(name, device string, last byte) lab.StationSpec {
		return lab.StationSpec{Name: name, Ports: []lab.PortSpec{{Bridge: "cloudbr0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last}}}}
	}
	h.AddStations(port("a", "vnet0", 0x0a), port("b", "vnet1", 0x0b), port("u", "eth0", 9))
	return site{t, h}
}

func (s site) open(d core.BackendDriver, settings core.Settings) core.SecurityGroupBackend {
	s.t.Helper()
	var b core.SecurityGroupBackend
	labtest.Check(s.t, s.host.Do(func() (err error) {
		b, err = d.Open(context.WithoutCancel(s.t.Context()), settings)
		return err
	}))
	s.t.Cleanup(func() { labtest.Check(s.t, b.Close()) })
	return b
}

// run runs a shell script in the host.
func (s site) run(script string) string {
	s.t.Helper()
	var out []byte
	labtest.Check(s.t, s.host.Do(func() (err error) {
		if out, err = exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return nil
	}))
	return string(out)
}

// two VMs, of which the second has a rule with n CIDRs.
func two(n int) policy.Input {
	vm := func(name, device string, last byte, group string) core.VM {
		return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, last}, Groups: []string{group},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", last))},
			Binding:   core.Binding{Bridge: "cloudbr0", Devices: []string{device}}}}}
	}
	var cidrs []netip.Prefix
	for i := range n {
		cidrs = append(cidrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i>>8), byte(i), 0}), 24))
	}
	return policy.Input{Options: core.Options{Bridges: []core.Pattern{"cloudbr0"}, VMPorts: []core.Pattern{"vnet*"}, AllowDNS: true, Multicast: core.MulticastDrop},
		Groups: []core.Group{{Name: "a"}, {Name: "b", Rules: []core.Rule{
			{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 22, Last: 22}}, Peers: &core.Peers{CIDRs: cidrs}},
			{Direction: core.Ingress, Protocol: core.ProtocolUDP, Ports: []core.Span{{First: 1, Last: 99}}, Peers: &core.Peers{Groups: []string{"a"}}},
			{Direction: core.Egress, Protocol: core.ProtocolICMP, Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}}}},
		VMs: []core.VM{vm("i-2-7-VM", "vnet0", 0x0a, "a"), vm("i-2-8-VM", "vnet1", 0x0b, "b")}}
}

func compile(t *testing.T, in policy.Input) policy.Versioned {
	t.Helper()
	return policy.Version(labtest.Must(policy.Compile(in))(t))
}

func insync(t *testing.T, b core.SecurityGroupBackend, r policy.Versioned) {
	t.Helper()
	o := labtest.Must(b.Observe(t.Context()))(t)
	if len(o.Drift) > 0 || o.Fingerprint != r.Fingerprint {
		t.Errorf("fingerprint %s, want %s, drift %+v", o.Fingerprint.Short(), r.Fingerprint.Short(), o.Drift)
	}
}

// What is written is read back as the same, by both variants.
func TestInSyncAfterSync(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			s := newSite(t)
			b := s.open(iptables.Driver(), core.Settings{"variant": variant})
			r := compile(t, two(3))
			labtest.Check(t, b.Sync(t.Context(), r.Ruleset))
			insync(t, b, r)
		})
	}
}

// counting puts programs in the PATH that note that they were started.
func counting(t *testing.T) (processes func() int) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, family := range []string{"iptables-nft", "ip6tables-nft", "ebtables-nft"} {
		for _, action := range []string{"save", "restore"} {
			name := family + "-" + action
			real := labtest.Must(exec.LookPath(name))(t)
			script := fmt.Sprintf("#!/bin/sh\necho %s >>%s\nexec %s \"$@\"\n", name, log, real)
			labtest.Check(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() int {
		b, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		labtest.Check(t, os.WriteFile(log, nil, 0o644))
		return strings.Count(string(b), "\n")
	}
}

// A change takes the same few processes for 1 CIDR and for 1,000, and a restart
// that finds all in sync writes nothing.
func TestProcesses(t *testing.T) {
	processes := counting(t)
	s := newSite(t)
	b := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
	before := compile(t, two(1))
	labtest.Check(t, b.Sync(t.Context(), before.Ruleset))
	if n := processes(); n > 8 {
		t.Errorf("the first Sync takes %d processes", n)
	}
	counts := map[int]int{}
	for _, cidrs := range []int{2, 1000} {
		after := compile(t, two(cidrs))
		labtest.Check(t, b.Apply(t.Context(), policy.Diff(before, after)))
		counts[cidrs], before = processes(), after
		insync(t, b, before)
		processes()
	}
	if counts[2] > 8 || counts[1000] > 8 {
		t.Errorf("a change takes %v processes, by CIDRs", counts)
	}
	if rules := strings.Count(s.run("iptables-nft-save"), "--dport 22 "); rules != 1 {
		t.Errorf("1,000 CIDRs are %d rules", rules)
	}
	restarted := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
	processes()
	generation := s.run("nft -a list ruleset | sed 's/packets [0-9]* bytes [0-9]*//' | md5sum")
	labtest.Check(t, restarted.Sync(t.Context(), before.Ruleset))
	if n := processes(); n > 3 {
		t.Errorf("a restart in sync starts %d processes: more than the three that read", n)
	}
	if now := s.run("nft -a list ruleset | sed 's/packets [0-9]* bytes [0-9]*//' | md5sum"); now != generation {
		t.Error("a restart in sync has written something")
	}
}

// Teardown leaves nothing of ours, and everything of others.
func TestTeardown(t *testing.T) {
	s := newSite(t)
	s.run(`iptables-nft -N THEIRS; iptables-nft -A FORWARD -i docker0 -j THEIRS; ebtables-nft -t nat -A PREROUTING -i docker0 -j DROP; ipset create theirs hash:ip`)
	state := "iptables-nft-save | grep -v '^#'; ip6tables-nft-save | grep '^-A'; ebtables-nft-save | grep '^-A'; ipset list -n"
	before := s.run(state)
	b := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
	labtest.Check(t, b.Sync(t.Context(), compile(t, two(3)).Ruleset))
	if s.run(state) == before {
		t.Fatal("Sync has written nothing")
	}
	labtest.Check(t, b.Teardown(t.Context()))
	for _, line := range strings.Split(s.run(state), "\n") {
		if !strings.Contains(before, line) && strings.HasPrefix(line, "-A") {
			t.Errorf("left over: %s", line)
		}
	}
	for _, theirs := range []string{"-A FORWARD -i docker0 -j THEIRS", "-A PREROUTING -i docker0 -j DROP", "theirs"} {
		if !strings.Contains(s.run(state), theirs) {
			t.Errorf("gone: %s", theirs)
		}
	}
	if chains := s.run("iptables-nft-save; ebtables-nft-save; ipset list -n"); strings.Contains(chains, "rw-") || strings.Contains(chains, "i-2-") {
		t.Errorf("left over:\n%s", chains)
	}
}

// A host where the other variant holds rules of ours is refused by name.
func TestOtherVariantIsRefused(t *testing.T) {
	s := newSite(t)
	r := compile(t, two(3))
	legacy := s.open(iptables.Driver(), core.Settings{"variant": "legacy"})
	labtest.Check(t, legacy.Sync(t.Context(), r.Ruleset))
	err := s.open(iptables.Driver(), core.Settings{"variant": "nft"}).Sync(t.Context(), r.Ruleset)
	if err == nil || !strings.Contains(err.Error(), "iptables-legacy holds rules of ours") {
		t.Error(err)
	}
}

// The drivers take over from each other: the new one is synced before the old one
// is torn down, and is in sync after that.
func TestTakeover(t *testing.T) {
	s := newSite(t)
	r := compile(t, two(3))
	var old core.SecurityGroupBackend
	for _, d := range []core.BackendDriver{nftables.Driver(), iptables.Driver(), nftables.Driver(), iptables.Driver()} {
		b := s.open(d, nil)
		labtest.Check(t, b.Sync(t.Context(), r.Ruleset))
		if old != nil {
			labtest.Check(t, old.Teardown(t.Context()))
		}
		insync(t, b, r)
		old = b
	}
}
