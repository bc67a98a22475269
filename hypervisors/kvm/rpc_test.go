package kvm_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

// listen serves a socket; what serves a connection is up to serve.
func listen(t *testing.T, serve func(net.Conn)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return path
}

func TestDialerGivesUpOnWhatIsNoLibvirt(t *testing.T) {
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for name, path := range map[string]string{
		"nothing":  filepath.Join(t.TempDir(), "none"),
		"hangs up": listen(t, func(c net.Conn) { c.Close() }),
		"silent":   silent,
		"babbles":  listen(t, func(c net.Conn) { c.Write([]byte("220 hello, this is another protocol\r\n")); io.Copy(io.Discard, c) }),
	} {
		start := time.Now()
		c, err := kvm.Dialer{Sockets: []string{path}, Timeout: 300 * time.Millisecond}.Connect(t.Context())
		if !errors.Is(err, core.ErrNotReady) {
			t.Errorf("%s: %v, %v; want an ErrNotReady", name, c, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: gave up after %v", name, d)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := kvm.Version(9_012_003).String(); got != "9.12.3" {
		t.Error(got)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]kvm.Version{"9.0.0": 9_000_000, "6.4": 6_004_000, "10.12.3": 10_012_003} {
		if v, err := kvm.ParseVersion(text); v != want || err != nil {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
	for _, text := range []string{"", "9", "9.x", "9.0.0.1", "9.-1", "1.1000"} {
		if v, err := kvm.ParseVersion(text); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
}
