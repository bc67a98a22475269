package plugintest

import (
	"context"
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
// calling thread, and stops it after the test. Its warnings go to the test's
// log. It may be called from any goroutine of the test.
func Start(ctx context.Context, t testing.TB, program string) (*plugin.Plugin, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	// t.TempDir has the test's name in it, and may be too long for a socket.
	run, err := os.MkdirTemp("", "plugin")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	p, err := plugin.New(plugin.Config{
		Name: filepath.Base(program), Path: program, SHA256: []string{hex.EncodeToString(sum[:])}, RunDir: run,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(p.Stop)
	return p, p.Start(ctx)
}
