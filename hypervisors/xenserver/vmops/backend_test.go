package vmops_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/hypervisors/xenserver/vmops"
)

func TestSync(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web}
	vm := f.vm("i-2-3-VM", 1, "web", "10.1.1.3, 10.1.1.4, 10.1.1.5")
	vm.Start(f.hosts[0])
	f.pool.AddVM(sim.VMSpec{Name: "r-4-VM", OtherConfig: map[string]string{"ringwall-kind": "system"},
		VIFs: []sim.VIFSpec{{Network: f.network, MAC: "02:00:00:00:00:02"}}}).Start(f.hosts[0])
	f.sync(t)
	s := f.state(t, 0)
	got := s.VMs["i-2-3-VM"]
	if got == nil || got.Device != vm.Device(0) || !slices.Equal(got.Addresses, []string{"10.1.1.3", "10.1.1.4", "10.1.1.5"}) || s.Guards[0] != [2]string{vm.Device(0), "02:00:00:00:00:01"} {
		t.Fatalf("%+v", got)
	}
	if !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "10.9.9.9") || s.Allows("i-2-3-VM", "ingress", "tcp", 80, "11.0.0.1") ||
		s.Allows("i-2-3-VM", "ingress", "tcp", 22, "10.9.9.9") || !s.Allows("i-2-3-VM", "egress", "tcp", 22, "8.8.8.8") || !s.Allows("r-4-VM", "ingress", "tcp", 22, "8.8.8.8") {
		t.Errorf("%+v", s)
	}
	o := observe(t, f.backends[0])
	if o.Fingerprint != f.ruleset(t, 0).Fingerprint() || len(o.Drift) > 0 {
		t.Errorf("%+v", o)
	}
	// What is in force already calls nothing, also after a restart.
	calls := s.Calls["network_rules"] + s.Calls["default_network_rules"]
	f.backends[0] = f.open(t, 0)
	f.sync(t)
	if s := f.state(t, 0); s.Calls["network_rules"]+s.Calls["default_network_rules"] != calls || s.Calls["default_network_rules_systemvm"] != 1 {
		t.Errorf("%v", s.Calls)
	}
	if err := f.backends[0].Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = f.state(t, 0)
	if o := observe(t, f.backends[0]); len(s.VMs)+len(s.Sets) > 0 || o.Fingerprint != (core.Fingerprint{}) || len(o.Drift) > 0 {
		t.Errorf("%+v %+v", s, o)
	}
}

// A change of rules touches nothing but the VMs that have them.
func TestApply(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web, {Name: "db"}}
	f.vm("i-2-3-VM", 1, "web", "10.1.1.3").Start(f.hosts[0])
	f.vm("i-2-4-VM", 2, "db", "10.1.1.4").Start(f.hosts[0])
	b := f.backends[0]
	before := policy.Version(f.ruleset(t, 0))
	if err := b.Apply(t.Context(), core.Delta{}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("before any Sync: %v", err)
	}
	f.sync(t)
	f.groups[1].Rules = []core.Rule{rule(core.Ingress, core.ProtocolTCP, &core.Peers{Groups: []string{"web"}}, port(3306)),
		rule(core.Egress, core.AnyProtocol, cidrs("10.0.0.0/8"))}
	after := policy.Version(f.ruleset(t, 0))
	log := f.state(t, 0).VMs["i-2-3-VM"].Log
	if err := b.Apply(t.Context(), policy.Diff(before, after)); err != nil {
		t.Fatal(err)
	}
	s := f.state(t, 0)
	if !slices.Equal(s.VMs["i-2-3-VM"].Log, log) || s.Calls["default_network_rules"] != 2 {
		t.Errorf("the other VM was touched: %v %v", s.VMs["i-2-3-VM"].Log, s.Calls)
	}
	if !s.Allows("i-2-4-VM", "ingress", "tcp", 3306, "10.1.1.3") || s.Allows("i-2-4-VM", "ingress", "tcp", 3306, "10.1.1.9") ||
		s.Allows("i-2-4-VM", "egress", "tcp", 80, "8.8.8.8") || !s.Allows("i-2-4-VM", "egress", "tcp", 53, "8.8.8.8") || !s.Allows("i-2-4-VM", "egress", "tcp", 80, "10.2.2.2") {
		t.Errorf("%+v", s)
	}
	if err := b.Apply(t.Context(), policy.Diff(before, after)); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a difference from what is no more: %v", err)
	}
}

// Secondary addresses come and go without the rules being flushed.
func TestSecondaryAddresses(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web}
	vm := f.vm("i-2-3-VM", 1, "web", "10.1.1.3, 10.1.1.4")
	vm.Start(f.hosts[0])
	f.sync(t)
	f.pool.Set("vif", vm.VIFs()[0], "other_config", map[string]string{"ringwall-groups": "web", "ringwall-addresses": "10.1.1.3, 10.1.1.5"})
	f.sync(t)
	s := f.state(t, 0)
	if got := s.VMs["i-2-3-VM"]; !slices.Equal(got.Addresses, []string{"10.1.1.3", "10.1.1.5"}) || s.Calls["default_network_rules"] != 1 || s.Calls["network_rules"] != 1 {
		t.Errorf("%+v %v", got, s.Calls)
	}
	if o := observe(t, f.backends[0]); len(o.Drift) > 0 {
		t.Error(o)
	}
}

// A NIC without an address and without a group passes nothing.
func TestClosed(t *testing.T) {
	f := site(t, siteOptions{})
	f.vm("web", 1, "", "").Start(f.hosts[0])
	rs := f.ruleset(t, 0)
	for k, n := range rs.NICs {
		n.EgressDeny4, n.EgressDeny6 = true, true // what the engine gives a NIC that is refused
		rs.NICs[k] = n
	}
	if err := f.backends[0].Sync(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	s := f.state(t, 0)
	if got := s.VMs["web"]; !slices.Equal(got.Addresses, []string{"240.0.0.1"}) || s.Allows("web", "ingress", "tcp", 80, "10.0.0.1") || s.Allows("web", "egress", "tcp", 80, "10.0.0.1") {
		t.Errorf("%+v", got)
	}
}

// What vmops cannot enforce is refused by name, before anything is called.
func TestRefused(t *testing.T) {
	type world struct {
		*fixture
		options *core.Options
	}
	for name, tc := range map[string]struct {
		make func(world)
		says string
		err  error
	}{
		"a protocol by number":   {func(w world) { w.groups[0].Rules[0] = rule(core.Ingress, 47, cidrs("10.0.0.0/8")) }, "protocols other than", core.ErrUnsupported},
		"sctp":                   {func(w world) { w.groups[0].Rules[0].Protocol = core.ProtocolSCTP }, "protocols other than", core.ErrUnsupported},
		"a type with any code":   {func(w world) { w.groups[0].Rules[0] = icmp(8, -1) }, "name the code", core.ErrUnsupported},
		"an IPv6 address":        {func(w world) { w.vm("v6", 9, "web", "10.1.1.9, fd00::9").Start(w.hosts[0]) }, "fd00::9", core.ErrUnsupported},
		"a name that is cut":     {func(w world) { w.vm("i-2-3456789-VM1", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "longer than 14", core.ErrUnsupported},
		"a system VM's name":     {func(w world) { w.vm("s-9-VM", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "would not filter it", core.ErrUnsupported},
		"-untagged":              {func(w world) { w.vm("web-untagged", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "untagged", core.ErrUnsupported},
		"a name with a space":    {func(w world) { w.vm("my web", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "letters, digits", core.ErrUnsupported},
		"a name that is a chain": {func(w world) { w.vm("web-def", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "chain web-def", core.ErrConflict},
		"a name that is a set":   {func(w world) { w.vm("webt80_80", 9, "web", "10.1.1.9").Start(w.hosts[0]) }, "set webt80_80", core.ErrConflict},
		"DNS that is not always": {func(w world) { w.options.AllowDNS = false }, "always_allow: [dns]", core.ErrUnsupported},
		"multicast":              {func(w world) { w.options.Multicast = core.MulticastByRules }, "multicast: drop", core.ErrUnsupported},
		"closed ports":           {func(w world) { w.options.VMPorts = []core.Pattern{"vif*"} }, "vm_ports: []", core.ErrUnsupported},
		"counting only":          {func(w world) { w.options.CountOnly = true }, "enforce: false", core.ErrUnsupported},
		"a pair": {func(w world) {
			w.pool.AddVM(sim.VMSpec{Name: "pair", VIFs: []sim.VIFSpec{{Network: w.network, MAC: "02:00:00:00:00:09", OtherConfig: map[string]string{"ringwall-allowed-pairs": "10.1.1.100"}}}}).Start(w.hosts[0])
		}, "allowed pairs", core.ErrUnsupported},
		"a second NIC": {func(w world) {
			two := w.vm("two", 9, "web", "10.1.1.9")
			two.Plug(sim.VIFSpec{Network: w.network, MAC: "02:00:00:00:00:10"})
			two.Start(w.hosts[0])
		}, "first NIC", core.ErrUnsupported},
		"too many CIDRs": {func(w world) { w.groups[0].Rules[0].Peers = many(40000) }, "use wider CIDRs", core.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			f := site(t, siteOptions{})
			f.groups = []core.Group{{Name: "web", Rules: slices.Clone(web.Rules)}}
			f.vm("web", 1, "web", "10.1.1.3").Start(f.hosts[0])
			o := options()
			tc.make(world{f, &o})
			rs := f.ruleset(t, 0)
			rs.Options = o
			err := f.backends[0].Sync(t.Context(), rs)
			if !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v", err)
			}
			if n := f.pool.Calls("host.call_plugin"); n > 0 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func icmp(typ uint8, code int) core.Rule {
	m := &core.ICMPMatch{Type: &typ}
	if code >= 0 {
		c := uint8(code)
		m.Code = &c
	}
	return core.Rule{Direction: core.Ingress, Protocol: core.ProtocolICMP, ICMP: m, Peers: cidrs("10.0.0.0/8")}
}

// Features say beforehand what plan would refuse, so that the engine can spare
// those who need it.
func TestFeatures(t *testing.T) {
	have := vmops.Driver().Info().Features
	for _, f := range []core.Feature{core.FeatureIPv6, core.FeatureMultiNIC, core.FeatureProtocols, core.FeaturePairs, core.FeatureNoAntiSpoof,
		core.FeatureMulticast, core.FeatureCountOnly, core.FeatureFailClosed, core.FeatureFlows, core.FeatureCounters, core.FeatureEvents, core.FeatureZones} {
		if slices.Contains(have, f) {
			t.Errorf("%s is not to be had", f)
		}
	}
}

// A pool with rules that somebody else wrote is left alone.
func TestStrangers(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web}
	f.vm("i-2-3-VM", 1, "web", "10.1.1.3").Start(f.hosts[0])
	f.vm("i-9-9-VM", 2, "web", "10.1.1.9").Start(f.hosts[0])
	theirs := map[string]string{"vmName": "i-9-9-VM", "vmIP": "10.1.1.9", "vmMAC": "02:00:00:00:00:02", "vmID": "9", "secIps": "0;"}
	var out string
	c := f.client(t)
	defer c.Close(t.Context())
	if err := c.Call(t.Context(), "host.call_plugin", &out, f.hosts[0].Ref, "vmops", "default_network_rules", theirs); err != nil || out != "true" {
		t.Fatal(out, err)
	}
	checks, err := f.backends[0].Preflight(t.Context())
	i := slices.IndexFunc(checks, func(c core.Check) bool { return c.Name == "vmops-owner" })
	if err != nil || i < 0 || checks[i].Status != core.StatusError || !strings.Contains(checks[i].Evidence, "i-9-9-VM") || checks[i].Fix == "" {
		t.Errorf("%+v %v", checks, err)
	}
	if err := f.trySync(t, 0); !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), "i-9-9-VM") {
		t.Error(err)
	}
	if s := f.state(t, 0); len(s.VMs) != 1 || s.Calls["default_network_rules"] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPreflight(t *testing.T) {
	status := func(checks []core.Check, name string) (core.Status, bool) {
		i := slices.IndexFunc(checks, func(c core.Check) bool { return c.Name == name })
		if i < 0 {
			return 0, false
		}
		if checks[i].Status != core.StatusOK && checks[i].Fix == "" {
			t.Errorf("no fix: %+v", checks[i])
		}
		return checks[i].Status, true
	}
	f := site(t, siteOptions{})
	f.vm("web", 1, "", "10.1.1.3").Start(f.hosts[0])
	checks, err := f.backends[0].Preflight(t.Context())
	if s, ok := status(checks, "vmops"); err != nil || !ok || s != core.StatusOK {
		t.Error(checks, err)
	}
	if s, ok := status(checks, "vmops-others"); !ok || s != core.StatusWarning {
		t.Error(checks)
	}
	f.hosts[0].SetBackend("openvswitch")
	checks, _ = f.backends[0].Preflight(t.Context())
	if s, _ := status(checks, "network-backend"); s != core.StatusError || !strings.Contains(checks[1].Fix, "xe-switch-network-backend bridge") {
		t.Error(checks)
	}
	if err := f.trySync(t, 0); !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), "xe-switch-network-backend bridge") {
		t.Error(err)
	}
	f.hosts[0].SetBackend("bridge")
	f.hosts[0].Plugins = map[string]string{}
	checks, _ = f.backends[0].Preflight(t.Context())
	if s, _ := status(checks, "vmops"); s != core.StatusError {
		t.Error(checks)
	}
	ovs := site(t, siteOptions{ovs: true}) // the plugin itself says so
	checks, _ = ovs.backends[0].Preflight(t.Context())
	if s, _ := status(checks, "vmops"); s != core.StatusError {
		t.Error(checks)
	}
}

// Sequence numbers only rise: after restarts, and from host to host.
func TestSequence(t *testing.T) {
	f := site(t, siteOptions{hosts: 2})
	f.groups = []core.Group{web}
	vm := f.vm("i-2-3-VM", 1, "web", "10.1.1.3")
	vm.Start(f.hosts[0])
	last := ""
	step := func(host int) {
		t.Helper()
		rules := &f.groups[0].Rules[0].Ports
		*rules = append(*rules, port(uint16(1000+len(*rules))))
		for i := range f.hosts {
			if len(*rules)%2 == 0 {
				time.Sleep(1100 * time.Millisecond) // an agent does not start twice in a second
				f.backends[i] = f.open(t, i)
			}
			if err := f.trySync(t, i); err != nil {
				t.Fatal(err)
			}
		}
		now := f.state(t, host).VMs["i-2-3-VM"].Log[5]
		if len(now) != 1 || now <= last {
			t.Errorf("%q after %q", now, last)
		}
		last = now
	}
	f.groups[0].Rules = slices.Clone(f.groups[0].Rules)
	step(0)
	step(0)
	vm.Migrate(f.hosts[1])
	step(1)
	if s := f.state(t, 0); len(s.VMs)+len(s.Sets) > 0 {
		t.Errorf("the source has kept %+v", s)
	}
	vm.Reboot()
	step(1)
	vm.Migrate(f.hosts[0])
	step(0)
}

// A failure in the middle leaves the former ruleset in force: the VM that is
// programmed last is one that vmops does not find.
func TestRollback(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{{Name: "web", Rules: slices.Clone(web.Rules)}}
	vms := map[core.VMKey]*sim.VM{}
	for n, name := range []string{"i-2-3-VM", "i-2-4-VM"} {
		vm := f.vm(name, byte(n+1), "web", fmt.Sprintf("10.1.1.%d", n+3))
		vm.Start(f.hosts[0])
		vms[core.VMKey(vm.UUID)] = vm
	}
	f.sync(t)
	former := f.ruleset(t, 0)
	f.groups[0].Rules[0] = rule(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8"), port(22))
	next := f.ruleset(t, 0)
	last, first := core.NICPolicy{}, core.NICPolicy{}
	for k, n := range next.NICs {
		if k.VM > last.Key.VM {
			last, first = n, last
		} else {
			first = n
		}
	}
	f.pool.Set("vm", vms[last.Key.VM].Ref, "name_label", "renamed")
	err := f.backends[0].Sync(t.Context(), next)
	var o *core.ObjectError
	if !errors.As(err, &o) || len(o.NICs) != 1 || o.NICs[0] != last.Key {
		t.Fatal(err)
	}
	s := f.state(t, 0)
	if s.Calls["network_rules"] != 5 || s.Allows(first.VM, "ingress", "tcp", 22, "10.0.0.1") || !s.Allows(first.VM, "ingress", "tcp", 80, "10.0.0.1") {
		t.Errorf("%v %+v", s.Calls, s.VMs[first.VM])
	}
	if got := observe(t, f.backends[0]).Fingerprint; got != former.Fingerprint() {
		t.Errorf("fingerprint %s", got.Short())
	}
}

func TestOpen(t *testing.T) {
	for _, s := range []core.Settings{{}, {"hosts": []any{"x"}, "host": "x"}, {"host": 5}, {"host": "x", "color": "red"}} {
		var fe *core.FieldError
		if _, err := vmops.Driver().Open(t.Context(), s); !errors.As(err, &fe) || !strings.HasPrefix(fe.Path, "backend.settings") {
			t.Errorf("%v: %v", s, err)
		}
	}
}
