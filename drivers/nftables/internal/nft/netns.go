package nft

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that sockets are opened in, from whichever
// thread.
type namespace struct {
	fd    int
	inode uint64
}

const threadNetNS = "/proc/thread-self/ns/net"

func openNamespace(fd int) (*namespace, error) {
	var err error
	if fd == 0 {
		fd, err = unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	} else {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return &namespace{fd: fd, inode: st.Ino}, nil
}

// socket opens a netlink socket in the namespace. It enters the namespace only
// from a thread that is elsewhere: entering needs CAP_SYS_ADMIN, and an agent
// that stays at home does without.
func (n *namespace) socket(groups ...int) (*sock, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if err := unix.Stat(threadNetNS, &st); err == nil && st.Ino == n.inode {
		return openSocket(0, groups...)
	}
	return openSocket(n.fd, groups...)
}

func (n *namespace) Close() error {
	if n.fd < 0 {
		return nil
	}
	fd := n.fd
	n.fd = -1
	return unix.Close(fd)
}
