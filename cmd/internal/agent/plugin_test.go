package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
)

// writePlugin chooses adapter fake as a plugin, whose entry in config is given.
func writePlugin(t *testing.T, h *agenttest.Host, entry string) {
	t.Helper()
	h.Write(t, "hypervisor: {adapter: fake, run: plugin}", "bridges: [br-tenant]")
	f, err := os.OpenFile(h.Config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "plugins:\n  fake: %s\n", entry); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPluginProgram: which file is run, and what is said when it cannot be.
func TestPluginProgram(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	pin := strings.Repeat("0", 64)
	for entry, want := range map[string][]string{
		`{sha256: ["` + pin + `"]}`:                                        {"plugin fake", config.PluginDir + "/ringwall-plugin-fake"},
		`{path: ` + dir + `/none, sha256: ["` + pin + `"]}`:                {"plugin fake", dir + "/none"},
		`{path: ` + there + `, sha256: ["` + pin + `"]}`:                   {"plugin fake", there, "not pinned"},
		`{path: ` + filepath.Join(dir, "none") + `, allow_unpinned: true}`: {"plugin fake", dir + "/none"},
	} {
		h := agenttest.New(t)
		writePlugin(t, h, entry)
		c, err := h.Load()
		if err != nil {
			t.Fatal(err)
		}
		a, err := agent.Open(t.Context(), agent.Options{Config: c, Registry: h.Registry()})
		if err == nil {
			a.Close()
			t.Errorf("%s: opened", entry)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %s in it", entry, err, w)
			}
		}
	}
}

// TestPluginRuns: a program under its pin, with its socket beside the agent's.
func TestPluginRuns(t *testing.T) {
	program := plugintest.Build(t, "github.com/ringwall/ringwall/plugins/ringwall-plugin-netns")
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	h := agenttest.New(t)
	dir, err := os.MkdirTemp("", "run") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.Dir = dir
	writePlugin(t, h, fmt.Sprintf("{path: %s, sha256: [%q]}", program, hex.EncodeToString(sum[:])))
	a := open(t, h, nil)
	states, err := a.Plugins(t.Context(), api.Empty{})
	if err != nil || len(states) != 1 || states[0].Phase != plugin.PhaseRunning || !states[0].Pinned {
		t.Fatalf("%+v, %v", states, err)
	}
	sockets, err := filepath.Glob(filepath.Join(filepath.Dir(h.Socket()), "plugins", "*"))
	if err != nil || !slices.ContainsFunc(sockets, func(s string) bool { return strings.Contains(s, "plugin") }) {
		t.Errorf("sockets are not beside the agent's: %v, %v", sockets, err)
	}
}
