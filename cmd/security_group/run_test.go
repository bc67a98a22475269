package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
)

const nicMAC = "1e:00:b4:00:00:05"

// host is a host in memory with an agent, unless there is none.
type host struct {
	*agenttest.Host
	t *testing.T
}

func newHost(t *testing.T, lines ...string) *host {
	t.Helper()
	h := &host{agenttest.New(t), t}
	h.Write(t, append([]string{"hypervisor: {adapter: fake, run: in_process}",
		"cloudstack: {enabled: true, files: " + h.Dir + "/cloud, lock: " + h.Dir + "/lock, log: " + h.Dir + "/log}"}, lines...)...)
	in := agenttest.Instance("i-2-55-VM", nicMAC, "vnet11")
	in.DomainID = "4"
	h.Adapter.Put(in)
	return h
}

func (h *host) serve() {
	h.t.Helper()
	c, err := h.Load()
	if err != nil {
		h.t.Fatal(err)
	}
	a, err := agent.Open(context.Background(), agent.Options{Config: c, Registry: h.Registry(), Load: h.Load, Time: agenttest.Timing, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	srv, err := api.NewServer(context.Background(), api.ServerConfig{Path: h.Socket(), Service: a})
	if err != nil {
		h.t.Fatal(err)
	}
	a.Start()
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	h.t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			h.t.Error(err)
		}
		<-done
		if err := a.Close(); err != nil {
			h.t.Error(err)
		}
	})
}

// call runs the command with short waits.
func (h *host) call(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	var out, errs bytes.Buffer
	code = run(h.t.Context(), environment{name: "security_group.py", args: args, environ: []string{"RINGWALL_CONFIG=" + h.Config()}, stdout: &out, stderr: &errs,
		registry: h.Registry(), hostname: "host-1", timing: agenttest.Timing,
		waits: waits{agent: 300 * time.Millisecond, start: 300 * time.Millisecond, report: 300 * time.Millisecond, lock: 300 * time.Millisecond}})
	return code, out.String(), errs.String()
}

func (h *host) expect(code int, stdout, stderr string, args ...string) {
	h.t.Helper()
	c, out, errs := h.call(args...)
	if c != code || out != stdout || !strings.Contains(errs, stderr) || stderr == "" && errs != "" {
		h.t.Errorf("%q: exit %d, %q, %q; want %d, %q, %q", args, c, out, errs, code, stdout, stderr)
	}
}

var (
	defaults = []string{"default_network_rules", "--vmname", "i-2-55-VM", "--vmid", "55", "--vmip", "10.11.118.128", "--vmmac", nicMAC, "--vif", "vnet11", "--brname", "br-tenant", "--nicsecips", "0;", "--isFirstNic"}
	addRules = []string{"add_network_rules", "--vmname", "i-2-55-VM", "--vmid", "55", "--vmip", "10.11.118.128", "--sig", "0123456789abcdef0123456789abcdef", "--seq", "17",
		"--vmmac", "nonsense", "--vif", "not read", "--brname", "", "--nicsecips", "0;", "--rules", "I:tcp;22;22;0.0.0.0/0,NEXT;"}
)

// TestAnswers is what the agent reads, through the socket and in process.
func TestAnswers(t *testing.T) {
	for _, mode := range []string{"agent", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t, "mode: "+mode)
			if mode == "agent" {
				h.serve()
			}
			h.expect(0, "", "", "can_bridge_firewall", "--privnic", "eth0")
			h.expect(0, "i-2-55-VM,55,,4,_initial_,-1\n", "", "get_rule_logs_for_vms")
			h.expect(1, "", "default_network_rules has to come first", addRules...)
			h.expect(0, "", "", defaults...)
			h.expect(0, "i-2-55-VM,55,10.11.118.128,4,_initial_,-1\n", "", "get_rule_logs_for_vms")
			h.expect(0, "", "", append(defaults, "--check")...)
			h.expect(0, "", "", addRules...)
			h.expect(0, "i-2-55-VM,55,10.11.118.128,4,0123456789abcdef0123456789abcdef,17\n", "", "get_rule_logs_for_vms")
			h.expect(0, "", "", "verify_network_rules", "--vmname", "i-2-55-VM", "--vmip", "10.11.118.128", "--vmmac", nicMAC, "--nicsecips", "0;")
			h.expect(5, "vm i-2-55-VM has no NIC 1e:00:b4:00:00:06\n", "", "verify_network_rules", "--vmname", "i-2-55-VM", "--vmip", "10.11.118.128", "--vmmac", "1e:00:b4:00:00:06")
			h.expect(0, "", "", "network_rules_vmSecondaryIp", "--vmname", "i-2-55-VM", "--vmmac", nicMAC, "--nicsecips", "10.11.118.129", "--action=-A")
			h.expect(0, "", "", "cleanup_rules")
			h.expect(0, "", "", "destroy_network_rules_for_vm", "--vmname", "i-2-55-VM", "--vif", "vnet11")
			h.expect(0, "", "", "destroy_network_rules_for_vm", "--vmname", "i-2-99-VM")
			h.expect(1, "", "never calls it", "post_default_network_rules", "--vmname", "i-2-55-VM", "--dhcpSvr", "10.0.0.1", "--hostIp", "10.0.0.2", "--hostMacAddr", nicMAC)
			log, err := os.ReadFile(filepath.Join(h.Dir, "log"))
			if err != nil || strings.Count(string(log), "\n") < 14 || !strings.Contains(string(log), "FAILED: vm i-2-55-VM") {
				t.Errorf("the log: %v\n%s", err, log)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	h := newHost(t)
	h.expect(2, "", "usage: security_group.py [-h] [--vmname VMNAME]")
	h.expect(2, "", "error: unrecognized arguments: --nope", "can_bridge_firewall", "--nope")
	h.expect(2, "", "error: argument --action: expected one argument", "network_rules_vmSecondaryIp", "--action", "-A")
	h.expect(1, "", "Unknown command: format_disk", "format_disk")
	h.expect(1, "", "--vmip", "default_network_rules", "--vmip", "10.0.0")
	h.expect(1, "", "--seq: missing", "add_network_rules", "--vmname", "i-2-55-VM")
	h.expect(1, "", "routed networks", "default_network_rules", "--directrouted")
}

// TestWithoutAgent: calls fail, and the server tries again; only the question
// that is asked once a start is answered with yes.
func TestWithoutAgent(t *testing.T) {
	h := newHost(t)
	h.expect(1, "", "ringwalld does not answer", defaults...)
	h.expect(1, "", "ringwalld does not answer", "get_rule_logs_for_vms")
	h.expect(0, "", "", "can_bridge_firewall")
	h.Write(t, "mode: nonsense")
	h.expect(1, "", "mode", "can_bridge_firewall")
}

func TestCannotEnforce(t *testing.T) {
	h := newHost(t)
	h.Checks = []core.Check{{Name: "kernel", Status: core.StatusTransient, Summary: "busy"}}
	h.serve()
	h.expect(0, "", "", "can_bridge_firewall")
	h.Checks = []core.Check{{Name: "kernel", Status: core.StatusError, Summary: "too old", Evidence: "4.4", Fix: "upgrade it"}}
	h.expect(1, "", "too old", "can_bridge_firewall")
}

func TestNotEnabled(t *testing.T) {
	h := newHost(t)
	h.Write(t)
	h.serve()
	h.expect(1, "", "set cloudstack.enabled: true", defaults...)
}

// TestLock: with the stock script at work a call fails rather than go on.
func TestLock(t *testing.T) {
	h := newHost(t)
	h.serve()
	f, err := os.Create(filepath.Join(h.Dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h.expect(1, "", "has been held for", defaults...)
	h.expect(0, "i-2-55-VM,55,,4,_initial_,-1\n", "", "get_rule_logs_for_vms")
	if n := len(h.Backend.Ruleset().NICs); n != 0 {
		t.Errorf("%d NICs were programmed", n)
	}
}
