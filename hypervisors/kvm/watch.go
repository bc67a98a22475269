package kvm

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Watch implements core.HypervisorAdapter. It does not fail while libvirt is
// down: the first Resync comes when it is up.
//
// An event of libvirt is only a hint to look at the domain again, so a late, a
// doubled or a swallowed detail does no harm, and any number of events about a
// domain that nobody has taken yet are one.
func (a *Adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	out := make(chan core.VMEvent)
	go func() {
		defer close(out)
		pause, level := a.o.Backoff, slog.LevelWarn
		for ctx.Err() == nil {
			w := watcher{Adapter: a, out: out}
			err := w.run(ctx)
			if ctx.Err() != nil {
				return
			}
			if w.synced {
				pause, level = a.o.Backoff, slog.LevelWarn
			}
			a.log.Log(ctx, level, "libvirt is out of sight; what is enforced stays, changes wait", "retry_in", pause, "error", err)
			level = slog.LevelDebug // said once
			wait(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, 50*a.o.Backoff)
		}
	}()
	return out, nil
}

// watcher is Watch for as long as one connection lasts.
type watcher struct {
	*Adapter
	out    chan<- core.VMEvent
	synced bool

	conn    Conn
	running map[string]bool // UUIDs that the consumer knows of, or will List
	queue   []string        // UUIDs to look at, oldest first
	queued  map[string]DomainRef
}

func (w *watcher) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.conn, err = w.o.Libvirt.Connect(ctx); err != nil {
		return err
	}
	defer w.conn.Close()
	events, err := w.conn.Events(ctx)
	if err != nil {
		return err
	}
	// Events between registering and go-libvirt's listening are lost. Whoever
	// Lists after the Resync sees what they said.
	refs, err := w.conn.Domains(ctx)
	if err != nil {
		return err
	}
	w.running, w.queued = map[string]bool{}, map[string]DomainRef{}
	for _, r := range refs {
		w.running[r.UUID] = true
	}
	return w.serve(ctx, events)
}

var errLost = errors.New("the connection to libvirt ended")

func (w *watcher) serve(ctx context.Context, events <-chan DomainRef) error {
	alive := time.NewTicker(w.o.Keepalive)
	defer alive.Stop()
	next := core.VMEvent{Kind: core.VMResync}
	for {
		if next.Kind == 0 && len(w.queue) > 0 {
			var err error
			if next, err = w.look(ctx); err != nil {
				return err
			}
			continue
		}
		out := w.out
		if next.Kind == 0 {
			out = nil // nothing to say
		}
		select {
		case out <- next:
			if next.Kind == core.VMResync {
				w.synced = true
				w.log.Info("libvirt is in sight")
			}
			next = core.VMEvent{}
		case ref, ok := <-events:
			if !ok {
				return errLost
			}
			w.enqueue(ref)
		case <-alive.C:
			if _, err := w.conn.Version(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) enqueue(ref DomainRef) {
	if _, ok := w.queued[ref.UUID]; !ok {
		w.queue = append(w.queue, ref.UUID)
	}
	w.queued[ref.UUID] = ref
}

// look makes an event of the oldest hint; none when there is nothing to say.
func (w *watcher) look(ctx context.Context) (core.VMEvent, error) {
	ref := w.queued[w.queue[0]]
	w.queue = w.queue[1:]
	delete(w.queued, ref.UUID)
	d, err := w.read(ctx, w.conn, ref)
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return core.VMEvent{}, err
	}
	before, now := w.running[ref.UUID], err == nil && d.Active
	switch {
	case now:
		w.running[ref.UUID] = true
		w.report(d)
		if before {
			return core.VMEvent{Kind: core.VMChanged, Instance: d.Instance()}, nil
		}
		return core.VMEvent{Kind: core.VMStarted, Instance: d.Instance()}, nil
	case before:
		delete(w.running, ref.UUID)
		return core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: core.VM{Key: core.VMKey(ref.UUID), Name: ref.Name}}}, nil
	}
	return core.VMEvent{}, nil // defined, undefined, or started and stopped meanwhile
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
