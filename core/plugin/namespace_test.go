package plugin_test

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core/plugin"
)

// A plugin lives in the network namespace where it was started, also after a
// restart.
func TestNetworkNamespaceIsKept(t *testing.T) {
	c, _ := config(t, "good")
	p, err := plugin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	type place struct {
		ns  string
		err error
	}
	there := make(chan place)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			there <- place{err: err}
			return
		}
		ns, err := os.Readlink("/proc/thread-self/ns/net")
		if err == nil {
			err = p.Start(t.Context())
		}
		there <- place{ns, err}
	}()
	want := <-there
	if want.err != nil {
		t.Fatal(want.err)
	}
	check := func() {
		t.Helper()
		if is, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.State().PID)); err != nil || is != want.ns {
			t.Errorf("the plugin is in %s, want %s (%v)", is, want.ns, err)
		}
	}
	check()
	syscall.Kill(p.State().PID, syscall.SIGKILL)
	eventually(t, "restart", running(p, 1))
	check()
}
