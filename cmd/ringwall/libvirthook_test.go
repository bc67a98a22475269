package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

// hookHost is a host in memory whose config chooses kvm, with a folder of hooks.
type hookHost struct {
	*agenttest.Host
	t            *testing.T
	hooks        string
	binary       string
	registration agent.Registry
}

func newHookHost(t *testing.T, lines ...string) *hookHost {
	t.Helper()
	h := &hookHost{Host: agenttest.New(t), t: t}
	h.hooks, h.binary = filepath.Join(h.Dir, "hooks"), filepath.Join(h.Dir, hook.Program)
	if err := os.WriteFile(h.binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.Write(t, append([]string{"bridges: [br-tenant]"}, lines...)...)
	h.registration = h.Registry()
	h.registration.Adapters[kvm.Name] = kvmDriver{}
	return h
}

// kvmDriver is what config asks of the real one.
type kvmDriver struct{ core.AdapterDriver }

func (kvmDriver) Info() core.Info { return kvm.Driver().Info() }
func (kvmDriver) Open(context.Context, core.Settings) (core.HypervisorAdapter, error) {
	panic("the command opens an adapter")
}

func (h *hookHost) run(args ...string) result {
	h.t.Helper()
	args = append(args, "--dir", h.hooks)
	if args[0] == "install" {
		args = append(args, "--binary", h.binary)
	}
	return commandWith(h.t, h.Host, func(e *environment) { e.registry = h.registration }, args...)
}

func (h *hookHost) want(r result, code int, out string) {
	h.t.Helper()
	if r.code != code || !strings.Contains(r.stdout+r.stderr, out) {
		h.t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, code, out, r.stdout, r.stderr)
	}
}

const onKVM = "hypervisor: {adapter: kvm, run: in_process, settings: {cloudstack_names: true, uri: \"qemu+unix:///system?socket=/nonexistent/libvirt\"}}"

func TestInstallLibvirtHook(t *testing.T) {
	h := newHookHost(t, onKVM)
	recent := []string{"install", "libvirt-hook", "--libvirt-version", "9.0.0"}

	h.want(h.run(append(recent, "--dry-run")...), exitOK, "(not done) linked "+h.hooks+"/qemu.d/50-ringwall to "+h.binary)
	if _, err := os.Lstat(h.hooks); !os.IsNotExist(err) {
		t.Fatalf("a dry run made %s (%v)", h.hooks, err)
	}
	h.want(h.run(recent...), exitOK, "restart it once")
	if target, err := os.Readlink(filepath.Join(h.hooks, "qemu.d/50-ringwall")); err != nil || target != h.binary {
		t.Errorf("the hook is %q, %v", target, err)
	}
	c, err := hook.Installer{Dir: h.hooks}.Config()
	if want := (hook.Config{Socket: h.Socket(), OnFailure: hook.Closed, Timeout: hook.DefaultConfig().Timeout, CloudStackNames: true}); err != nil || c != want {
		t.Errorf("config is %+v, %v", c, err)
	}
	h.want(h.run(recent...), exitOK, "nothing to do")

	// What was said once stays, until something else is said.
	h.want(h.run(append(recent, "--on-failure", "refuse", "--timeout", "3s")...), exitOK, "wrote ")
	h.want(h.run(recent...), exitOK, "nothing to do")
	if c, _ := (hook.Installer{Dir: h.hooks}).Config(); c.OnFailure != hook.Refuse || c.Timeout.String() != "3s" {
		t.Errorf("config is %+v", c)
	}

	h.want(h.run("uninstall", "libvirt-hook", "--dry-run"), exitOK, "(not done) removed ")
	if f, err := (hook.Installer{Dir: h.hooks}).Status(); f != hook.DropIn || err != nil {
		t.Errorf("after a dry run it is %v, %v", f, err)
	}
	h.want(h.run("uninstall", "libvirt-hook"), exitOK, "removed ")
	if f, err := (hook.Installer{Dir: h.hooks}).Status(); f != hook.NotInstalled || err != nil {
		t.Errorf("after the removal it is %v, %v", f, err)
	}
	h.want(h.run("uninstall", "libvirt-hook"), exitOK, "nothing to do")
}

// An older libvirt has one hook; somebody else's is kept and put back.
func TestInstallLibvirtHookAroundAnother(t *testing.T) {
	h := newHookHost(t, onKVM)
	theirs := filepath.Join(h.hooks, "qemu")
	if err := os.MkdirAll(h.hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(theirs, []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := h.run("install", "libvirt-hook", "--libvirt-version", "6.4", "-o", "json")
	var report struct {
		Form           string
		Changes        []string
		RestartLibvirt bool `json:"restart_libvirt"`
		DryRun         bool `json:"dry_run"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || report.Form != "wrapper" || len(report.Changes) != 3 || report.RestartLibvirt || report.DryRun {
		t.Errorf("%+v, %v\n%s%s", report, err, r.stdout, r.stderr)
	}
	h.want(h.run("uninstall", "libvirt-hook"), exitOK, "put "+theirs+" back")
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "theirs" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestInstallLibvirtHookRefusals(t *testing.T) {
	h := newHookHost(t, onKVM)
	h.want(h.run("install", "libvirt-hook"), exitFailure, "say its version with --libvirt-version")
	h.want(h.run("install", "libvirt-hook", "--libvirt-version", "nine"), exitInput, "--libvirt-version: \"nine\" is not a version")
	h.want(h.run("install", "libvirt-hook", "--libvirt-version", "9.0", "--on-failure", "explode"), exitInput, "on_failure: explode: use closed or refuse")
	h.binary = filepath.Join(h.Dir, "none", hook.Program)
	h.want(h.run("install", "libvirt-hook", "--libvirt-version", "9.0"), exitFailure, "is not an executable file")
	if _, err := os.Lstat(h.hooks); !os.IsNotExist(err) {
		t.Errorf("a refusal left %s (%v)", h.hooks, err)
	}
	other := newHookHost(t, "hypervisor: {adapter: fake, run: in_process}")
	other.want(other.run("install", "libvirt-hook", "--libvirt-version", "9.0"), exitInput, "hypervisor.adapter is fake on this host")
}
