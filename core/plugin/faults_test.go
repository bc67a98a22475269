package plugin_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin"
)

func TestKilledPluginComesBack(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	b := openBackend(t, p, "", "")
	a := openAdapter(t, p, "", "")
	events, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Kind != core.VMResync {
		t.Fatalf("first event: %v", e.Kind)
	}
	if err := b.Sync(t.Context(), core.Ruleset{}); err != nil {
		t.Fatal(err)
	}
	foreign, err := b.(core.EventBackend).Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := p.State().PID
	syscall.Kill(first, syscall.SIGKILL)

	eventually(t, "restart", running(p, 1))
	if e := <-events; e.Kind != core.VMResync {
		t.Errorf("after the restart: %v, want a resync", e.Kind)
	}
	if e := <-foreign; e.Kind != core.EventLost {
		t.Errorf("after the restart: %v, want lost", e.Kind)
	}
	s := p.State()
	if s.PID == first || s.PID == 0 || !strings.Contains(s.LastError, "killed") {
		t.Errorf("state: %+v", s)
	}
	list, err := a.List(t.Context())
	if err != nil || len(list) != 1 || string(list[0].VM.Key) != fmt.Sprint("pid-", s.PID) {
		t.Errorf("listed %v, %v", list, err)
	}
	wantError(t, b.Apply(t.Context(), core.Delta{}), core.ErrConflict, "plugin good was restarted")
	if err := b.Sync(t.Context(), core.Ruleset{}); err != nil {
		t.Error(err)
	}
	f := core.Ruleset{}.Fingerprint()
	if err := b.Apply(t.Context(), core.Delta{From: f, To: f}); err != nil {
		t.Errorf("after a Sync: %v", err)
	}
}

// A call that is under way when the plugin dies says so, and those that come
// while it is away say why.
func TestPluginDiesInACall(t *testing.T) {
	for _, c := range []struct{ fault, says string }{
		{"die", "exit status 3; it last said: vendor core: giving up"},
		{"panic", "panic: index out of all range"},
	} {
		cfg, l := config(t, "good")
		cfg.RestartMin, cfg.RestartMax = time.Hour, time.Hour
		p := start(t, cfg)
		b := openBackend(t, p, c.fault, "Sync")
		wantError(t, b.Sync(t.Context(), core.Ruleset{}), core.ErrNotReady, "plugin good")
		eventually(t, "notice", func() bool { return p.State().Phase == plugin.PhaseRestarting })
		wantError(t, b.Sync(t.Context(), core.Ruleset{}), core.ErrNotReady, "plugin good", c.says)
		if _, err := b.Observe(t.Context()); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(l.String(), c.says) {
			t.Errorf("log: %s", l)
		}
		p.Stop()
		wantError(t, b.Sync(t.Context(), core.Ruleset{}), core.ErrNotReady, "stopped")
	}
}

func TestHungCallIsCutAndPluginRestarted(t *testing.T) {
	c, _ := config(t, "good")
	c.CallTimeout = 500 * time.Millisecond
	p := start(t, c)
	b := openBackend(t, p, "hang", "Observe")
	pid := p.State().PID
	_, err := b.Observe(t.Context())
	wantError(t, err, core.ErrNotReady, "plugin good", "Observe", "500ms")
	eventually(t, "restart", running(p, 1))
	eventually(t, "the hung process's end", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	if _, err := b.Counters(t.Context()); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// A process that stands still is noticed without a call.
func TestStoppedProcessIsNoticed(t *testing.T) {
	c, _ := config(t, "good")
	c.Heartbeat = 300 * time.Millisecond
	p := start(t, c)
	syscall.Kill(p.State().PID, syscall.SIGSTOP)
	eventually(t, "restart", running(p, 1))
	if s := p.State(); !strings.Contains(s.LastError, "does not answer") {
		t.Errorf("state: %+v", s)
	}
}

// Stop ends a plugin that does not end by itself.
func TestStopOfAHungProcess(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	pid := p.State().PID
	syscall.Kill(pid, syscall.SIGSTOP)
	p.Stop()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there", pid)
	}
	if left, _ := filepath.Glob(c.RunDir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartsThatFail(t *testing.T) {
	for _, c := range []struct {
		mode     string
		sentinel error
		words    []string
	}{
		{"protocol7", core.ErrUnsupported, []string{"speaks protocol 1.7", "this release speaks 1.0", "matching releases"}},
		{"core9", core.ErrUnsupported, []string{"speaks protocol 9.0"}},
		{"junk", core.ErrNotReady, []string{"exit status 3", "usage: junk"}},
		{"tcp", core.ErrNotReady, []string{"127.0.0.1:1", "socket in its own directory"}},
		{"mute", core.ErrNotReady, []string{"not ready within 1s"}},
		{"deaf", core.ErrNotReady, []string{"not ready within 1s"}},
	} {
		t.Run(c.mode, func(t *testing.T) {
			cfg, _ := config(t, c.mode)
			if c.mode == "mute" || c.mode == "deaf" {
				cfg.StartTimeout = time.Second
			}
			p, err := plugin.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			wantError(t, p.Start(t.Context()), c.sentinel, append(c.words, "plugin "+c.mode, cfg.Path)...)
			if s := p.State(); s.LastError == "" || s.PID != 0 {
				t.Errorf("state: %+v", s)
			}
			if left, _ := filepath.Glob(cfg.RunDir + "/*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			noProcess(t, cfg.Path)
		})
	}
}

// noProcess checks that nothing runs from a path.
func noProcess(t *testing.T, path string) {
	t.Helper()
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if to, _ := os.Readlink(l); to == path {
			t.Errorf("%s still runs", l)
		}
	}
}

func TestStartIsCancelled(t *testing.T) {
	c, _ := config(t, "mute")
	p, err := plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.Start(ctx); !errors.Is(err, core.ErrNotReady) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	noProcess(t, c.Path)
}

func TestPrintingToStandardOutput(t *testing.T) {
	c, l := config(t, "noisy")
	p := start(t, c)
	b := openBackend(t, p, "print", "Observe")
	for range 3 {
		if _, err := b.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a warning", func() bool {
		return strings.Count(l.String(), "Loading vendor licence") >= 3 && strings.Contains(l.String(), "should use standard error")
	})
	if strings.Contains(l.String(), strings.Repeat("x", 9<<10)) {
		t.Error("an endless line was logged whole")
	}
	if s := p.State(); s.Restarts != 0 {
		t.Errorf("state: %+v", s)
	}
}

func TestTwoHundredMegabytesOfLog(t *testing.T) {
	c, l := config(t, "good")
	p := start(t, c)
	b := openBackend(t, p, "log", "Observe")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	if _, err := b.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("took %s", time.Since(began))
	// The agent works on.
	if _, err := b.Counters(t.Context()); err != nil {
		t.Error(err)
	}
	p.Stop()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	if n := len(l.String()); n > 4<<20 {
		t.Errorf("%d bytes were logged", n)
	}
	if !strings.Contains(l.String(), "lines_left_out") {
		t.Error("nothing says that lines were left out")
	}
}

func TestGarbage(t *testing.T) {
	c, _ := config(t, "garbage")
	p := start(t, c)
	b := openBackend(t, p, "", "")
	a := openAdapter(t, p, "", "")
	calls := map[string]func() error{
		"Observe":   func() error { _, err := b.Observe(t.Context()); return err },
		"Preflight": func() error { _, err := b.Preflight(t.Context()); return err },
		"Counters":  func() error { _, err := b.Counters(t.Context()); return err },
		"Flows":     func() error { _, err := b.(core.FlowBackend).Flows(t.Context()); return err },
		"List":      func() error { _, err := a.List(t.Context()); return err },
	}
	for name, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), "plugin garbage") || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "makes no sense") {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantError(t, b.Teardown(t.Context()), core.ErrUnsupported, "plugin garbage", "Teardown")
	if s := p.State(); s.Phase != plugin.PhaseRunning || s.Restarts != 0 {
		t.Errorf("state: %+v", s)
	}
}

// Other plugins hear nothing of one that fails.
func TestOthersAreUnaffected(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	b := openBackend(t, p, "", "")
	bad, _ := config(t, "backend")
	bad.CallTimeout = 300 * time.Millisecond
	other := start(t, bad)
	hung := openBackend(t, other, "hang", "Observe")
	hung.Observe(t.Context())
	eventually(t, "restart", running(other, 1))
	if _, err := b.Observe(t.Context()); err != nil {
		t.Error(err)
	}
	if s := p.State(); s.Restarts != 0 {
		t.Errorf("state: %+v", s)
	}
}

func TestHostKilled(t *testing.T) {
	run := filepath.Join(t.TempDir(), "r")
	cmd := exec.Command(install(t, "host"))
	cmd.Env = []string{"PLUGIN_PATH=" + install(t, "good"), "RUN_DIR=" + run}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the plugin does not run: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the orphan's end", func() bool { return gone(pid) })
	eventually(t, "the sockets' removal", func() bool { left, _ := filepath.Glob(run + "/*"); return len(left) == 0 })
}

// gone: an orphan's zombie is for whoever adopted it.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// A child of the plugin that holds its standard error neither hides the
// plugin's death nor survives it.
func TestChildrenEndWithThePlugin(t *testing.T) {
	c, _ := config(t, "good")
	p := start(t, c)
	b := openBackend(t, p, "orphan", "Observe")
	_, err := b.Observe(t.Context())
	var child int
	if _, scanErr := fmt.Sscanf(fmt.Sprint(err), "child %d:", &child); scanErr != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.State().PID, syscall.SIGKILL)
	eventually(t, "restart", running(p, 1))
	eventually(t, "the child's end", func() bool { return gone(child) })
}
