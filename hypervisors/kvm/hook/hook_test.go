package hook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

const starting = `<domain type='kvm' id='1'><name>web</name><uuid>6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a01</uuid><devices>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/></interface>
<interface type='network'><mac address='52:54:00:00:00:02'/><source network='old'/><target dev='vnet1'/></interface>
</devices></domain>`

// agent is a Programmer that remembers.
type agent struct {
	got     []core.Instance
	outcome hook.Outcome
	err     error
	hang    bool
}

func (a *agent) Program(ctx context.Context, in core.Instance) (hook.Outcome, error) {
	a.got = append(a.got, in)
	if a.hang {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return a.outcome, a.err
}

type result struct {
	status      int
	out, errOut string
	log         string
}

func run(t *testing.T, a *agent, change func(*hook.Hook), stdin string, args ...string) result {
	t.Helper()
	var out, errOut, log bytes.Buffer
	h := hook.Hook{Programmer: a, Config: hook.DefaultConfig(), Log: slog.New(slog.NewTextHandler(&log, nil)),
		Links: kvm.FakeLinks{"vnet1": {Name: "vnet1", Master: "br1", MasterKind: "bridge"}}}
	if change != nil {
		change(&h)
	}
	status := h.Run(t.Context(), args, strings.NewReader(stdin), &out, &errOut)
	return result{status, out.String(), errOut.String(), log.String()}
}

func TestStartProgramsTheDomain(t *testing.T) {
	for _, outcome := range []hook.Outcome{hook.Enforced, hook.NoPolicy} {
		a := &agent{outcome: outcome}
		r := run(t, a, nil, starting, "web", "start", "begin", "-")
		if r.status != 0 || r.out != "" || r.errOut != "" {
			t.Errorf("%v: %+v", outcome, r)
		}
		bound := func(bridge, device string) core.Binding {
			return core.Binding{Bridge: bridge, Devices: []string{device}}
		}
		want := []core.Instance{{DomainID: "1", VM: core.VM{Key: "6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a01", Name: "web", NICs: []core.NIC{
			{MAC: core.MAC{0x52, 0x54, 0, 0, 0, 1}, Binding: bound("br0", "vnet0")},
			{MAC: core.MAC{0x52, 0x54, 0, 0, 0, 2}, Binding: bound("br1", "vnet1")},
		}}}}
		if d := cmp.Diff(want, a.got); d != "" {
			t.Errorf("%v: programmed (-want +got):\n%s", outcome, d)
		}
	}
}

func TestOtherPhasesAreLeftAlone(t *testing.T) {
	for _, args := range []string{"prepare begin -", "started begin -", "stopped end -", "release end -", "migrate begin -", "restore begin -",
		"reconnect begin -", "attach begin -", "start end -"} {
		a := &agent{err: errors.New("not to be asked")}
		r := run(t, a, func(h *hook.Hook) { h.Config.OnFailure = hook.Refuse }, "<not xml", append([]string{"web"}, strings.Fields(args)...)...)
		if r != (result{}) || a.got != nil {
			t.Errorf("%s: %+v, programmed %v", args, r, a.got)
		}
	}
}

func TestFailureClosesOrRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		agent agent
		stdin string
		want  string // in the log
	}{
		{"agent refuses", agent{err: fmt.Errorf("no room: %w", core.ErrUnsupported)}, starting, "no room"},
		{"agent hangs", agent{hang: true}, starting, "no answer from the agent in 20ms"},
		{"broken XML", agent{}, "<domain", "domain XML"},
		{"no XML", agent{}, "", "domain XML"},
	} {
		for onFailure, status := range map[hook.OnFailure]int{hook.Closed: 0, hook.Refuse: 1} {
			a := tc.agent
			r := run(t, &a, func(h *hook.Hook) {
				h.Config.OnFailure, h.Config.Timeout = onFailure, 20*time.Millisecond
			}, tc.stdin, "web", "start", "begin", "-")
			if r.status != status || !strings.Contains(r.log, tc.want) || !strings.Contains(r.log, "domain=web") {
				t.Errorf("%s, %s: %+v; want status %d and %q in the log", tc.name, onFailure, r, status, tc.want)
			}
			// libvirt shows the error output of a hook that fails, to who started the VM.
			if (r.errOut != "") != (status != 0) {
				t.Errorf("%s, %s: error output %q", tc.name, onFailure, r.errOut)
			}
		}
	}
}

func TestDomainWithoutBridgedNICsNeedsNoAgent(t *testing.T) {
	a := &agent{err: errors.New("not to be asked")}
	x := `<domain><name>x</name><uuid>1</uuid><devices><interface type='user'><mac address='52:54:00:00:00:01'/></interface></devices></domain>`
	if r := run(t, a, func(h *hook.Hook) { h.Config.OnFailure = hook.Refuse }, x, "x", "start", "begin", "-"); r.status != 0 || a.got != nil {
		t.Errorf("%+v, programmed %v", r, a.got)
	}
}

func TestTooFewArgumentsAreAnError(t *testing.T) {
	if r := run(t, &agent{}, nil, "", "web", "start"); r.status == 0 || r.errOut == "" {
		t.Errorf("%+v", r)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheOtherHookSeesAndSaysAllItWould(t *testing.T) {
	for _, tc := range []struct {
		name, script, args string
		want               result
		programs           bool
	}{
		{"arguments, input and output", `echo "$@"; sed s/web/gold/; echo note >&2`, "web migrate begin -",
			result{out: "web migrate begin -\n" + strings.ReplaceAll(starting, "web", "gold"), errOut: "note\n"}, false},
		{"start too", `cat`, "web start begin -", result{out: starting}, true},
		{"does not read", `exit 0`, "web start begin -", result{}, true},
		{"status", `echo no >&2; exit 42`, "web start begin -", result{status: 42, errOut: "no\n"}, false},
		{"killed", `kill -9 $$`, "web start begin -", result{status: 1}, false},
		{"leaves a child behind", `sleep 60 & exit 0`, "web start begin -", result{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &agent{outcome: hook.Enforced}
			next := script(t, tc.script)
			r := run(t, a, func(h *hook.Hook) { h.Next = next }, starting, strings.Fields(tc.args)...)
			r.log = ""
			if r != tc.want || (a.got != nil) != tc.programs {
				t.Errorf("%+v, programmed %v; want %+v, %v", r, a.got != nil, tc.want, tc.programs)
			}
		})
	}
}

func TestOtherHookThatCannotRun(t *testing.T) {
	a := &agent{outcome: hook.Enforced}
	gone := filepath.Join(t.TempDir(), "gone")
	if r := run(t, a, func(h *hook.Hook) { h.Next = gone }, starting, "web", "start", "begin", "-"); r.status != 0 || a.got == nil || !strings.Contains(r.log, gone) {
		t.Errorf("a hook that is gone: %+v", r)
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run(t, a, func(h *hook.Hook) { h.Next = broken }, starting, "web", "start", "begin", "-"); r.status == 0 || !strings.Contains(r.errOut, broken) {
		t.Errorf("a hook that may not run, as libvirt would find: %+v", r)
	}
}

func TestReadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hook.json")
	if c, err := hook.ReadConfig(path); err != nil || c != hook.DefaultConfig() {
		t.Errorf("no file: %+v, %v", c, err)
	}
	full := hook.Config{Socket: "/run/x.sock", OnFailure: hook.Refuse, Timeout: 3 * time.Second, CloudStackNames: true}
	for text, want := range map[string]hook.Config{
		`{"socket": "/run/x.sock", "on_failure": "refuse", "timeout": "3s", "cloudstack_names": true}`: full,
		`{}`: hook.DefaultConfig(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if c, err := hook.ReadConfig(path); err != nil || c != want {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	for text, want := range map[string]string{
		``: "EOF", `{"sock": "/x"}`: `"sock"`, `{"socket": "x"}`: "socket: x: not an absolute path", `{"on_failure": "open"}`: "on_failure: open",
		`{"timeout": "soon"}`: "timeout: soon", `{"timeout": "2h"}`: "timeout: 2h0m0s", `{"timeout": "0s"}`: "timeout: 0s",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := hook.ReadConfig(path)
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) || c != hook.DefaultConfig() {
			t.Errorf("%s: %+v, %v; want an ErrInvalid with %q", text, c, err, want)
		}
	}
}
