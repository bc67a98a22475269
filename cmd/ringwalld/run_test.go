package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/coretest"
)

// daemon is a ringwalld that runs on a host in memory.
type daemon struct {
	log    *programs.Log
	reload chan os.Signal
	notify *net.UnixConn
	stop   context.CancelFunc
	code   chan int
}

func start(t *testing.T, h *agenttest.Host) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{log: &programs.Log{}, reload: make(chan os.Signal, 1), notify: conn, stop: cancel, code: make(chan int, 1)}
	go func() {
		d.code <- run(ctx, process{args: []string{"--config", h.Config()}, environ: []string{"NOTIFY_SOCKET=" + path}, stdout: d.log, stderr: d.log,
			reload: d.reload, registry: h.Registry(), timing: agenttest.Timing})
	}()
	t.Cleanup(cancel)
	d.expect(t, "READY=1")
	return d
}

// expect waits for a message to systemd.
func (d *daemon) expect(t *testing.T, want string) {
	t.Helper()
	d.notify.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1024)
	n, err := d.notify.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
		t.Fatalf("systemd was told %q, want %s: %v\n%s", buf[:n], want, err, d.log)
	}
}

func (d *daemon) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-d.code:
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("still runs\n%s", d.log)
		return 0
	}
}

func newHost(t *testing.T) *agenttest.Host {
	h := agenttest.New(t)
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]")
	h.Adapter.Put(agenttest.Instance("web1", "02:00:00:00:01:01", "tap1"))
	return h
}

const manifest = "groups: [{name: web, rules: [{direction: ingress, protocol: tcp, ports: [80]}]}]\nvms: [{name: web1, nics: [{mac: \"02:00:00:00:01:01\", groups: [web]}]}]"

func client(t *testing.T, h *agenttest.Host) *api.Client {
	t.Helper()
	c, err := api.Dial(t.Context(), api.ClientConfig{Path: h.Socket(), Wait: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestLife: it serves, stops without touching what is enforced, and the next
// one adopts that without a write.
func TestLife(t *testing.T) {
	h := newHost(t)
	d := start(t, h)
	c, err := client(t, h).Apply(t.Context(), api.ApplyRequest{Manifest: manifest})
	if err != nil || len(c.NICs) != 1 || c.NICs[0].State.String() != "enforced" {
		t.Fatalf("%+v, %v", c, err)
	}
	enforced := h.Backend.Fingerprint()
	d.stop()
	d.expect(t, "STOPPING=1")
	if code := d.wait(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, d.log)
	}
	if h.Backend.Fingerprint() != enforced || h.Backend.Count(coretest.Teardown) != 0 {
		t.Error("stopping has changed what is enforced")
	}
	if _, err := os.Stat(h.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
	writes := h.Backend.Writes()
	d = start(t, h)
	st := settled(t, client(t, h))
	if st.Points[0].Enforced != enforced || h.Backend.Writes() != writes {
		t.Errorf("adopting wrote %d times; %+v", h.Backend.Writes()-writes, st.Points)
	}
	d.stop()
	d.wait(t)
}

func settled(t *testing.T, c *api.Client) api.Status {
	t.Helper()
	for range 1000 {
		st, err := c.Status(t.Context(), api.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		if st.Points[0].InSync && len(st.NICs) == 1 && st.NICs[0].State.String() == "enforced" {
			return st
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("not in sync in time")
	return api.Status{}
}

// TestReadyWithoutTheHypervisor: its daemon may be waiting for us, or hold a
// lock that a List waits for.
func TestReadyWithoutTheHypervisor(t *testing.T) {
	h := newHost(t)
	release := h.Adapter.HangList()
	defer release()
	d := start(t, h) // waits for READY=1
	st, err := client(t, h).Status(t.Context(), api.Empty{})
	if err != nil || st.Adapter.Ready {
		t.Errorf("%+v, %v", st.Adapter, err)
	}
	d.stop()
	if code := d.wait(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, d.log)
	}
}

// TestHangup: SIGHUP reloads, and an invalid config keeps the old one.
func TestHangup(t *testing.T) {
	h := newHost(t)
	d := start(t, h)
	c := client(t, h)
	settledOptions := func(want bool) {
		t.Helper()
		if got := h.Backend.Ruleset().Options.AllowDNS; got != want {
			t.Errorf("dns allowed: %v, want %v\n%s", got, want, d.log)
		}
	}
	hangup := func() {
		t.Helper()
		d.reload <- syscall.SIGHUP
		d.expect(t, "RELOADING=1\nMONOTONIC_USEC=")
		d.expect(t, "READY=1")
	}
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]", "always_allow: [dns]")
	hangup()
	settledOptions(true)
	h.Write(t, "bridgse: []")
	hangup()
	settledOptions(true)
	if !strings.Contains(d.log.String(), "did you mean bridges?") {
		t.Errorf("the log does not say what is wrong:\n%s", d.log)
	}
	if _, err := c.Apply(t.Context(), api.ApplyRequest{Manifest: manifest}); err != nil {
		t.Errorf("after a bad reload: %v", err)
	}
	d.stop()
	if code := d.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestRefusals(t *testing.T) {
	h := newHost(t)
	try := func(args ...string) (int, string) {
		l := &programs.Log{}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		code := run(ctx, process{args: args, stdout: l, stderr: l, registry: h.Registry(), timing: agenttest.Timing})
		return code, l.String()
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, exitOK, "--log-level"},
		{[]string{"--version"}, exitOK, "ringwalld "},
		{[]string{"--nope"}, exitInput, "unknown flag: --nope"},
		{[]string{"extra"}, exitInput, `got "extra"`},
		{[]string{"--config", h.Dir + "/none"}, exitInput, "file does not exist"},
		{[]string{"--config", h.Config(), "--log-level", "loud"}, exitInput, "--log-level: loud: unknown"},
	} {
		if code, out := try(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	h.Write(t, "bridges: [br-tenant]", "socket: {owner: nobody-at-all}")
	text, err := os.ReadFile(h.Config())
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "  socket: {path: "+h.Socket()+"}\n", "", 1))
	if err := os.WriteFile(h.Config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := try("--config", h.Config(), "--socket", h.Socket()); code != exitInput || !strings.Contains(out, "socket.owner: nobody-at-all: no such user") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	h.Write(t, "mode: standalone")
	if code, out := try("--config", h.Config()); code != exitInput || !strings.Contains(out, "ringwalld is for mode: agent") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// TestTwice: a second agent is told who has the state.
func TestTwice(t *testing.T) {
	h := newHost(t)
	d := start(t, h)
	l := &programs.Log{}
	code := run(t.Context(), process{args: []string{"--config", h.Config()}, stdout: l, stderr: l, registry: h.Registry(), timing: agenttest.Timing, lockWait: 100 * time.Millisecond})
	if code != exitFailure || !strings.Contains(l.String(), "is held by pid") {
		t.Errorf("exit %d:\n%s", code, l)
	}
	d.stop()
	d.wait(t)
}

func TestBootClosed(t *testing.T) {
	h := newHost(t)
	boot := func() string {
		var out programs.Log
		if code := run(t.Context(), process{args: []string{"--config", h.Config(), "--boot-closed"}, stdout: &out, stderr: &out, registry: h.Registry()}); code != exitOK {
			t.Fatalf("exit %d: %s", code, &out)
		}
		return out.String()
	}
	if out := boot(); !strings.Contains(out, "closed=true") {
		t.Errorf("the first boot says %q", out)
	}
	before := h.Backend.Ruleset()
	if len(before.NICs) != 0 || !before.Options.ManagesBridge("br-tenant") {
		t.Errorf("enforced is %+v", before)
	}
	if out := boot(); !strings.Contains(out, "closed=false") {
		t.Errorf("with rules in force it says %q", out)
	}
}
