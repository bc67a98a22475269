package plugin

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is the network namespace that the first process was started in. A
// process inherits that of the thread which forks; without this a restart,
// which another goroutine does, could bring a backend up in another namespace
// than the one it enforces on.
type namespace struct{ f *os.File }

const threadNamespace = "/proc/thread-self/ns/net"

// callersNamespace is that of the calling thread.
func callersNamespace() (namespace, error) {
	f, err := os.Open(threadNamespace)
	if err != nil {
		return namespace{}, fmt.Errorf("network namespace: %w", err)
	}
	return namespace{f}, nil
}

// enter puts the calling goroutine there for the rest of its life. In the
// namespace that it is in anyway this does nothing and needs no privilege.
func (n namespace) enter() error {
	want, err := n.f.Stat()
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	if is, err := os.Stat(threadNamespace); err == nil && os.SameFile(want, is) {
		return nil
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network namespace: setns: %w", err)
	}
	return nil
}

func (n namespace) close() { n.f.Close() }
