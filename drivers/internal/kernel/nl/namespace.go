package nl

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace holds a network namespace open, so that sockets can be made in it
// later and from any thread.
type Namespace struct {
	f *os.File
}

// OpenNamespace takes an open descriptor of a network namespace, which stays
// the caller's, or -1 for the namespace of the calling thread.
func OpenNamespace(fd int) (*Namespace, error) {
	// Descriptor 0 is what an options struct says when nothing was said.
	if fd <= 0 {
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return nil, fmt.Errorf("open the thread's network namespace: %w", err)
		}
		return &Namespace{f}, nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace descriptor %d: %w", fd, err)
	}
	return &Namespace{os.NewFile(uintptr(dup), "netns")}, nil
}

// Close lets the namespace go. Sockets made in it live on.
func (n *Namespace) Close() error { return n.f.Close() }

// descriptor is what a socket must be opened with: 0 when the calling thread is
// in the namespace already. setns(2) asks for CAP_SYS_ADMIN even then, which a
// confined agent may lack. The caller holds the thread.
func (n *Namespace) descriptor() (int, error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(int(n.f.Fd()), &want); err != nil {
		return 0, fmt.Errorf("network namespace: %w", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err == nil && have.Dev == want.Dev && have.Ino == want.Ino {
		return 0, nil
	}
	return int(n.f.Fd()), nil
}

// Dial opens a socket in the namespace.
func (n *Namespace) Dial(c Config) (*Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := n.descriptor()
	if err != nil {
		return nil, err
	}
	return dial(c, fd)
}
