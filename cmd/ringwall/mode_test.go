package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestStandaloneCommands: without an agent the command does the work; beside
// one it is refused, by name.
func TestStandaloneCommands(t *testing.T) {
	h := webTier(t)
	r := command(t, h, "--standalone", "apply", "-f", examples+"web-tier.yaml")
	if r.code != exitOK || !strings.Contains(r.stdout, "enforced") {
		t.Fatalf("%+v", r)
	}
	if n := len(h.Backend.Ruleset().NICs); n != 4 {
		t.Errorf("%d NICs are enforced, want the 4 that run", n)
	}
	writes := h.Backend.Writes()
	for _, args := range [][]string{{"status"}, {"verify"}, {"get", "groups"}, {"counters"}, {"diff", "-f", examples + "web-tier.yaml"}} {
		if r := command(t, h, append(args, "--standalone")...); r.code != exitOK {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if h.Backend.Writes() != writes {
		t.Error("looking has written something")
	}
	h.Write(t, "mode: standalone", "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]")
	if r := command(t, h, "version"); r.code != exitOK || !strings.Contains(r.stdout, "standalone") {
		t.Errorf("mode: standalone: %+v", r)
	}
	h.Write(t, "hypervisor: {adapter: fake, run: in_process}", "bridges: [br-tenant]")
	startAgent(t, h)
	r = command(t, h, "--standalone", "status")
	if r.code != exitFailure || !strings.Contains(r.stderr, "is held by pid") {
		t.Errorf("beside an agent: %+v", r)
	}
}

// TestVerifyFinds: exit code 3, and the difference on standard output.
func TestVerifyFinds(t *testing.T) {
	h := webTier(t)
	if r := command(t, h, "--standalone", "apply", "-f", examples+"web-tier.yaml"); r.code != exitOK {
		t.Fatal(r)
	}
	h.Backend.Wipe()
	r := command(t, h, "--standalone", "verify")
	if r.code != exitDifference || r.stderr != "" || !strings.Contains(r.stdout, "should be") {
		t.Errorf("%+v", r)
	}
}

// TestNoAgentCommand: the command waits, says so, and ends with a way out.
func TestNoAgentCommand(t *testing.T) {
	h := webTier(t)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var errs strings.Builder
	code := run(ctx, environment{args: []string{"status", "--config", h.Config()}, stdin: strings.NewReader(""), stdout: &strings.Builder{}, stderr: &errs,
		registry: h.Registry(), hostname: "host-1", connect: connect})
	if code != exitFailure || !strings.Contains(errs.String(), "waiting up to 30s for ringwalld at "+h.Socket()) {
		t.Errorf("%d %s", code, errs.String())
	}
}
