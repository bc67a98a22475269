package plugintest

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/ringwall/ringwall/core/plugin"
)

// Build builds the main package of a plugin, as a release does, and gives the
// path of the program. It is removed after the test.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), path.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	return out
}

// Start starts a program under its pin, in the network namespace of the
// calling thread, and stops it after the test. Its log is the test's.
func Start(t testing.TB, program string) *plugin.Plugin {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	p, err := plugin.New(plugin.Config{
		Name: filepath.Base(program), Path: program, SHA256: []string{hex.EncodeToString(sum[:])},
		RunDir: filepath.Join(t.TempDir(), "run"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}
