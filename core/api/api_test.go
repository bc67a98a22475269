package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/source/manifest"
)

func TestCall(t *testing.T) {
	var got ApplyRequest
	want := Change{Objects: []ObjectChange{{"group", "web", Created}}, Elements: []Element{{Add: true, What: "group web", Value: "x"}}}
	c := dial(t, serve(t, &fake{apply: func(_ context.Context, in ApplyRequest) (Change, error) { got = in; return want, nil }}))
	in := ApplyRequest{Manifest: "groups: [{name: wéb}]\n", Prune: true}
	out, err := c.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if v, err := c.Version(t.Context(), Empty{}); err != nil || v.Version != "1.2.3" {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestErrorsCross: text, sentinels, every field and every object arrive.
func TestErrorsCross(t *testing.T) {
	key := core.NICKey{VM: "a", MAC: core.MAC{2, 0, 0, 0, 0, 1}}
	for _, err := range []error{
		&core.FieldError{Path: "vms[2].nics[0].addresses[1]", Value: "10.0.0.300", Reason: "not an IP address"},
		errors.Join(&core.FieldError{Path: "a", Reason: "missing"}, &core.FieldError{Path: "b", Value: "c", Reason: "wrong"}),
		fmt.Errorf("point host: %w", &core.ObjectError{NICs: []core.NICKey{key}, Groups: []string{"web"}, Err: fmt.Errorf("kernel said no: %w", core.ErrUnsupported)}),
		fmt.Errorf("held: %w", core.ErrConflict), fmt.Errorf("gone: %w", core.ErrNotFound), fmt.Errorf("later: %w", core.ErrNotReady),
		errors.New("plain failure"),
	} {
		c := dial(t, serve(t, &fake{apply: func(context.Context, ApplyRequest) (Change, error) { return Change{}, err }}))
		_, got := c.Apply(t.Context(), ApplyRequest{})
		if got == nil || got.Error() != err.Error() {
			t.Errorf("text: got %v, want %v", got, err)
		}
		for _, s := range sentinels {
			if errors.Is(got, s.err) != errors.Is(err, s.err) {
				t.Errorf("%v: errors.Is(%v) = %v", err, s.err, errors.Is(got, s.err))
			}
		}
		if diff := cmp.Diff(fields(err), fields(got)); diff != "" {
			t.Errorf("%v: fields\n%s", err, diff)
		}
		var before, after *core.ObjectError
		if errors.As(err, &before) != errors.As(got, &after) {
			t.Errorf("%v: object error lost", err)
		}
		if before != nil && (!cmp.Equal(before.NICs, after.NICs) || !cmp.Equal(before.Groups, after.Groups) || before.Error() != after.Error()) {
			t.Errorf("object error: got %+v, want %+v", after, before)
		}
	}
}

func fields(err error) (out []core.FieldError) {
	walk(err, func(e error) {
		if f, ok := e.(*core.FieldError); ok {
			out = append(out, *f)
		}
	})
	return out
}

func TestSocketFile(t *testing.T) {
	path := serve(t, &fake{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", info.Mode())
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the socket: %v, %v", entries, err)
	}
}

// TestSocketConflict: a live agent keeps its socket, a dead one's is taken
// over, another file is left alone.
func TestSocketConflict(t *testing.T) {
	path := serve(t, &fake{})
	if _, err := NewServer(t.Context(), ServerConfig{Path: path, Service: &fake{}}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("beside a live agent: %v", err)
	}
	dial(t, path)

	dead := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	srv, err := NewServer(t.Context(), ServerConfig{Path: dead, Service: &fake{}})
	if err != nil {
		t.Fatalf("a dead agent's socket: %v", err)
	}
	if err := srv.listener.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}

	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(t.Context(), ServerConfig{Path: file, Service: &fake{}}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a file in the way: %v", err)
	}
}

// TestStranger: another user is turned away even when the file's mode lets it
// connect. The test runs itself as nobody.
func TestStranger(t *testing.T) {
	if path := os.Getenv("API_TEST_STRANGER"); path != "" {
		c, err := Dial(t.Context(), ClientConfig{Path: path, Wait: -1})
		if err == nil {
			_, err = c.Version(t.Context(), Empty{})
		}
		fmt.Println("RESULT:", err)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("needs root, to become another user")
	}
	for _, c := range []struct {
		name   string
		access Access
		mode   fs.FileMode // 0 = as made
		want   string
	}{
		{"file mode", Access{}, 0, "permission denied"},
		{"peer credentials", Access{}, 0o666, "does not speak to you"},
		{"owner", Access{Owner: "65534"}, 0, "<nil>"},
		{"group", Access{Group: "65534"}, 0, "<nil>"},
		{"other group", Access{Group: "1"}, 0o666, "does not speak to you"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "ringwall-api")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "s")
			srv, err := NewServer(t.Context(), ServerConfig{Path: path, Service: &fake{}, Access: c.access})
			if err != nil {
				t.Fatal(err)
			}
			go srv.Serve()
			t.Cleanup(func() { srv.Shutdown(context.Background()) })
			if c.mode != 0 {
				if err := os.Chmod(path, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			// The test binary may be where nobody cannot go.
			self := filepath.Join(dir, "test")
			copyFile(t, os.Args[0], self)
			cmd := exec.Command(self, "-test.run=^TestStranger$")
			cmd.Dir = dir
			cmd.Env = []string{"API_TEST_STRANGER=" + path, "PATH=/bin", "TMPDIR=" + dir}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "RESULT:") || !strings.Contains(string(out), c.want) {
				t.Errorf("want %q, got %v: %s", c.want, err, out)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownOwner(t *testing.T) {
	_, err := NewServer(t.Context(), ServerConfig{Path: t.TempDir() + "/s", Access: Access{Owner: "no-such-user"}})
	if want := "socket.owner: no-such-user: no such user"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestWait: a client waits for an agent that comes late, and says so.
func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	told := make(chan time.Duration, 2)
	go func() {
		<-told
		srv, err := NewServer(context.Background(), ServerConfig{Path: path, Service: &fake{}})
		if err == nil {
			go srv.Serve()
		}
	}()
	start := time.Now()
	c, err := Dial(t.Context(), ClientConfig{Path: path, Wait: 20 * time.Second, Waiting: func(_ string, wait time.Duration) { told <- wait }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if waited := time.Since(start); waited < patience {
		t.Errorf("told after %v", waited)
	}
	if _, err := c.Version(t.Context(), Empty{}); err != nil {
		t.Error(err)
	}
}

func TestNoAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	start := time.Now()
	_, err := Dial(t.Context(), ClientConfig{Path: path, Wait: 300 * time.Millisecond})
	if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "--standalone") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, ClientConfig{Path: path}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that ends: %v", err)
	}
}

// post speaks raw HTTP, as a stranger's program might.
func post(t *testing.T, path, url, body string) (int, string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Post("http://x"+url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return resp.StatusCode, b.String()
		}
	}
}

func TestBadRequests(t *testing.T) {
	path := serve(t, &fake{apply: func(context.Context, ApplyRequest) (Change, error) { return Change{}, nil }})
	for name, c := range map[string]struct {
		url, body, want string
		status          int
	}{
		"version":       {"/v2/apply", "{}", "this agent does not know /v2/apply; it speaks version 1", 404},
		"verb":          {"/v1/nonsense", "{}", "does not know /v1/nonsense", 404},
		"unknown field": {"/v1/apply", `{"manifst": ""}`, `unknown field \"manifst\"`, 400},
		"not JSON":      {"/v1/apply", `{`, "unexpected EOF", 400},
		"two values":    {"/v1/apply", `{} {}`, "more than one JSON value", 400},
		"too long":      {"/v1/apply", `{"manifest": "` + strings.Repeat("x", maxBody) + `"}`, "longer than", 400},
		"no body":       {"/v1/version", "", "1.2.3", 200},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := post(t, path, c.url, c.body)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.want)
			}
		})
	}
}

// TestPanic: a verb that panics answers, and the next one is served.
func TestPanic(t *testing.T) {
	c := dial(t, serve(t, &fake{apply: func(context.Context, ApplyRequest) (Change, error) { panic("boom") }}))
	if _, err := c.Apply(t.Context(), ApplyRequest{}); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Version(t.Context(), Empty{}); err != nil {
		t.Error(err)
	}
}

// TestShutdownWaits: a call under way is answered before the server is gone.
func TestShutdownWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	inside, leave := make(chan bool), make(chan bool)
	srv, err := NewServer(t.Context(), ServerConfig{Path: path, Service: &fake{apply: func(context.Context, ApplyRequest) (Change, error) {
		inside <- true
		<-leave
		return Change{}, nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve()
	c := dial(t, path)
	answered := make(chan error, 1)
	go func() { _, err := c.Apply(context.Background(), ApplyRequest{}); answered <- err }()
	<-inside
	down := make(chan error, 1)
	go func() { down <- srv.Shutdown(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-down:
		t.Fatalf("did not wait: %v", err)
	default:
	}
	close(leave)
	if err := <-answered; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// TestHangUp: the context of a call ends when its client goes.
func TestHangUp(t *testing.T) {
	inside, gone := make(chan bool), make(chan bool)
	c := dial(t, serve(t, &fake{apply: func(ctx context.Context, _ ApplyRequest) (Change, error) {
		close(inside)
		<-ctx.Done()
		close(gone)
		return Change{}, ctx.Err()
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-inside; cancel() }()
	if _, err := c.Apply(ctx, ApplyRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the agent goes on with nobody listening")
	}
}

// TestLongManifest: the longest manifest fits into a call.
func TestLongManifest(t *testing.T) {
	n := 0
	c := dial(t, serve(t, &fake{apply: func(_ context.Context, in ApplyRequest) (Change, error) { n = len(in.Manifest); return Change{}, nil }}))
	if _, err := c.Apply(t.Context(), ApplyRequest{Manifest: strings.Repeat("\n", manifest.MaxBytes)}); err != nil || n != manifest.MaxBytes {
		t.Errorf("%d bytes arrived: %v", n, err)
	}
}
