package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/mdlayher/netlink"
	"github.com/ringwall/ringwall/core"
	"golang.org/x/sys/unix"
)

const (
	// settling is how soon an unfinished namespace is looked at again:
	// ip-netns(8) makes the file first and mounts the namespace on it after,
	// which nothing reports.
	settling    = 5 * time.Millisecond
	maxSettling = time.Minute // a file left over, most likely
	retry       = time.Second // after an error that may last
	// rest is how much longer than a scan the pause after it is. A VM that
	// flaps its link keeps the adapter no busier than that.
	rest = 4
)

// Watch scans again whenever anything was reported, and tells the difference.
// Reports may therefore be lost or doubled without harm, so after the first
// Resync there are no more.
func (a *adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	own, err := dup(a.own)
	if err != nil {
		return nil, err
	}
	w := &watcher{
		adapter: adapter{settings: a.settings, own: own},
		out:     make(chan core.VMEvent), wake: make(chan struct{}, 1),
	}
	if w.files, err = fsnotify.NewWatcher(); err != nil {
		own.Close()
		return nil, fmt.Errorf("watch %s: %w", a.settings.directory, err)
	}
	// All that can report is listening before the first scan.
	if err = w.listenFiles(); err == nil {
		if w.links, err = w.dialLinks(); err == nil {
			w.known, err = w.scan(ctx)
		}
	}
	if err != nil {
		w.close()
		return nil, err
	}
	go w.run(ctx)
	return w.out, nil
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the bridges' namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

type watcher struct {
	adapter // of its own, so that it outlives the one it came from
	files   *fsnotify.Watcher
	links   *netlink.Conn
	known   *scan
	wake    chan struct{} // something was reported
	out     chan core.VMEvent
}

func (w *watcher) close() {
	w.files.Close()
	if w.links != nil {
		w.links.Close()
	}
	w.own.Close()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // is awake already
	}
}

// listenFiles watches the directory, and its parent for when it is made.
func (w *watcher) listenFiles() error {
	dir := w.settings.directory
	if err := w.files.Add(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(dir), err)
	}
	if err := w.files.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	return nil
}

// dialLinks opens a socket that hears of links here and in every namespace that
// a link leads to from here (NETLINK_LISTEN_ALL_NSID, 4.2).
func (w *watcher) dialLinks() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: int(w.own.Fd()), Groups: 1 << (unix.RTNLGRP_LINK - 1)})
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	if err := c.SetOption(netlink.ListenAllNSID, true); err != nil {
		c.Close()
		return nil, fmt.Errorf("watch links of other namespaces: %w", err)
	}
	return c, nil
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	files, links := make(chan struct{}), make(chan struct{})
	go func() { defer close(files); w.hearFiles() }()
	go func() { defer close(links); w.hearLinks(ctx) }()
	defer func() {
		w.close()
		<-files
		<-links
	}()
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()

	if !w.send(ctx, core.VMEvent{Kind: core.VMResync}) {
		return
	}
	wait := settling
	for {
		var later <-chan time.Time
		if len(w.known.empty) > 0 {
			later = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			wait = settling
		case <-later:
			wait = min(2*wait, maxSettling)
		}
		started := time.Now()
		now, err := w.scan(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// Nothing is concluded from a scan that failed; look again.
			w.signal()
			pause(ctx, retry)
		case !w.tell(ctx, now):
			return
		}
		pause(ctx, rest*time.Since(started))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *watcher) send(ctx context.Context, e core.VMEvent) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// tell reports what is other than known, first what stopped.
func (w *watcher) tell(ctx context.Context, now *scan) bool {
	before := w.known
	w.known = now
	present := make(map[string]*namespace, len(now.vms))
	for _, vm := range now.vms {
		present[vm.name] = vm
	}
	was := make(map[string]*namespace, len(before.vms))
	for _, vm := range before.vms {
		was[vm.name] = vm
		if is := present[vm.name]; is == nil || is.inode != vm.inode {
			gone := core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: core.VM{Key: core.VMKey(vm.name), Name: vm.name}}}
			if !w.send(ctx, gone) {
				return false
			}
			delete(was, vm.name)
		}
	}
	for _, vm := range now.vms {
		e := core.VMEvent{Kind: core.VMStarted, Instance: vm.instance()}
		if old := was[vm.name]; old != nil {
			if e.Kind = core.VMChanged; vm.same(old) {
				continue
			}
		}
		if !w.send(ctx, e) {
			return false
		}
	}
	return true
}

func (w *watcher) hearFiles() {
	for {
		select {
		case e, ok := <-w.files.Events:
			if !ok {
				return
			}
			if e.Name == w.settings.directory && e.Has(fsnotify.Create) {
				// Vanished again: a report of that follows.
				_ = w.files.Add(e.Name)
			}
			if e.Name == w.settings.directory || filepath.Dir(e.Name) == w.settings.directory {
				w.signal()
			}
		case _, ok := <-w.files.Errors: // the queue ran over
			if !ok {
				return
			}
			w.signal()
		}
	}
}

func (w *watcher) hearLinks(ctx context.Context) {
	for ctx.Err() == nil {
		// Also after an error: what was lost may have been anything.
		_, err := w.links.Receive()
		w.signal()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			pause(ctx, retry)
		}
	}
}

// interrupt ends a wait for links, and one that is about to begin.
func (w *watcher) interrupt() { _ = w.links.SetReadDeadline(time.Unix(1, 0)) }
