package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// command runs ringwall on a host in memory.
func command(t *testing.T, h *agenttest.Host, args ...string) result {
	t.Helper()
	return commandWith(t, h, nil, args...)
}

func commandWith(t *testing.T, h *agenttest.Host, change func(*environment), args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	env := environment{
		args: args, environ: []string{"RINGWALL_CONFIG=" + h.Config()}, stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
		registry: h.Registry(), hostname: "host-1", timing: agenttest.Timing, connect: connect,
	}
	if change != nil {
		change(&env)
	}
	code := run(t.Context(), env)
	return result{code, out.String(), errs.String()}
}

// startAgent runs an agent behind h's socket.
func startAgent(t *testing.T, h *agenttest.Host) {
	t.Helper()
	c, err := h.Load()
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.Open(t.Context(), agent.Options{Config: c, Registry: h.Registry(), Load: h.Load, Time: agenttest.Timing})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := api.NewServer(t.Context(), api.ServerConfig{Path: c.Socket.Path, Service: a})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	go srv.Serve()
	t.Cleanup(func() {
		srv.Shutdown(context.Background())
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := a.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

var (
	spaces      = regexp.MustCompile(`(\S) {3,}`)
	fingerprint = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b`)
	times       = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)|\b\d\d:\d\d:\d\d$`)
)

// session is a golden file in the making: commands and what they print.
type session struct {
	t    *testing.T
	host *agenttest.Host
	text strings.Builder
	// squeeze makes runs of spaces two: the width of DIR is not always the same.
	squeeze bool
}

// run runs a command and notes what it prints. Paths, fingerprints and times
// are masked.
func (s *session) run(args ...string) {
	s.t.Helper()
	r := command(s.t, s.host, args...)
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.ContainsAny(a, " *") {
			shown[i] = "'" + a + "'"
		}
	}
	fmt.Fprintf(&s.text, "$ ringwall %s\n%s", strings.Join(shown, " "), r.stdout)
	if r.stderr != "" {
		s.text.WriteString("[stderr] " + strings.ReplaceAll(strings.TrimSuffix(r.stderr, "\n"), "\n", "\n[stderr] ") + "\n")
	}
	fmt.Fprintf(&s.text, "[exit %d]\n\n", r.code)
}

func (s *session) comment(text string) { s.text.WriteString("# " + text + "\n") }

func (s *session) compare(name string) {
	s.t.Helper()
	got := strings.ReplaceAll(s.text.String(), s.host.Dir, "DIR")
	got = fingerprint.ReplaceAllStringFunc(got, func(f string) string {
		if strings.Trim(f, "0") == "" {
			return "NONE"
		}
		return "FINGERPRINT"
	})
	if s.squeeze {
		got = spaces.ReplaceAllString(got, "$1  ")
	}
	got = times.ReplaceAllString(got, "TIME")
	golden(s.t, name, got)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", path, diff)
	}
}
