package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
)

// inventory is what the adapter says runs here. Its goroutine (run) is alone
// with the adapter, so that one that hangs holds up nothing else.
type inventory struct {
	adapter core.HypervisorAdapter
	timing  Timing
	log     *slog.Logger
	changed chan struct{}     // has one element when there is news
	refresh chan chan<- error // asks for a List
	tried   chan struct{}     // closed when the first List has ended
	tryOnce sync.Once
	mu      sync.Mutex
	version uint64 // grows with all news
	vms     map[core.VMKey]core.Instance
	// ready: a List was believed. Until then nothing is enforced that was not
	// before.
	ready bool
	// doubtful: only an empty List was seen yet, which may be a daemon that has
	// just started.
	doubtful bool
	// emptySince: Lists have been unexpectedly empty since then.
	emptySince time.Time
	err        error
	listed     time.Time
	// expected VMs were put by Program, with the number of Lists that had begun
	// by then. No List begun later and no event has spoken of them yet.
	expected map[core.VMKey]uint64
	begun    uint64        // Lists
	confirm  chan struct{} // has one element when a List should come soon
}

func newInventory(a core.HypervisorAdapter, t Timing, log *slog.Logger) *inventory {
	inv := &inventory{adapter: a, timing: t, log: log, vms: map[core.VMKey]core.Instance{},
		changed: make(chan struct{}, 1), refresh: make(chan chan<- error), tried: make(chan struct{}),
		expected: map[core.VMKey]uint64{}, confirm: make(chan struct{}, 1)}
	if a == nil {
		inv.ready = true
		close(inv.tried)
	}
	return inv
}

// stock is a copy of the inventory at one moment.
type stock struct {
	version  uint64
	adapter  bool // there is one
	ready    bool
	doubtful bool
	expected bool // some of vms the adapter has not spoken of yet
	err      error
	vms      map[core.VMKey]core.Instance
}

func (inv *inventory) stock() stock {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return stock{version: inv.version, adapter: inv.adapter != nil, ready: inv.ready, doubtful: inv.doubtful,
		expected: len(inv.expected) > 0, err: inv.err, vms: maps.Clone(inv.vms)}
}

// stale says whether there was news since s.
func (inv *inventory) stale(s stock) bool {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return inv.version != s.version
}

func (inv *inventory) run(ctx context.Context) {
	pause := backoff{min: inv.timing.RetryMin, max: inv.timing.RetryMax}
	for ctx.Err() == nil {
		watching, stop := context.WithCancel(ctx)
		events, err := inv.adapter.Watch(watching)
		if err != nil {
			// What List says is good without events, too.
			_ = inv.list(ctx)
			inv.fail(fmt.Errorf("watching: %w", err))
		} else {
			inv.follow(ctx, events, &pause)
			if ctx.Err() == nil {
				inv.log.Warn("the adapter's events have ended; watching anew")
			}
		}
		stop()
		inv.wait(ctx, pause.next())
	}
}

// wait pauses, but answers requests for a List.
func (inv *inventory) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case done := <-inv.refresh:
			done <- inv.list(ctx)
		}
	}
}

// follow takes events until there are no more.
func (inv *inventory) follow(ctx context.Context, events <-chan core.VMEvent, pause *backoff) {
	relist := time.NewTimer(inv.timing.Relist)
	defer relist.Stop()
	retry := backoff{min: inv.timing.RetryMin, max: inv.timing.RetryMax}
	list := func() error {
		err := inv.list(ctx)
		switch {
		case err != nil:
			relist.Reset(retry.next())
		case inv.inDoubt(): // an answer is wanted soon
			relist.Reset(inv.timing.Confirm)
		default:
			retry.reset()
			relist.Reset(inv.timing.Relist)
		}
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-relist.C:
			_ = list()
		case <-inv.confirm:
			relist.Reset(inv.timing.Confirm)
		case done := <-inv.refresh:
			done <- list()
		case e, ok := <-events:
			if !ok {
				return
			}
			pause.reset()
			if e.Kind == core.VMResync || !inv.take(e) {
				_ = list()
			}
		}
	}
}

// list replaces the inventory by what List says. An error changes nothing, nor
// does an empty answer where there was something, until a second List says the
// same.
func (inv *inventory) list(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, inv.timing.Call)
	defer cancel()
	inv.mu.Lock()
	inv.begun++
	number := inv.begun
	inv.mu.Unlock()
	instances, err := inv.adapter.List(call)
	defer inv.tryOnce.Do(func() { close(inv.tried) })
	if err != nil {
		if ctx.Err() == nil {
			inv.fail(fmt.Errorf("listing VMs: %w", err))
		}
		return err
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	defer inv.notify()
	inv.err, inv.listed = nil, time.Now()
	if unexpected := len(instances) == 0 && (len(inv.vms) > 0 || !inv.ready || inv.doubtful); !unexpected {
		inv.emptySince = time.Time{}
	} else if inv.emptySince.IsZero() {
		inv.emptySince = time.Now()
	}
	if !inv.emptySince.IsZero() && time.Since(inv.emptySince) < inv.timing.Confirm {
		inv.doubtful = inv.doubtful || !inv.ready
		inv.ready = true
		inv.log.Warn("the adapter lists no VM; looking again before anything is removed", "vms", len(inv.vms))
		return nil
	}
	inv.emptySince = time.Time{}
	inv.ready, inv.doubtful = true, false
	former := inv.vms
	inv.vms = make(map[core.VMKey]core.Instance, len(instances))
	for _, in := range instances {
		inv.vms[in.VM.Key] = in
	}
	inv.keepExpected(number, former)
	return nil
}

func (inv *inventory) inDoubt() bool {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	return !inv.emptySince.IsZero() || len(inv.expected) > 0
}

// take believes an event, or says that a List has to tell.
func (inv *inventory) take(e core.VMEvent) bool {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.doubts(e) {
		return false
	}
	defer inv.notify()
	switch e.Kind {
	case core.VMStarted, core.VMChanged:
		inv.claimDevices(e.Instance.VM)
		inv.vms[e.Instance.VM.Key] = e.Instance
	case core.VMStopped:
		key := e.Instance.VM.Key
		if _, ok := inv.vms[key]; !ok && e.Instance.VM.Name != "" {
			for k, in := range inv.vms {
				if key == "" && in.VM.Name == e.Instance.VM.Name {
					key = k
				}
			}
		}
		delete(inv.vms, key)
	}
	return true
}

// claimDevices takes vm's devices from every other VM: kernels give a name that
// is free to the next VM, and the news that the former has stopped may be late
// or lost.
func (inv *inventory) claimDevices(vm core.VM) {
	taken := map[string]string{} // device -> point
	for _, n := range vm.NICs {
		for _, d := range n.Binding.Devices {
			taken[d] = n.Binding.Point
		}
	}
	for key, in := range inv.vms {
		if key == vm.Key {
			continue
		}
		var nics []core.NIC // a copy, once there is a change: events share their slices
		for i, n := range in.VM.NICs {
			left := slices.DeleteFunc(slices.Clone(n.Binding.Devices), func(d string) bool {
				point, ok := taken[d]
				return ok && point == n.Binding.Point
			})
			if len(left) == len(n.Binding.Devices) {
				continue
			}
			if nics == nil {
				nics = slices.Clone(in.VM.NICs)
			}
			nics[i].Binding.Devices = left
			if len(left) == 0 {
				nics[i].Binding = core.Binding{}
			}
		}
		if nics != nil {
			in.VM.NICs = nics
			inv.vms[key] = in
		}
	}
}

func (inv *inventory) fail(err error) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.err == nil || inv.err.Error() != err.Error() {
		inv.log.Warn("the adapter does not answer; what is known of VMs stays", "error", err)
	}
	inv.err = err
	inv.notify()
}

// poke makes news of something that is not the adapter's.
func (inv *inventory) poke() {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.notify()
}

// notify says that there is news; how much does not matter.
func (inv *inventory) notify() {
	inv.version++
	select {
	case inv.changed <- struct{}{}:
	default:
	}
}

// look asks for a List and waits for its end.
func (inv *inventory) look(ctx context.Context) error {
	if inv.adapter == nil {
		return nil
	}
	done := make(chan error, 1)
	select {
	case inv.refresh <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
