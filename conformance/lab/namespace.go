package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that lives as long as it is held open: no
// file, no process. It ends with Close or with this process, however that ends.
type Namespace struct {
	name string

	life sync.RWMutex // held to use fd: its number means another file once closed
	fd   netns.NsHandle

	mu  sync.Mutex
	nl  *netlink.Handle // made on first use; kept, because opening one costs a thread
	out int             // see sendSocket; -1 until then
	pin *pin            // set when visible in /run/netns
}

// newNamespace makes an empty namespace with its loopback up. setup runs inside
// it, before anything else is there.
func newNamespace(name string, setup func() error) (*Namespace, error) {
	ns := &Namespace{name: name, fd: -1, out: -1}
	err := onOwnThread(func() error {
		fd, err := netns.New()
		if err != nil {
			return fmt.Errorf("make a network namespace (this needs root, or CAP_SYS_ADMIN): %w", err)
		}
		ns.fd = fd
		if err := setup(); err != nil {
			return err
		}
		return interfaceUp("lo")
	})
	if err != nil {
		ns.close()
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	return ns, nil
}

// Name is the name given by the caller, for messages; it need not be a file.
func (n *Namespace) Name() string { return n.name }

// Path names the namespace for other programs, as long as this process holds it
// open: setns(2), nsenter --net= and netlink's IFLA_NET_NS_FD take it.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.fd))
}

// Do runs f on a thread of its own inside the namespace. Sockets that f opens
// stay in the namespace and may be used anywhere afterwards. Goroutines that f
// starts are not inside.
func (n *Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

func (n *Namespace) enter() error {
	n.life.RLock()
	defer n.life.RUnlock()
	if n.fd < 0 {
		return fmt.Errorf("namespace %s: %w", n.name, net.ErrClosed)
	}
	if err := netns.Set(n.fd); err != nil {
		return fmt.Errorf("enter namespace %s: %w", n.name, err)
	}
	return nil
}

// onOwnThread runs f on an OS thread that is thrown away afterwards, since a
// thread that changed namespace must not be handed back to the scheduler.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot die; it would stay in the namespace for
			// ever and /proc/self/ns/net would name the wrong one. Hold it
			// while another goroutine, hence another thread, does the work.
			err := onOwnThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Links is a netlink handle inside the namespace. It belongs to the namespace.
func (n *Namespace) Links() (*netlink.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nl == nil {
		err := n.Do(func() (err error) {
			n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("netlink in namespace %s: %w", n.name, err)
		}
	}
	return n.nl, nil
}

// SetSysctl writes net.* settings; keys use dots (net.ipv4.ip_forward), or
// slashes where an interface name has a dot.
func (n *Namespace) SetSysctl(settings map[string]string) error {
	return n.Do(func() error { return writeSysctls(settings) })
}

// Sysctl reads one setting.
func (n *Namespace) Sysctl(key string) (value string, err error) {
	err = n.Do(func() error {
		b, err := os.ReadFile(sysctlPath(key))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// Listen opens a TCP listener inside the namespace.
func (n *Namespace) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket inside the namespace.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = (&net.ListenConfig{}).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Dial connects from inside the namespace. The address must be numeric: a
// resolver would run outside.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (n *Namespace) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nl != nil {
		n.nl.Close()
		n.nl = nil
	}
	if n.out >= 0 {
		unix.Close(n.out)
		n.out = -1
	}
	var err error
	if n.pin != nil {
		err = n.pin.remove()
		n.pin = nil
	}
	n.life.Lock()
	defer n.life.Unlock()
	if n.fd >= 0 {
		n.fd.Close()
		n.fd = -1
	}
	return err
}

// writeSysctls writes for the namespace of the calling thread: /proc/sys/net
// follows whoever opens it.
func writeSysctls(settings map[string]string) error {
	for key, value := range settings {
		if err := writeSysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

func writeSysctl(key, value string) error {
	fd, err := unix.Open(sysctlPath(key), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

func sysctlPath(key string) string {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return filepath.Join("/proc/sys", key)
}
