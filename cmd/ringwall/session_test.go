package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

const examples = "../../docs/examples/"

// webTier is the host of docs/examples/web-tier.yaml: web1, web2, db1 and
// mallory run, web3 and db2 do not.
func webTier(t *testing.T) *agenttest.Host {
	t.Helper()
	h := agenttest.New(t)
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]")
	for _, vm := range [][3]string{{"web1", "02:00:00:00:01:01", "vnet0"}, {"web2", "02:00:00:00:01:02", "vnet1"},
		{"db1", "02:00:00:00:02:01", "vnet2"}, {"mallory", "02:00:00:00:09:01", "vnet3"}} {
		h.Adapter.Put(agenttest.Instance(vm[0], vm[1], vm[2]))
	}
	return h
}

func file(t *testing.T, h *agenttest.Host, name, text string) string {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSession is what an operator sees on a first day.
func TestSession(t *testing.T) {
	h := webTier(t)
	startAgent(t, h)
	s := &session{t: t, host: h}
	s.comment("before anything is applied")
	s.run("status")
	s.run("diff", "-f", examples+"web-tier.yaml")
	s.run("apply", "-f", examples+"web-tier.yaml")
	s.run("apply", "-f", examples+"web-tier.yaml")
	s.run("diff", "-f", examples+"web-tier.yaml")
	s.run("status")
	for _, kind := range []string{"groups", "vms", "nics", "sets", "rules"} {
		s.run("get", kind)
	}
	s.run("get", "nics", "web1", "vnet2")
	s.run("get", "group", "db", "-o", "yaml")
	s.run("get", "vm", "nobody")
	s.comment("why")
	s.run("explain", "--from", "web1", "--to", "db1", "--proto", "tcp", "--dport", "5432")
	s.run("explain", "--from", "mallory", "--to", "db1", "--proto", "tcp", "--dport", "5432")
	s.run("explain", "--from", "mallory", "--to", "web1", "--src", "10.20.0.11", "--proto", "tcp", "--dport", "80")
	s.run("explain", "--from", "mallory", "--to", "uplink", "--frame", "router-advertisement")
	s.run("explain", "--from", "nobody", "--to", "web1")
	s.comment("a change")
	text, err := os.ReadFile(examples + "web-tier.yaml")
	if err != nil {
		t.Fatal(err)
	}
	changed := file(t, h, "changed.yaml", strings.Replace(string(text), "ports: [80, 443]", "ports: [443, 8443]", 1))
	s.run("diff", "-f", changed)
	s.run("apply", "-f", changed)
	s.run("delete", "group", "web")
	s.run("delete", "vm", "mallory")
	s.run("delete", "-f", changed)
	s.run("delete", "-f", changed, "--ignore-missing")
	s.comment("all is gone")
	s.run("get", "groups")
	s.run("status")
	s.compare("session")
}

// TestTrouble is what an operator sees when things go wrong.
func TestTrouble(t *testing.T) {
	h := webTier(t)
	h.Checks = []core.Check{
		{Name: "kernel", Summary: "5.10 has all that is needed"},
		{Name: "br-netfilter", Status: core.StatusError, Summary: "bridged packets do not meet conntrack", Evidence: "/sys/class/net/br-tenant/bridge/nf_call_iptables:\n0", Fix: "modprobe br_netfilter"},
		{Name: "mark", Status: core.StatusWarning, Summary: "another table uses our bits of the mark", Evidence: "table ip foo"},
	}
	key := core.NICKey{VM: "web2", MAC: core.MAC{2, 0, 0, 0, 1, 2}}
	startAgent(t, h)
	s := &session{t: t, host: h}
	s.run("doctor")
	s.comment("the kernel refuses one NIC: the others go on")
	h.Backend.RefuseNIC(key, errors.New("the kernel says: no such device"))
	s.run("apply", "-f", examples+"web-tier.yaml")
	h.Backend.RefuseNIC(key, nil)
	waitInSync(t, h)
	s.comment("somebody else has edited the rules, and they cannot be mended")
	h.Backend.Fail(coretest.Sync, errors.New("the kernel says: no space left on device"))
	h.Backend.Tamper(core.Drift{Object: "chain bridge ringwall/ingress", Difference: "rule 3 is missing", NIC: key}, func(*core.Ruleset) {})
	s.run("verify")
	h.Backend.Fail(coretest.Sync, nil)
	waitInSync(t, h)
	s.run("verify")
	s.run("counters")
	h.Backend.SetCounters(core.Counter{NIC: key, Direction: core.Ingress, Reason: core.ReasonRule, Packets: 12, Bytes: 1200},
		core.Counter{NIC: key, Direction: core.Egress, Reason: core.ReasonIPSpoof, Packets: 3, Bytes: 180},
		core.Counter{Device: "vnet9", Direction: core.Egress, Reason: core.ReasonClosedPort, Packets: 1, Bytes: 60})
	s.run("counters")
	s.run("plugin", "list")
	s.compare("trouble")
}

func waitInSync(t *testing.T, h *agenttest.Host) {
	t.Helper()
	for range 500 {
		if r := command(t, h, "status", "-o", "json"); strings.Contains(r.stdout, `"in_sync": true`) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("not in sync in time")
}

// TestForms: the other output forms.
func TestForms(t *testing.T) {
	h := webTier(t)
	startAgent(t, h)
	s := &session{t: t, host: h}
	if r := command(t, h, "apply", "-f", examples+"web-tier.yaml"); r.code != exitOK {
		t.Fatal(r)
	}
	s.run("get", "nics", "db1", "-o", "json")
	s.run("get", "nics", "db1", "-o", "yaml")
	s.run("get", "sets", "-o", "yaml")
	s.run("get", "rules", "web", "-o", "json")
	s.run("get", "nics", "nobody", "-o", "json")
	s.run("get", "all", "-o", "yaml")
	s.run("explain", "--from", "web1", "--to", "db1", "--proto", "tcp", "--dport", "5432", "-o", "yaml")
	s.run("verify", "-o", "json")
	s.run("plugin", "list", "-o", "json")
	s.run("version")
	s.run("version", "--client", "-o", "yaml")
	s.compare("forms")
}

// TestRoundTrip: what get prints, apply takes, and nothing changes.
func TestRoundTrip(t *testing.T) {
	h := webTier(t)
	startAgent(t, h)
	for _, form := range []string{"yaml", "json"} {
		if r := command(t, h, "apply", "-f", examples+"web-tier.yaml"); r.code != exitOK {
			t.Fatal(r)
		}
		r := command(t, h, "get", "all", "-o", form)
		path := file(t, h, "all."+form, r.stdout)
		if r := command(t, h, "diff", "--prune", "-f", path); r.code != exitOK {
			t.Errorf("%s: %+v", form, r)
		}
	}
}

// TestConfigCommands needs no agent.
func TestConfigCommands(t *testing.T) {
	h := agenttest.New(t)
	h.Write(t, "bridges: [br-tenant, \"brvx-*\"]", "log: {level: debug}")
	s := &session{t: t, host: h, squeeze: true}
	s.run("config", "show")
	s.run("config", "show", "--origin")
	s.run("config", "show", "-o", "json")
	s.run("config", "check")
	h.Write(t, "bridgse: []")
	s.run("config", "check")
	s.run("config", "show")
	s.run("config", "show", "--config", h.Dir+"/none.yaml")
	fleet := file(t, h, "fleet.yaml", `
clusters:
  east: {backend: {driver: fake}, hypervisor: {adapter: fake, run: in_process}, bridges: [br0]}
  west: {backend: {driver: other, settings: {colour: green}}, bridges: [br0]}
  north: {backend: {driver: fake}, hypervisor: {adapter: acme}, bridges: [br0]}
hosts:
  "east-*": {cluster: east, enforce: false}
plugins:
  acme: {path: DIR/plugin, sha256: ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}
`)
	text, err := os.ReadFile(fleet)
	if err != nil {
		t.Fatal(err)
	}
	file(t, h, "fleet.yaml", strings.ReplaceAll(string(text), "DIR", h.Dir))
	file(t, h, "plugin", "")
	s.run("config", "check", "--config", fleet)
	s.run("config", "show", "--config", fleet, "--host", "east-1", "--origin")
	s.run("config", "show", "--config", fleet, "--host", "north-1")
	s.compare("config")
}

func TestReload(t *testing.T) {
	h := webTier(t)
	startAgent(t, h)
	s := &session{t: t, host: h}
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]", "always_allow: [dns]")
	s.run("config", "reload")
	s.run("config", "show", "--running")
	h.Write(t, "hypervisor: {adapter: none}", "bridges: [br-tenant]")
	s.run("config", "reload")
	h.Write(t, "bridgse: []")
	s.comment("the config is broken, and the agent goes on")
	s.run("config", "reload", "--socket", h.Socket())
	s.run("config", "reload")
	s.compare("reload")
}
