package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core/coretest"
)

// TestBadManifests: each of the corpus is one line that names the field, exit
// code 2, and no change; with an agent and without.
func TestBadManifests(t *testing.T) {
	const corpus = "../../core/source/manifest/testdata/bad/"
	files, _ := filepath.Glob(corpus + "*.yaml")
	if len(files) < 45 {
		t.Fatalf("%d bad manifests", len(files))
	}
	h := webTier(t)
	startAgent(t, h)
	if r := command(t, h, "apply", "-f", examples+"web-tier.yaml"); r.code != exitOK {
		t.Fatal(r)
	}
	before := command(t, h, "get", "all", "-o", "yaml").stdout
	calls := h.Backend.Count(coretest.Apply) + h.Backend.Count(coretest.Sync)
	for _, name := range files {
		want, err := os.ReadFile(strings.TrimSuffix(name, ".yaml") + ".error")
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"apply", "diff"} {
			r := command(t, h, verb, "-f", name)
			if r.code != exitInput || r.stdout != "" || r.stderr != "ringwall: "+string(want) {
				t.Errorf("%s %s: %+v, want %s", verb, filepath.Base(name), r, want)
			}
		}
	}
	if after := command(t, h, "get", "all", "-o", "yaml").stdout; after != before {
		t.Errorf("desired state changed:\n%s", after)
	}
	if n := h.Backend.Count(coretest.Apply) + h.Backend.Count(coretest.Sync); n != calls {
		t.Errorf("the backend was called %d times", n-calls)
	}
}

func TestUsage(t *testing.T) {
	h := agenttest.New(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"aply"}, `"aply" is not a command of ringwall; did you mean apply?`},
		{[]string{"get", "group5"}, `"group5" is not a command of ringwall get`},
		{[]string{"config", "shwo"}, `"shwo" is not a command of ringwall config; did you mean show?`},
		{[]string{"status", "x"}, `ringwall status takes no arguments, but got "x"`},
		{[]string{"status", "--nope"}, "unknown flag: --nope; see ringwall status --help"},
		{[]string{"status", "-o", "xml"}, "-o xml: use table, json, yaml"},
		{[]string{"apply"}, "name a manifest with -f FILE"},
		{[]string{"apply", "-f", "/nonexistent"}, "open /nonexistent: no such file or directory"},
		{[]string{"delete"}, "say what to delete"},
		{[]string{"delete", "vm"}, "say what to delete"},
		{[]string{"delete", "nic", "a"}, `"nic" is neither group nor vm`},
		{[]string{"delete", "vm", "a", "-f", "x"}, "give names or -f, not both"},
		{[]string{"explain", "--from", "a"}, "say who speaks to whom"},
		{[]string{"explain", "--from", "a", "--to", "b", "--src", "x"}, "--src x: not an IP address"},
		{[]string{"explain", "--from", "a", "--to", "b", "--icmp-type", "256"}, "--icmp-type 256: not a number from 0 to 255"},
		{[]string{"explain", "--from", "a", "--to", "b", "--vlan", "4096"}, "--vlan 4096: not a number from 0 to 4095"},
		{[]string{"explain", "--from", "a", "--to", "b", "--dport", "70000"}, "invalid argument"},
		{[]string{"config", "show", "--running", "--host", "x"}, "leave out --host"},
	} {
		r := command(t, h, c.args...)
		if r.code != exitInput || !strings.HasPrefix(r.stderr, "ringwall: ") || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
			t.Errorf("%v: %+v, want %q", c.args, r, c.want)
		}
	}
}

func TestStdin(t *testing.T) {
	h := webTier(t)
	startAgent(t, h)
	r := commandWith(t, h, func(e *environment) { e.stdin = strings.NewReader("groups: [{name: piped}]") }, "apply", "-f", "-")
	if r.code != exitOK || !strings.Contains(r.stdout, "piped") {
		t.Errorf("%+v", r)
	}
}

// TestHelp: every command teaches: what it does, and an example that works.
func TestHelp(t *testing.T) {
	root := (&app{}).root()
	root.InitDefaultCompletionCmd()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		name := c.CommandPath()
		if c.Short == "" {
			t.Errorf("%s says nothing", name)
		}
		leaf := !c.HasSubCommands()
		if leaf && !strings.HasPrefix(name, "ringwall completion") && !strings.HasPrefix(name, "ringwall get ") && c.Name() != "help" {
			if c.Example == "" || !strings.Contains(c.Example, name) {
				t.Errorf("%s has no example of itself", name)
			}
		}
		for line := range strings.SplitSeq(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 100 {
				t.Errorf("%s: a line of %d: %s", name, len(line), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

func TestHelpText(t *testing.T) {
	h := agenttest.New(t)
	s := &session{t: t, host: h}
	s.run("--help")
	for _, c := range root(t) {
		s.run(c, "--help")
	}
	s.compare("help")
}

func root(t *testing.T) (names []string) {
	t.Helper()
	for _, c := range (&app{}).root().Commands() {
		names = append(names, c.Name())
	}
	return names
}

func TestCompletion(t *testing.T) {
	h := agenttest.New(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := command(t, h, "completion", shell); r.code != exitOK || !strings.Contains(r.stdout, "ringwall") {
			t.Errorf("%s: %d %s", shell, r.code, r.stderr)
		}
	}
	if r := command(t, h, "__complete", "explain", "--frame", "arp"); !strings.Contains(r.stdout, "arp-request") {
		t.Errorf("%+v", r)
	}
}
