package guests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/ringwall/ringwall/core"
)

// Paths inside, all of them libvirt's defaults.
const (
	socketPath  = "/run/libvirt/libvirt-sock"
	controlPath = "/run/guests" // sockets of the guests' control lines
)

// covers are the folders that libvirtd keeps to itself.
var covers = []string{"/run", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"}

// configs make libvirtd run without systemd, dbus, polkit and virtlogd, and
// QEMU without cgroups and security drivers, none of which a test needs.
var configs = map[string]string{
	"/etc/libvirt/libvirtd.conf": `
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "2:stderr"
`,
	"/etc/libvirt/qemu.conf": `
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
`,
}

// LibvirtdOptions of a private libvirtd.
type LibvirtdOptions struct {
	// Namespace is where taps are made; its bridges are what guests plug into.
	// nil: one of its own, without any.
	Namespace Namespace
	// Image is what guests boot.
	Image Image
}

// Libvirtd is a real libvirtd with folders, sockets, processes and network of
// its own. Nothing of the machine's libvirt is touched.
type Libvirtd struct {
	jail  *jail
	image Image

	mu  sync.Mutex
	pid int // 0: stopped
	rpc *libvirt.Libvirt
}

// StartLibvirtd starts one and waits until it serves. Close it.
func StartLibvirtd(ctx context.Context, o LibvirtdOptions) (*Libvirtd, error) {
	for _, dir := range covers {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("%w (apt-get install libvirt-daemon-system): %w", err, core.ErrNotFound)
		}
	}
	j, err := newJail(ctx, o.Namespace, covers)
	if err != nil {
		return nil, err
	}
	d := &Libvirtd{jail: j, image: o.Image}
	if err := errors.Join(d.prepare(), d.Start(ctx)); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Libvirtd) prepare() error {
	for _, dir := range []string{"/etc/libvirt/hooks", controlPath, "/run/libvirt"} {
		if err := os.MkdirAll(d.jail.path(dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range configs {
		if err := os.WriteFile(d.jail.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the daemon again after Stop or Kill. Guests that ran, run on.
func (d *Libvirtd) Start(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pid != 0 {
		return fmt.Errorf("libvirtd runs already: %w", core.ErrConflict)
	}
	pid, err := d.jail.run(ctx, d.jail.path("libvirtd.log"), "libvirtd")
	if err != nil {
		return err
	}
	d.pid = pid
	exited := make(chan int, 1)
	wait, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		if status, err := d.jail.wait(wait, pid); err == nil {
			exited <- status
		}
	}()
	for {
		if d.rpc, err = d.dial(); err == nil {
			return nil
		}
		select {
		case status := <-exited:
			d.pid = 0
			return fmt.Errorf("libvirtd ended with status %d\n%s", status, d.log())
		case <-ctx.Done():
			return fmt.Errorf("libvirtd does not serve: %w: %w\n%s", err, ctx.Err(), d.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *Libvirtd) dial() (*libvirt.Libvirt, error) {
	// A connection that is made too early is refused, not queued.
	l := libvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(d.Socket())))
	if err := l.ConnectToURI(libvirt.QEMUSystem); err != nil {
		return nil, err
	}
	return l, nil
}

// Stop ends the daemon the ordinary way, Kill by surprise. Guests run on.
func (d *Libvirtd) Stop(ctx context.Context) error { return d.end(ctx, syscall.SIGTERM) }

// Kill ends the daemon with SIGKILL.
func (d *Libvirtd) Kill(ctx context.Context) error { return d.end(ctx, syscall.SIGKILL) }

// Freeze stops the daemon's clock (SIGSTOP): its socket takes connections and
// nothing answers. Thaw lets it go on.
func (d *Libvirtd) Freeze(ctx context.Context) error { return d.signal(ctx, syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (d *Libvirtd) Thaw(ctx context.Context) error { return d.signal(ctx, syscall.SIGCONT) }

// Restart is Stop and Start.
func (d *Libvirtd) Restart(ctx context.Context) error {
	if err := d.Stop(ctx); err != nil {
		return err
	}
	return d.Start(ctx)
}

func (d *Libvirtd) signal(ctx context.Context, s syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pid == 0 {
		return fmt.Errorf("libvirtd does not run: %w", core.ErrNotReady)
	}
	return d.jail.signal(ctx, d.pid, s)
}

func (d *Libvirtd) end(ctx context.Context, s syscall.Signal) error {
	if err := d.signal(ctx, s); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.jail.wait(ctx, d.pid); err != nil {
		return err
	}
	d.pid, d.rpc = 0, nil
	return nil
}

// Close destroys every guest and the daemon, and removes their files.
func (d *Libvirtd) Close() error { return d.jail.close() }

// Socket is where the daemon listens, as seen from outside.
func (d *Libvirtd) Socket() string { return d.jail.path(socketPath) }

// URI makes virsh, or an adapter, speak to this daemon.
func (d *Libvirtd) URI() string { return "qemu+unix:///system?socket=" + d.Socket() }

// Dir is where a path that the daemon and its hooks see (below /run,
// /etc/libvirt, /var/lib/libvirt, /var/log/libvirt) is from outside.
func (d *Libvirtd) Dir(inside string) string { return d.jail.path(inside) }

// log is the end of what libvirtd had to say.
func (d *Libvirtd) log() string { return tail(d.jail.path("libvirtd.log")) }

// Conn is a connection to the daemon, for what Guest has no method for. It ends
// when the daemon does.
func (d *Libvirtd) Conn() (*libvirt.Libvirt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rpc == nil {
		return nil, fmt.Errorf("libvirtd does not run: %w", core.ErrNotReady)
	}
	return d.rpc, nil
}

// dialControl reaches a guest's control line.
func (d *Libvirtd) dialControl(ctx context.Context, name string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", d.jail.path(path.Join(controlPath, name+".sock")))
}
