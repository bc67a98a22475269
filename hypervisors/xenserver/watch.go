package xenserver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// classes that events are wanted of.
var classes = []string{"vm", "vif", "network", "host"}

// Watch implements core.HypervisorAdapter. It does not fail while XAPI is down:
// the first Resync comes when it is up.
//
// XAPI's events carry whole records, so the site is kept up from them, and what
// a VM comes to is compared with what was said of it last. Many events about a
// VM are one change, or none.
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
			if !errors.Is(err, errRestarted) {
				a.log.Log(ctx, level, "XAPI is out of sight; what is enforced stays, changes wait", "retry_in", pause, "error", err)
				level = slog.LevelDebug // said once
			}
			sleep(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, 50*a.o.Backoff)
		}
	}()
	return out, nil
}

var errRestarted = errors.New("XAPI has restarted, or the session had ended")

// watcher is Watch for as long as XAPI's events are without a gap.
type watcher struct {
	*Adapter
	out    chan<- core.VMEvent
	synced bool

	site  *Site
	view  View
	known map[xapi.Ref]core.Instance // what the consumer knows, or will List
}

func (w *watcher) run(ctx context.Context) error {
	w.site, w.known = NewSite(), map[xapi.Ref]core.Instance{}
	first, _, err := w.o.XAPI.Events(ctx, classes, "", w.o.Wait)
	if err != nil {
		return err
	}
	for _, e := range first.Events {
		if _, _, err := w.site.take(e); err != nil {
			return err
		}
	}
	if w.view, err = w.Adapter.view(w.site); err != nil {
		return err
	}
	for ref := range w.site.VMs {
		if in, _, ok := w.site.Instance(ref, w.view); ok {
			w.known[ref] = in
		}
	}
	// Whoever Lists after the Resync sees what came before this token.
	if !w.send(ctx, core.VMEvent{Kind: core.VMResync}) {
		return ctx.Err()
	}
	w.synced = true
	w.log.Info("XAPI is in sight")
	for token := first.Token; ; {
		b, restarted, err := w.o.XAPI.Events(ctx, classes, token, w.o.Wait)
		if err != nil {
			return err
		}
		if restarted {
			return errRestarted
		}
		if err := w.take(ctx, b.Events); err != nil {
			return err
		}
		token = b.Token
	}
}

// take says what became of the VMs that a batch is about.
func (w *watcher) take(ctx context.Context, events []xapi.Event) error {
	touched, anyVM := map[xapi.Ref]bool{}, false
	for _, e := range events {
		vms, all, err := w.site.take(e)
		if err != nil {
			return err
		}
		anyVM = anyVM || all
		for _, ref := range vms {
			touched[ref] = true
		}
	}
	if anyVM {
		for ref := range w.site.VMs {
			touched[ref] = true
		}
	}
	// Stopped first: a name that is free may be another VM's in the same batch.
	for ref := range touched {
		in, wasHere := w.known[ref]
		if _, _, here := w.site.Instance(ref, w.view); here || !wasHere {
			continue
		}
		delete(w.known, ref)
		gone := core.Instance{VM: core.VM{Key: in.VM.Key, Name: in.VM.Name}}
		if !w.send(ctx, core.VMEvent{Kind: core.VMStopped, Instance: gone}) {
			return ctx.Err()
		}
	}
	for ref := range touched {
		in, problems, here := w.site.Instance(ref, w.view)
		if !here {
			continue
		}
		e := core.VMEvent{Kind: core.VMStarted, Instance: in}
		if before, wasHere := w.known[ref]; wasHere {
			if equal(before, in) {
				continue
			}
			e.Kind = core.VMChanged
		}
		w.report(problems)
		w.known[ref] = in
		if !w.send(ctx, e) {
			return ctx.Err()
		}
	}
	return nil
}

func (w *watcher) send(ctx context.Context, e core.VMEvent) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
