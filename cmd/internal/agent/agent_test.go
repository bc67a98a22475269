package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/engine"
)

const (
	webMAC = "02:00:00:00:01:01"
	dbMAC  = "02:00:00:00:02:01"
	groups = `
groups:
- {name: web, rules: [{direction: ingress, protocol: tcp, ports: [80]}]}
- {name: db, rules: [{direction: ingress, protocol: tcp, ports: [5432], from: {groups: [web]}}]}
`
	vms = `
vms:
- {name: web1, nics: [{mac: "` + webMAC + `", addresses: [10.0.0.1], groups: [web]}]}
- {name: db1, nics: [{mac: "` + dbMAC + `", addresses: [10.0.0.2], groups: [db]}]}
`
)

// open starts an agent on h, with VM web1 running.
func open(t *testing.T, h *agenttest.Host, change func(*agent.Options)) *agent.Agent {
	t.Helper()
	c, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	o := agent.Options{Config: c, Registry: h.Registry(), Load: h.Load, Time: agenttest.Timing}
	if change != nil {
		change(&o)
	}
	a, err := agent.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if abuse := slices.Concat(h.Backend.Abuse(), h.Other.Abuse()); len(abuse) > 0 {
			t.Error(abuse)
		}
	})
	if !o.Standalone {
		a.Start()
	}
	return a
}

func newHost(t *testing.T) *agenttest.Host {
	t.Helper()
	h := agenttest.New(t)
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]")
	h.Adapter.Put(agenttest.Instance("web1", webMAC, "tap1"))
	return h
}

func apply(t *testing.T, a *agent.Agent, in api.ApplyRequest) api.Change {
	t.Helper()
	c, err := a.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func actions(c api.Change) (out []string) {
	for _, o := range c.Objects {
		out = append(out, fmt.Sprintf("%s %s %s", o.Kind, o.Name, o.Action))
	}
	return out
}

func TestApply(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	c := apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	if diff := cmp.Diff([]string{"group web created", "group db created", "vm web1 created", "vm db1 created"}, actions(c)); diff != "" {
		t.Error(diff)
	}
	states := map[string]engine.State{}
	for _, n := range c.NICs {
		states[n.VM] = n.State
	}
	if diff := cmp.Diff(map[string]engine.State{"web1": engine.Enforced, "db1": engine.Pending}, states); diff != "" {
		t.Error(diff)
	}
	if n := len(h.Backend.Ruleset().NICs); n != 1 {
		t.Errorf("%d NICs are enforced, want web1's", n)
	}
	again := apply(t, a, api.ApplyRequest{Manifest: groups + strings.Replace(vms, "10.0.0.2", "10.0.0.3", 1)})
	if diff := cmp.Diff([]string{"group web unchanged", "group db unchanged", "vm web1 unchanged", "vm db1 updated"}, actions(again)); diff != "" {
		t.Error(diff)
	}
}

// TestApplyElsewhere: a manifest may refer to groups of another, not to none.
func TestApplyElsewhere(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	if _, err := a.Apply(t.Context(), api.ApplyRequest{Manifest: vms}); err == nil ||
		err.Error() != "vms[0].nics[0].groups[0]: web: there is no such group\nvms[1].nics[0].groups[0]: db: there is no such group" {
		t.Errorf("got %v", err)
	}
	apply(t, a, api.ApplyRequest{Manifest: groups})
	apply(t, a, api.ApplyRequest{Manifest: vms})
}

func TestPrune(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	only := "groups: [{name: web}]\nvms: [{name: web1, nics: [{mac: \"" + webMAC + "\", groups: [web]}]}]"
	c := apply(t, a, api.ApplyRequest{Manifest: only, Prune: true})
	if diff := cmp.Diff([]string{"group web updated", "vm web1 updated", "vm db1 deleted", "group db deleted"}, actions(c)); diff != "" {
		t.Error(diff)
	}
	o, err := a.Objects(t.Context(), api.ObjectsRequest{})
	if err != nil || len(o.Manifest.Groups) != 1 || len(o.Manifest.VMs) != 1 {
		t.Errorf("left: %+v, %v", o, err)
	}
}

func TestDelete(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + strings.Replace(vms, "name: db1", "name: db1, key: 0001", 1)})
	_, err := a.Delete(t.Context(), api.DeleteRequest{Groups: []string{"web"}})
	if want := "group web is in use by group db, vm web1; take it out there first: conflict"; err == nil || err.Error() != want || !errors.Is(err, core.ErrConflict) {
		t.Errorf("a group in use: %v", err)
	}
	if c, err := a.Delete(t.Context(), api.DeleteRequest{VMs: []string{"nobody"}, IgnoreMissing: true}); err != nil || len(c.Objects) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := a.Delete(t.Context(), api.DeleteRequest{VMs: []string{"nobody"}}); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := a.Delete(t.Context(), api.DeleteRequest{}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	c, err := a.Delete(t.Context(), api.DeleteRequest{VMs: []string{"db1", "web1"}, Groups: []string{"db", "web"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"vm db1 deleted", "vm web1 deleted", "group db deleted", "group web deleted"}, actions(c)); diff != "" {
		t.Error(diff)
	}
	if rs := h.Backend.Ruleset(); len(rs.NICs)+len(rs.Groups) != 0 {
		t.Errorf("still enforced: %+v", rs)
	}
}

// TestDryRun tells every element and changes nothing.
func TestDryRun(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	before, writes := h.Backend.Fingerprint(), h.Backend.Writes()
	changed := strings.Replace(groups, "ports: [80]", "ports: [80, 443]", 1) + strings.Replace(vms, "10.0.0.1", "10.0.0.9", 1)
	c := apply(t, a, api.ApplyRequest{Manifest: changed, DryRun: true})
	if diff := cmp.Diff([]string{"group web updated", "group db unchanged", "vm web1 updated", "vm db1 unchanged"}, actions(c)); diff != "" {
		t.Error(diff)
	}
	var lines []string
	for _, e := range c.Elements {
		lines = append(lines, fmt.Sprintf("%v %s: %s", e.Add, e.What, e.Value))
	}
	want := []string{
		"true group web: ingress ipv4 tcp 443 from 0.0.0.0/0",
		"true group web: ingress ipv6 tcp 443 from ::/0",
		"false nic web1/" + webMAC + ": user VM; on br-tenant; at tap1; addresses 10.0.0.1; groups web",
		"true nic web1/" + webMAC + ": user VM; on br-tenant; at tap1; addresses 10.0.0.9; groups web",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if h.Backend.Fingerprint() != before || h.Backend.Writes() != writes {
		t.Error("something was written")
	}
	o, err := a.Objects(t.Context(), api.ObjectsRequest{})
	if err != nil || o.Manifest.VMs[1].NICs[0].Addresses[0].String() != "10.0.0.1" {
		t.Errorf("desired state changed: %+v, %v", o, err)
	}
}

// TestRefused: what the backend cannot do is refused before anything changes.
func TestRefused(t *testing.T) {
	h := newHost(t)
	h.Backend.Features = slices.DeleteFunc(slices.Clone(coretest.AllFeatures), func(f core.Feature) bool { return f == core.FeaturePorts })
	a := open(t, h, nil)
	if err := a.Settle(t.Context()); err != nil { // web1 is known from here on
		t.Fatal(err)
	}
	if _, err := a.Apply(t.Context(), api.ApplyRequest{Manifest: groups + vms}); !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), "ports") {
		t.Errorf("got %v", err)
	}
	if o, _ := a.Objects(t.Context(), api.ObjectsRequest{}); len(o.Manifest.Groups) != 0 {
		t.Errorf("stored: %+v", o)
	}
}

func TestLooks(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	h.Adapter.Put(agenttest.Instance("db1", dbMAC, "tap2"))
	waitFor(t, func() bool { return len(h.Backend.Ruleset().NICs) == 2 })
	if err := a.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}

	nics, err := a.NICs(t.Context(), api.ObjectsRequest{})
	if err != nil || len(nics) != 2 || nics[0].VM != "db1" || nics[0].State != engine.Enforced || nics[0].Addresses[0].String() != "10.0.0.2" || !nics[0].AntiSpoofing {
		t.Errorf("nics %+v, %v", nics, err)
	}
	sets, err := a.Sets(t.Context(), api.ObjectsRequest{})
	if err != nil || len(sets) != 1 || sets[0].Group != "web" || len(sets[0].Members) != 1 {
		t.Errorf("sets %+v, %v", sets, err)
	}
	rules, err := a.Rules(t.Context(), api.ObjectsRequest{})
	if err != nil || len(rules) != 4 || rules[0].Group != "db" || rules[0].Match != "5432" || rules[0].Peer != "group web" {
		t.Errorf("rules %+v, %v", rules, err)
	}
	st, err := a.Status(t.Context(), api.Empty{})
	if err != nil || st.Host != "host-1" || st.Groups != 2 || st.VMs != 2 || !st.Points[0].InSync || st.Hypervisor != "fake" {
		t.Errorf("status %+v, %v", st, err)
	}
	e, err := a.Explain(t.Context(), api.ExplainRequest{From: "web1", To: "db1", Protocol: "tcp", DstPort: 5432})
	if err != nil || !e.Allowed || e.Reason != "rule" {
		t.Errorf("explain %+v, %v", e, err)
	}
	v, err := a.Verify(t.Context(), api.Empty{})
	if err != nil || len(v) != 1 || v[0].Wanted != v[0].Enforced || len(v[0].Differences) != 0 {
		t.Errorf("verify %+v, %v", v, err)
	}
	key := core.NICKey{VM: "web1", MAC: core.MAC{2, 0, 0, 0, 1, 1}}
	h.Backend.SetCounters(core.Counter{Device: "tap9", Direction: core.Egress, Reason: core.ReasonClosedPort, Packets: 1, Bytes: 60},
		core.Counter{NIC: key, Direction: core.Ingress, Reason: core.ReasonRule, Packets: 2, Bytes: 120})
	counters, err := a.Counters(t.Context(), api.Empty{})
	if err != nil || len(counters) != 2 || counters[0].Device != "tap9" || counters[1].VM != "web1" {
		t.Errorf("counters %+v, %v", counters, err)
	}
	checks, err := a.Doctor(t.Context(), api.Empty{})
	if err != nil || len(checks) != 4 || slices.ContainsFunc(checks, func(c api.Check) bool { return c.Status != "ok" }) {
		t.Errorf("doctor %+v, %v", checks, err)
	}
}

func TestDoctorFinds(t *testing.T) {
	h := newHost(t)
	h.Write(t, "enforce: false")
	h.Checks = []core.Check{{Name: "br-netfilter", Status: core.StatusError, Summary: "off", Evidence: "0", Fix: "modprobe br_netfilter"}}
	a := open(t, h, func(o *agent.Options) { o.Standalone = true })
	checks, err := a.Doctor(t.Context(), api.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range checks {
		got[c.Name] = c.Status
		if c.Status != "ok" && c.Fix == "" {
			t.Errorf("%s has no fix", c.Name)
		}
	}
	if diff := cmp.Diff(map[string]string{"bridges": "error", "enforce": "warning", "br-netfilter": "error"}, got); diff != "" {
		t.Error(diff)
	}
	if h.Backend.Count(coretest.Sync) != 0 {
		t.Error("doctor has written something")
	}
}

func TestReload(t *testing.T) {
	h := newHost(t)
	level := new(slog.LevelVar)
	a := open(t, h, func(o *agent.Options) { o.Level = level })
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})

	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridgse: [br-tenant]")
	if _, err := a.Reload(t.Context(), api.Empty{}); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "did you mean bridges?") {
		t.Errorf("got %v", err)
	}
	if h.Backend.Ruleset().Options.AllowDNS {
		t.Error("an invalid config changed something")
	}

	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]", "always_allow: [dns]", "log: {level: debug}")
	c, err := a.Reload(t.Context(), api.Empty{})
	if err != nil || len(c.Restart) != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if !h.Backend.Ruleset().Options.AllowDNS || level.Level() != slog.LevelDebug {
		t.Error("the new config does not count")
	}

	h.Write(t, "hypervisor: {adapter: none}", "bridges: [br-tenant]", "always_allow: [dns]", "log: {format: json}", "backend: {settings: {colour: red}}")
	text, err := os.ReadFile(h.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Config(), []byte(strings.Replace(string(text), "  backend: {driver: fake}\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = a.Reload(t.Context(), api.Empty{}); err == nil {
		t.Error("nftables is not there, and was taken")
	}
	h.Write(t, "hypervisor: {adapter: none}", "bridges: [br-tenant]", "always_allow: [dns]", "log: {format: json}")
	c, err = a.Reload(t.Context(), api.Empty{})
	if err != nil || !slices.Equal(c.Restart, []string{"log.format", "hypervisor"}) {
		t.Errorf("restart %v, %v", c.Restart, err)
	}
}

// TestReloadDriver: another driver takes over, and the former is taken down.
func TestReloadDriver(t *testing.T) {
	h := newHost(t)
	a := open(t, h, nil)
	apply(t, a, api.ApplyRequest{Manifest: groups + vms})
	want := h.Backend.Fingerprint()
	use := func(driver string) {
		text, err := os.ReadFile(h.Config())
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{"fake", "other"} {
			text = []byte(strings.Replace(string(text), "{driver: "+old+"}", "{driver: "+driver+"}", 1))
		}
		if err := os.WriteFile(h.Config(), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	use("other")
	h.Other.Fail(coretest.Sync, errors.New("the kernel is in a bad mood"))
	if _, err := a.Reload(t.Context(), api.Empty{}); err == nil || !strings.Contains(err.Error(), "the backend that runs stays") {
		t.Errorf("got %v", err)
	}
	if c, _ := a.Config(t.Context(), api.Empty{}); c.Values["backend"].(map[string]any)["driver"] != "fake" || h.Backend.Fingerprint() != want {
		t.Errorf("the former config does not run: %+v", c.Values)
	}
	h.Other.Fail(coretest.Sync, nil)
	if _, err := a.Reload(t.Context(), api.Empty{}); err != nil {
		t.Fatal(err)
	}
	if h.Other.Fingerprint() != want || h.Backend.Count(coretest.Teardown) != 1 {
		t.Errorf("other enforces %s, want %s; teardowns %d", h.Other.Fingerprint().Short(), want.Short(), h.Backend.Count(coretest.Teardown))
	}
	apply(t, a, api.ApplyRequest{Manifest: "groups: [{name: more}]"})
}

// TestDriverChangedWhileStopped: what the former driver left is taken down,
// after the new one is in force.
func TestDriverChangedWhileStopped(t *testing.T) {
	h := newHost(t)
	for _, standalone := range []bool{false, true} {
		t.Run(fmt.Sprintf("standalone %v", standalone), func(t *testing.T) {
			driver := func(name string) {
				text, err := os.ReadFile(h.Config())
				if err != nil {
					t.Fatal(err)
				}
				for _, old := range []string{"fake", "other"} {
					text = []byte(strings.Replace(string(text), "{driver: "+old+"}", "{driver: "+name+"}", 1))
				}
				if err := os.WriteFile(h.Config(), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			former, next := h.Backend, h.Other
			driver("fake")
			t.Run("former", func(t *testing.T) {
				a := open(t, h, func(o *agent.Options) { o.Standalone = true })
				if _, err := a.Status(t.Context(), api.Empty{}); err != nil { // has settled, and is remembered
					t.Fatal(err)
				}
				apply(t, a, api.ApplyRequest{Manifest: groups + vms})
			})
			want := former.Fingerprint()
			teardowns := former.Count(coretest.Teardown)
			former.OnWrite(func(_, to core.Ruleset) {
				if len(to.NICs) == 0 && next.Fingerprint() != want {
					t.Error("the former was taken down before the new one was in force")
				}
			})
			driver("other")
			t.Run("next", func(t *testing.T) {
				a := open(t, h, func(o *agent.Options) { o.Standalone = standalone })
				if _, err := a.Status(t.Context(), api.Empty{}); err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool { return former.Count(coretest.Teardown) == teardowns+1 })
				if next.Fingerprint() != want {
					t.Error("the new one is not in force")
				}
			})
		})
	}
}

// TestStandalone: refused while an agent runs; afterwards the host is brought
// to what is wanted before a command answers.
func TestStandalone(t *testing.T) {
	h := newHost(t)
	c, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("beside an agent", func(t *testing.T) {
		a := open(t, h, nil)
		apply(t, a, api.ApplyRequest{Manifest: groups + vms})
		_, err := agent.Open(t.Context(), agent.Options{Config: c, Registry: h.Registry(), Standalone: true})
		if !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("got %v", err)
		}
	})
	want := h.Backend.Fingerprint()
	h.Backend.Wipe()
	t.Run("verify finds what was wiped, and only looks", func(t *testing.T) {
		a := open(t, h, func(o *agent.Options) { o.Standalone = true })
		v, err := a.Verify(t.Context(), api.Empty{})
		if err != nil || v[0].Enforced == v[0].Wanted || v[0].Wanted != want {
			t.Errorf("%+v, %v", v, err)
		}
		if h.Backend.Fingerprint() == want {
			t.Error("it was mended")
		}
	})
	t.Run("status mends it", func(t *testing.T) {
		a := open(t, h, func(o *agent.Options) { o.Standalone = true })
		if st, err := a.Status(t.Context(), api.Empty{}); err != nil || !st.Points[0].InSync || h.Backend.Fingerprint() != want {
			t.Errorf("%+v, %v", st, err)
		}
	})
	writes := h.Backend.Writes()
	t.Run("in sync", func(t *testing.T) {
		a := open(t, h, func(o *agent.Options) { o.Standalone = true })
		st, err := a.Status(t.Context(), api.Empty{})
		if err != nil || !st.Points[0].InSync || st.Version.Mode != "standalone" {
			t.Errorf("%+v, %v", st, err)
		}
		if h.Backend.Writes() != writes {
			t.Error("a host in sync was written to")
		}
		if _, err := a.Reload(t.Context(), api.Empty{}); !errors.Is(err, core.ErrUnsupported) {
			t.Errorf("reload: %v", err)
		}
	})
	t.Run("apply", func(t *testing.T) {
		a := open(t, h, func(o *agent.Options) { o.Standalone = true })
		got := apply(t, a, api.ApplyRequest{Manifest: strings.Replace(groups, "80", "81", 1)})
		if got.Objects[0].Action != api.Updated || h.Backend.Fingerprint() == want {
			t.Errorf("%+v", got)
		}
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("did not happen in time")
		case <-time.After(time.Millisecond):
		}
	}
}
