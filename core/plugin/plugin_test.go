package plugin_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin"
)

func sum(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestPins(t *testing.T) {
	c, _ := config(t, "good")
	c.AllowUnpinned = false
	right, wrong := sum(t, c.Path), strings.Repeat("ab", 32)
	_, err := plugin.New(c)
	wantError(t, err, core.ErrInvalid, "plugins.good.sha256", "sha256sum "+c.Path, "allow_unpinned")

	c.SHA256 = []string{wrong, strings.ToUpper(right)} // any may match
	p := start(t, c)
	if s := p.State(); !s.Pinned || s.SHA256 != right || s.Phase != plugin.PhaseRunning {
		t.Errorf("state: %+v", s)
	}

	c.SHA256 = []string{wrong}
	p, err = plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	wantError(t, p.Start(t.Context()), core.ErrInvalid, "plugin good", c.Path, right, "not pinned")
	if s := p.State(); s.Pinned || s.SHA256 != right || s.PID != 0 || s.Phase != plugin.PhaseNew {
		t.Errorf("state: %+v", s)
	}
	c.SHA256 = []string{"12"}
	_, err = plugin.New(c)
	wantError(t, err, core.ErrInvalid, "plugins.good.sha256[0]")
}

// A program that is exchanged while it runs is not started again, and is when
// the right one is back.
func TestPinsAreCheckedAtRestart(t *testing.T) {
	c, _ := config(t, "good")
	c.AllowUnpinned, c.SHA256 = false, []string{sum(t, c.Path)}
	p := start(t, c)
	aside := c.Path + ".old"
	if err := os.Rename(c.Path, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Path, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.State().PID, syscall.SIGKILL)
	eventually(t, "refusal", func() bool {
		s := p.State()
		return s.Phase == plugin.PhaseRestarting && strings.Contains(s.LastError, "not pinned")
	})
	if err := os.Rename(aside, c.Path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", running(p, 1))
}

func TestUntrustedPlaces(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"directory": func(t *testing.T, path string) { chmod(t, filepath.Dir(path), 0o777) },
		"sticky directory": func(t *testing.T, path string) {
			chmod(t, filepath.Dir(path), 0o777|os.ModeSticky)
		},
		"file": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			os.Remove(path)
			if err := os.WriteFile(path, b, 0o755); err != nil {
				t.Fatal(err)
			}
			chmod(t, path, 0o775)
		},
		"owner": func(t *testing.T, path string) {
			if err := os.Chown(filepath.Dir(path), 12345, 12345); err != nil {
				t.Fatal(err)
			}
		},
		"link's directory": func(t *testing.T, path string) {
			elsewhere := t.TempDir()
			chmod(t, elsewhere, 0o777)
			to := filepath.Join(elsewhere, filepath.Base(path))
			if err := os.Rename(path, to); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := config(t, "good")
			spoil(t, c.Path)
			p, err := plugin.New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			wantError(t, p.Start(t.Context()), core.ErrInvalid, "plugin good", "others than root")
		})
	}
	c, _ := config(t, "good")
	link := filepath.Join(t.TempDir(), "plugin-good")
	if err := os.Symlink(c.Path, link); err != nil {
		t.Fatal(err)
	}
	c.Path = link
	start(t, c) // a link between safe places is fine

	c.Path = filepath.Join(t.TempDir(), "nothing")
	p, err := plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Start(t.Context()), core.ErrNotFound, "nothing")
	c.Path = "relative"
	_, err = plugin.New(c)
	wantError(t, err, core.ErrInvalid, "plugins.good.path", "absolute")
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// A plugin sees nothing of the host's environment.
func TestEnvironmentIsEmpty(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	c, _ := config(t, "good")
	checks, err := openBackend(t, start(t, c), "", "").Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range strings.Split(checks[0].Summary, "\n") {
		if !strings.Contains(v, "=") {
			continue // a line of the certificate
		}
		switch name, _, _ := strings.Cut(v, "="); name {
		case "PATH", "RINGWALL_PLUGIN", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_CLIENT_CERT", "PLUGIN_UNIX_SOCKET_DIR":
		default:
			if strings.HasPrefix(name, "GO") || strings.Contains(name, "SECRET") || strings.Contains(name, "HOME") {
				t.Errorf("the plugin sees %s", v)
			}
		}
	}
}

func TestServesOneOfTwo(t *testing.T) {
	c, _ := config(t, "backend")
	p := start(t, c)
	_, err := p.Adapter(t.Context())
	wantError(t, err, core.ErrUnsupported, "plugin backend serves no adapter")
	d, err := p.Backend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := d.Info(); i.Name != "fake" || len(i.Settings) != 2 {
		t.Errorf("info: %+v", i)
	}
	s := p.State()
	if s.Backend != "fake" || s.Adapter != "" || s.Version != "1" || s.Protocol != 0 || s.Path != c.Path || s.PID == 0 {
		t.Errorf("state: %+v", s)
	}
}

func TestErrorsCrossIntact(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	d, err := p.Backend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Open(t.Context(), core.Settings{"fault": "invalid", "on": "Open"})
	var f *core.FieldError
	if !errors.As(err, &f) || f.Path != "settings.fault" || err.Error() != "open: settings.fault: invalid: asked for" {
		t.Errorf("got %v", err)
	}
}

func TestLogsAreStructured(t *testing.T) {
	c, l := config(t, "good")
	b := openBackend(t, start(t, c), "slog", "Observe")
	if _, err := b.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"level":"WARN","msg":"bridge is odd","plugin":"good","bridge":"cloudbr0","ports":3`,
		`"level":"DEBUG","msg":"not for everybody","plugin":"good"`,
		`"level":"ERROR","msg":"from hclog","plugin":"good","vm":"i-2-7-VM"`,
		`"level":"INFO","msg":"{\"@level\":\"error\",\"@message\":7}","plugin":"good"`,
	} {
		eventually(t, want, func() bool { return strings.Contains(l.String(), want) })
	}
}

// Close ends what follows a plugin across restarts.
func TestClose(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	a := openAdapter(t, p, "", "")
	events, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-events
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.List(t.Context()); err == nil {
		t.Error("a closed adapter lists")
	}
	syscall.Kill(p.State().PID, syscall.SIGKILL)
	select {
	case _, open := <-events:
		if open {
			t.Error("an event after Close")
		}
	case <-time.After(30 * time.Second):
		t.Error("the channel stays open")
	}
}

func TestStartedByHand(t *testing.T) {
	cmd := exec.Command(install(t, "good"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "serves backend fake 1; it serves adapter fake 2 by protocol 0") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRunDirMustBePrivate(t *testing.T) {
	c, _ := config(t, "good")
	c.RunDir = t.TempDir()
	chmod(t, c.RunDir, 0o777)
	p, err := plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Start(t.Context()), core.ErrInvalid, c.RunDir)
	c.RunDir = "/" + strings.Repeat("x", 90)
	if p, err = plugin.New(c); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Start(t.Context()), core.ErrInvalid, "too long")
}
