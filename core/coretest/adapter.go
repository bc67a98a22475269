package coretest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ringwall/ringwall/core"
)

// FakeAdapter is a HypervisorAdapter whose VMs are in memory.
type FakeAdapter struct {
	Name string // "fake" when empty

	mu       sync.Mutex
	vms      map[core.VMKey]core.Instance
	watches  map[*watch]bool
	listErr  error
	watchErr error
	blind    bool // List shows nothing
	deaf     bool // events are lost
	hang     chan struct{}
	lists    int
	closed   bool
}

// watch is one Watch. Its queue has no end, since a test must not wait for a
// reader.
type watch struct {
	mu    sync.Mutex
	queue []core.VMEvent
	more  chan struct{}
	stop  chan struct{}
}

var _ core.HypervisorAdapter = (*FakeAdapter)(nil)

// Info has the name.
func (a *FakeAdapter) Info() core.Info {
	if a.Name == "" {
		return core.Info{Name: "fake", Version: "1"}
	}
	return core.Info{Name: a.Name, Version: "1"}
}

// Preflight finds nothing wrong.
func (a *FakeAdapter) Preflight(context.Context) ([]core.Check, error) {
	return []core.Check{{Name: "fake", Summary: "nothing to check"}}, nil
}

// List gives the VMs, sorted by key, or what FailList said.
func (a *FakeAdapter) List(ctx context.Context) ([]core.Instance, error) {
	a.mu.Lock()
	a.lists++
	hang := a.hang
	a.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listErr != nil || a.blind {
		return nil, a.listErr
	}
	return slices.SortedFunc(maps.Values(a.vms), func(x, y core.Instance) int {
		return strings.Compare(string(x.VM.Key), string(y.VM.Key))
	}), nil
}

// Watch streams events, a Resync first.
func (a *FakeAdapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watchErr != nil {
		return nil, a.watchErr
	}
	w := &watch{more: make(chan struct{}, 1), stop: make(chan struct{}), queue: []core.VMEvent{{Kind: core.VMResync}}}
	if a.watches == nil {
		a.watches = map[*watch]bool{}
	}
	a.watches[w] = true
	out := make(chan core.VMEvent)
	go func() {
		defer close(out)
		defer a.forget(w)
		w.run(ctx, out)
	}()
	return out, nil
}

func (w *watch) run(ctx context.Context, out chan<- core.VMEvent) {
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, e := range queue {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			case <-w.stop:
				return
			}
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return
		case <-w.stop:
			return
		}
	}
}

func (w *watch) push(e core.VMEvent) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (a *FakeAdapter) forget(w *watch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.watches, w)
}

func (a *FakeAdapter) emit(e core.VMEvent) {
	if a.deaf {
		return
	}
	for w := range a.watches {
		w.push(e)
	}
}

// Close is remembered; see Closed.
func (a *FakeAdapter) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return nil
}

// Put starts a VM, or changes one that runs, and tells those who watch.
func (a *FakeAdapter) Put(in core.Instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kind := core.VMStarted
	if _, runs := a.vms[in.VM.Key]; runs {
		kind = core.VMChanged
	}
	if a.vms == nil {
		a.vms = map[core.VMKey]core.Instance{}
	}
	a.vms[in.VM.Key] = in
	a.emit(core.VMEvent{Kind: kind, Instance: in})
}

// Stop stops a VM and tells those who watch.
func (a *FakeAdapter) Stop(key core.VMKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.vms[key]
	delete(a.vms, key)
	a.emit(core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: core.VM{Key: key, Name: in.VM.Name}}})
}

// FailList makes every List fail until it is given nil.
func (a *FakeAdapter) FailList(err error) { a.set(func() { a.listErr = err }) }

// FailWatch makes every Watch fail until it is given nil.
func (a *FakeAdapter) FailWatch(err error) { a.set(func() { a.watchErr = err }) }

// Blind makes List show nothing, as a daemon does that has just started.
func (a *FakeAdapter) Blind(yes bool) { a.set(func() { a.blind = yes }) }

// Deaf loses events.
func (a *FakeAdapter) Deaf(yes bool) { a.set(func() { a.deaf = yes }) }

// HangList makes List wait until its context ends, or until the function that
// it gives is called.
func (a *FakeAdapter) HangList() (release func()) {
	ch := make(chan struct{})
	a.set(func() { a.hang = ch })
	return func() {
		a.set(func() {
			if a.hang == ch {
				a.hang = nil
				close(ch)
			}
		})
	}
}

// Resync tells those who watch that events may have been lost.
func (a *FakeAdapter) Resync() {
	a.set(func() {
		for w := range a.watches {
			w.push(core.VMEvent{Kind: core.VMResync})
		}
	})
}

// Tell gives an event to those who watch, true or not.
func (a *FakeAdapter) Tell(e core.VMEvent) {
	a.set(func() {
		for w := range a.watches {
			w.push(e)
		}
	})
}

// Disconnect closes every Watch, as a plugin does that died.
func (a *FakeAdapter) Disconnect() {
	a.set(func() {
		for w := range a.watches {
			close(w.stop)
		}
		a.watches = nil
	})
}

// Lists counts the calls of List.
func (a *FakeAdapter) Lists() (n int) {
	a.set(func() { n = a.lists })
	return n
}

// Closed says whether Close was called.
func (a *FakeAdapter) Closed() (yes bool) {
	a.set(func() { yes = a.closed })
	return yes
}

func (a *FakeAdapter) set(fn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fn()
}
