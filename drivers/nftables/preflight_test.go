package nftables

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// patient is a host to be examined. Its files about services are a test's own;
// all else is the kernel's, in a namespace of its own.
type patient struct {
	t       *testing.T
	host    *labtest.Host
	backend *Backend
	files   files
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	dir := t.TempDir()
	f := systemFiles()
	f.unit, f.conf = []string{filepath.Join(dir, "nftables.service")}, []string{filepath.Join(dir, "nftables.conf")}
	f.enabled, f.dropIns = filepath.Join(dir, "*.wants", "nftables.service"), filepath.Join(dir, "nftables.service.d", "*.conf")
	f.started = filepath.Join(dir, "units")
	return &patient{t, h, openBackend(t, h), f}
}

// sync puts one NIC in force: what a host at work looks like.
func (p *patient) sync() {
	p.t.Helper()
	labtest.Check(p.t, p.backend.Sync(p.t.Context(), labtest.Must(policy.Compile(policy.Input{
		Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}},
		VMs: []core.VM{{Key: "a", Name: "a", NICs: []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
			Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet0"}}}}}},
	}))(p.t)))
}

// run runs a shell command in the host.
func (p *patient) run(command string) {
	p.t.Helper()
	labtest.Check(p.t, p.host.Do(func() error {
		out, err := exec.Command("sh", "-ec", command).CombinedOutput()
		if err != nil {
			p.t.Logf("%s: %s", command, out)
		}
		return err
	}))
}

func (p *patient) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(filepath.Dir(p.files.conf[0]), name)
	labtest.Check(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	labtest.Check(p.t, os.WriteFile(path, []byte(text), 0o644))
}

func (p *patient) examine() map[string]core.Check {
	p.t.Helper()
	checks := map[string]core.Check{}
	for _, c := range labtest.Must(p.backend.preflight(p.t.Context(), p.files))(p.t) {
		if _, twice := checks[c.Name]; twice || c.Summary == "" || (c.Status == core.StatusOK) != (c.Fix == "") {
			p.t.Errorf("check %+v", c)
		}
		checks[c.Name] = c
	}
	return checks
}

// expect is examine where only the named check is to object.
func (p *patient) expect(name string, status core.Status) core.Check {
	p.t.Helper()
	checks := p.examine()
	for _, c := range checks {
		if c.Name != name && c.Status != core.StatusOK {
			p.t.Errorf("beside %s: %+v", name, c)
		}
	}
	if checks[name].Status != status {
		p.t.Errorf("%+v, want status %s", checks[name], status)
	}
	return checks[name]
}

func (p *patient) expectHealth() {
	p.t.Helper()
	p.expect("nf-tables", core.StatusOK)
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s is %q, which lacks %q", what, text, part)
		}
	}
}

func TestPreflightOfAHealthyHost(t *testing.T) {
	p := newPatient(t)
	p.expectHealth()
	p.sync()
	p.expectHealth()
	if n := len(labtest.Must(p.backend.Preflight(t.Context()))(t)); n != len(p.examine()) {
		t.Errorf("%d checks from Preflight", n)
	}
}

// Preflight changes nothing: neither rules nor settings nor tables that come
// into being when they are asked for.
func TestPreflightChangesNothing(t *testing.T) {
	p := newPatient(t)
	p.sync()
	look := func() (out string) {
		labtest.Check(t, p.host.Do(func() error {
			b, err := exec.Command("sh", "-c", "nft list ruleset; cat /proc/thread-self/net/ip_tables_names; ip -d link | grep -o 'nf_call_[a-z0-9]* [01]'; sysctl net.bridge").CombinedOutput()
			out = string(b)
			return err
		}))
		return out
	}
	before, generation := look(), labtest.Must(p.backend.conn.Generation(t.Context()))(t)
	p.examine()
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if g := labtest.Must(p.backend.conn.Generation(t.Context()))(t); g != generation {
		t.Errorf("generation %d, was %d", g, generation)
	}
}

func TestPreflightPortRules(t *testing.T) {
	for _, c := range []struct{ name, rules, what, fix string }{
		{"nwfilter's ebtables", "ebtables-nft -t nat -N libvirt-I-vnet0; ebtables-nft -t nat -A PREROUTING -i vnet0 -j libvirt-I-vnet0", "libvirt's nwfilter guards VM port vnet0", "virsh edit"},
		{"nwfilter's iptables", "iptables-nft -N FI-vnet3; iptables-nft -A FORWARD -m physdev --physdev-in vnet3 -g FI-vnet3", "libvirt's nwfilter guards VM port vnet3", "virsh edit"},
		{"iptables-legacy", "iptables-legacy -A FORWARD -m physdev --physdev-is-bridged --physdev-out vnet1 -j ACCEPT", "iptables-legacy table filter has rules about VM port vnet1", "iptables-legacy -t filter -S"},
		{"nft", "nft 'add table bridge f; add chain bridge f c {type filter hook forward priority 0;}; add rule bridge f c oifname vnet9 drop'", "table bridge f has rules about VM port vnet9", "nft list table bridge f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.run(c.rules)
			got := p.expect("vm-port-rules", core.StatusError)
			contains(t, "the summary", got.Summary, c.what)
			contains(t, "the fix", got.Fix, c.fix)
		})
	}
}

func TestPreflightBridges(t *testing.T) {
	p := newPatient(t)
	p.host.AddBridge(lab.BridgeSpec{Name: "other0"})
	contains(t, "before the first Sync", p.expect("bridges", core.StatusOK).Summary, "br0", "other0")
	labtest.Check(t, p.backend.Sync(t.Context(), core.Ruleset{Options: core.Options{Bridges: []core.Pattern{"br0", "br7", "cloud*"}}}))
	got := p.expect("bridges", core.StatusWarning)
	contains(t, "the summary", got.Summary, "no bridge is called br7", "and 1 more")
	contains(t, "the fix", got.Fix, "ip link add br7", "config reload")
}

func TestPreflightSwitches(t *testing.T) {
	p := newPatient(t)
	p.expect("bridge-switches", core.StatusOK) // off, and that is fine so far
	p.sync()
	// The driver would mend it at once.
	labtest.Check(t, p.backend.Close())
	p.run("ip link set br0 type bridge nf_call_ip6tables 0")
	s := labtest.Must(p.reopened().surroundings(t.Context(), p.files))(t)
	s.synced, s.options = true, core.Options{Bridges: []core.Pattern{"br*"}}
	got := s.checkSwitches()
	if got.Status != core.StatusError || !strings.Contains(got.Summary, "br0") {
		t.Errorf("%+v", got)
	}
	p.run(got.Fix)
	s.links = labtest.Must(links.List(t.Context(), links.Options{NetNS: p.reopened().fd()}))(t)
	if got := s.checkSwitches(); got.Status != core.StatusOK {
		t.Errorf("%+v", got)
	}
}

func (p *patient) reopened() *Backend { return openBackend(p.t, p.host) }

// The native datapath goes without br_netfilter, and without what meets packets
// there, unless somebody has switched it on all the same.
func TestPreflightNative(t *testing.T) {
	p := newPatient(t)
	p.run("iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP; nft 'add table ip m; add chain ip m c {type filter hook prerouting priority 0;}; add rule ip m c meta mark set 1'")
	labtest.Check(t, p.host.SetSysctl(map[string]string{"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0"}))
	s := labtest.Must(p.backend.surroundings(t.Context(), p.files))(t)
	s.synced, s.options = true, core.Options{Bridges: []core.Pattern{"br*"}}
	want := func(c core.Check, status core.Status) {
		t.Helper()
		if c.Status != status {
			t.Errorf("%+v, want status %s", c, status)
		}
	}
	want(s.checkSwitches(), core.StatusError)
	want(s.checkForeignFilters(), core.StatusError)
	want(s.checkMarks(), core.StatusError)
	s.native = true
	want(s.checkSwitches(), core.StatusOK)
	want(s.checkForeignFilters(), core.StatusOK)
	want(s.checkMarks(), core.StatusOK)
	p.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
	s = labtest.Must(p.backend.surroundings(t.Context(), p.files))(t)
	s.synced, s.options, s.native = true, core.Options{Bridges: []core.Pattern{"br*"}}, true
	want(s.checkForeignFilters(), core.StatusError)
	s.files.values = nil
	want(s.checkBridgeNetfilter(), core.StatusOK)
	s.native = false
	want(s.checkBridgeNetfilter(), core.StatusError)
}

// Not every kernel has Open vSwitch, so its device is made up.
func TestPreflightOpenVSwitch(t *testing.T) {
	p := newPatient(t)
	s := labtest.Must(p.backend.surroundings(t.Context(), p.files))(t)
	s.links.Bridges["br1"] = links.Bridge{Name: "br1", OpenVSwitch: true}
	if got := s.checkOpenVSwitch(); got.Status != core.StatusWarning || got.Fix == "" {
		t.Errorf("before the first Sync: %+v", got)
	}
	s.synced, s.options = true, core.Options{Bridges: []core.Pattern{"br*"}}
	got := s.checkOpenVSwitch()
	if got.Status != core.StatusError {
		t.Errorf("%+v", got)
	}
	contains(t, "the summary", got.Summary, "bridge br1 is Open vSwitch")
	contains(t, "the fix", got.Fix, "unmanaged: [br1]")
	s.options.Unmanaged = []core.Pattern{"br1"}
	if got := s.checkOpenVSwitch(); got.Status != core.StatusOK {
		t.Errorf("unmanaged: %+v", got)
	}
}

func TestPreflightSysctls(t *testing.T) {
	for _, c := range []struct{ key, value string }{
		{"net.ipv4.fwmark_reflect", "1"}, {"net.ipv6.fwmark_reflect", "1"}, {"net.netfilter.nf_conntrack_tcp_loose", "0"},
		{"net.bridge.bridge-nf-filter-vlan-tagged", "1"}, {"net.bridge.bridge-nf-pass-vlan-input-dev", "1"},
	} {
		t.Run(c.key, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			labtest.Check(t, p.host.SetSysctl(map[string]string{c.key: c.value}))
			got := p.expect("sysctls", core.StatusWarning)
			contains(t, "the evidence", got.Evidence, c.key+" = "+c.value)
			command, _, _ := strings.Cut(got.Fix, " &&") // the rest is for the next boot
			p.run(command)
			p.expectHealth()
		})
	}
}

// The kernel's own values cannot be set in a namespace.
func TestPreflightFiles(t *testing.T) {
	p := newPatient(t)
	dir := t.TempDir()
	p.files.sysctl = dir
	set := func(name, value string) {
		path := filepath.Join(dir, name)
		labtest.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		labtest.Check(t, os.WriteFile(path, []byte(value+"\n"), 0o644))
	}
	contains(t, "the fix", p.expect("br-netfilter", core.StatusError).Fix, "modprobe br_netfilter")
	set("net/bridge/bridge-nf-call-iptables", "0")
	p.expectHealth()
	set("net/netfilter/nf_conntrack_max", "1000")
	for count, want := range map[string]core.Status{"0": core.StatusOK, "799": core.StatusOK, "800": core.StatusWarning, "980": core.StatusError, "1000": core.StatusError} {
		set("net/netfilter/nf_conntrack_count", count)
		got := p.expect("conntrack-table", want)
		if want != core.StatusOK {
			contains(t, "the fix", got.Fix, "nf_conntrack_max=4000")
		}
	}
}

// A table of iptables-legacy that iptables-legacy does not know.
func TestPreflightUnreadableLegacy(t *testing.T) {
	p := newPatient(t)
	p.files.net = t.TempDir()
	labtest.Check(t, os.WriteFile(filepath.Join(p.files.net, "ip_tables_names"), []byte("nonsense\n"), 0o644))
	contains(t, "the evidence", p.expect("foreign-filters", core.StatusWarning).Evidence, "iptables-legacy table nonsense")
}

func TestPreflightMissingTables(t *testing.T) {
	p := newPatient(t)
	p.sync()
	p.run("nft flush ruleset")
	contains(t, "the summary", p.expect("tables", core.StatusError).Summary, "gone")
	p.sync()
	p.expectHealth()
}

// What older kernels say cannot be had from this one.
func TestKernelLacks(t *testing.T) {
	s := skeleton{marks: marks{mask: 0xf00, flow: 7 << 29}}
	bridge, ip, guard := s.bridge(), s.ip(fam4), linkLocalGuard([]string{"lo"}, false)
	for _, c := range []struct {
		table *nft.Table
		err   nft.Error
		want  string
	}{
		{bridge, nft.Error{Object: "bridge probe-1 set src4-prefix", Op: "add", Errno: syscall.EOPNOTSUPP}, "no interval sets of concatenated keys"},
		{ip, nft.Error{Object: "ip probe-1 set owner-prefix", Op: "add", Errno: syscall.EINVAL}, "no interval sets of concatenated keys"},
		{bridge, nft.Error{Object: "bridge probe-1 set out/ip-spoof", Op: "add", Errno: syscall.EOPNOTSUPP}, "nft_dynset"},
		{bridge, nft.Error{Object: "table bridge probe-1", Op: "add", Errno: syscall.EAFNOSUPPORT}, "CONFIG_NF_TABLES_BRIDGE"},
		{guard, nft.Error{Object: "table netdev probe-1", Op: "add", Errno: syscall.EAFNOSUPPORT}, "CONFIG_NF_TABLES_NETDEV"},
		{ip, nft.Error{Object: "ip probe-1 chain stamp rule 1", Op: "add", Errno: syscall.ENOENT}, "ip probe-1 chain stamp rule 1"},
	} {
		got := kernelLacks(c.table, nft.Errors{&c.err})
		contains(t, "the summary", got.what, c.want)
		contains(t, "the evidence", got.seen, "kernel ", c.err.Object)
		contains(t, "the fix", got.by, "iptables driver")
	}
	denied := kernelLacks(bridge, nft.Errors{&nft.Error{Object: "nftables transaction", Op: "commit", Errno: syscall.EPERM}})
	contains(t, "the fix", denied.by, "CAP_NET_ADMIN")
}

func TestForeignReading(t *testing.T) {
	p := newPatient(t)
	p.run("iptables-nft -A FORWARD -m physdev --physdev-in vnet0 -j MARK --set-xmark 0x1/0x3")
	id := nft.TableID{Family: nft.IPv4, Name: "filter"}
	table := labtest.Must(p.backend.conn.ReadRules(t.Context(), id))(t)
	var names []string
	for _, e := range table.Chains["FORWARD"].Rules[0].Exprs {
		if x, ok := nft.AsExtension(e); ok {
			names = append(names, x.Name)
			if x.Name == "physdev" && (x.Target || !bytes.HasPrefix(x.Info, []byte("vnet0\x00"))) || x.Name == "MARK" && !x.Target {
				t.Errorf("%+v", x)
			}
		}
	}
	if !slices.Equal(names, []string{"physdev", "MARK"}) {
		t.Errorf("extensions %v", names)
	}
	if none, err := p.backend.conn.ReadRules(t.Context(), nft.TableID{Family: nft.IPv4, Name: "nobody"}); none != nil || err != nil {
		t.Errorf("%v, %v", none, err)
	}
}
