package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// Engine reconciles one host, or whatever its adapter and backends reach. Make
// it with New, then Run it; everything else may be called from any goroutine
// while Run runs.
type Engine struct {
	opts    Options
	log     *slog.Logger
	inv     *inventory
	points  map[string]*point
	queue   chan *request
	stopped chan struct{} // closed when Run ends

	mu      sync.Mutex
	options core.Options // before Derive
	view    *view
	// The writer's own.
	seq  uint64
	seen map[core.VMKey]bool // desired keys of VMs that were here; see Options.Gone
}

// New checks o and makes an Engine that does nothing yet.
func New(o Options) (*Engine, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Timing = o.Timing.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{opts: o, log: o.Logger, options: o.Policy, points: map[string]*point{},
		queue: make(chan *request, maxBatch), stopped: make(chan struct{})}
	e.inv = newInventory(o.Adapter, o.Timing, o.Logger)
	for name, b := range o.Backends {
		e.points[name] = newPoint(name, b, o.State, o.Timing, o.Logger)
	}
	e.view = build(e.input(o.State.Snapshot(), o.Policy, e.inv.stock()), 0)
	return e, nil
}

// Run reconciles until ctx ends. What is enforced then stays. It must be called
// once.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.stopped)
	var all sync.WaitGroup
	for _, p := range e.points {
		all.Go(func() { p.run(ctx) })
	}
	if e.opts.Adapter != nil {
		all.Go(func() { e.inv.run(ctx) })
	}
	all.Go(func() { e.write(ctx) })
	all.Wait()
	return ctx.Err()
}

// input gathers what a view is made from now.
func (e *Engine) input(s *state.Snapshot, options core.Options, stock stock) input {
	if e.opts.Derive != nil {
		options = e.opts.Derive(options, s)
	}
	backends := map[string]core.Info{}
	for name, p := range e.points {
		_, backends[name] = p.backendNow()
	}
	return input{snapshot: s, options: options, stock: stock, backends: backends}
}

func (e *Engine) now() (*view, core.Options) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.view, e.options
}

// Refresh asks the adapter for a List and waits until what it says is in the
// view. Use it where a VM was just started and its event may not be here yet.
func (e *Engine) Refresh(ctx context.Context) error {
	if err := e.inv.look(ctx); err != nil {
		return fmt.Errorf("looking for VMs: %w", err)
	}
	_, err := e.submit(ctx, &request{}) // the writer makes a view for every batch
	return err
}

// Settle waits until every point holds what it should, or says why one does
// not.
func (e *Engine) Settle(ctx context.Context) error {
	_, err := e.do(ctx, &request{everywhere: true})
	return err
}

// SetPolicy changes the options, checked and answered as Change does.
func (e *Engine) SetPolicy(ctx context.Context, o core.Options) (Result, error) {
	return e.do(ctx, &request{options: &o, everywhere: true})
}

// SwapBackend replaces a point's backend: the new one takes the ruleset over
// while the former still enforces, which then takes down what it made and is
// closed. No moment is open. ErrLeftBehind: the new one is in force all the
// same. On any other error nothing has changed, and it is the caller's to close.
func (e *Engine) SwapBackend(ctx context.Context, name string, b core.SecurityGroupBackend) error {
	p, err := e.point(name)
	if err != nil {
		return err
	}
	s := swap{backend: b, done: make(chan error, 1)}
	select {
	case p.swaps <- s:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stopped:
		return errStopped
	}
	select {
	case err = <-s.done: // not ctx: nobody could tell then whose b is
		e.inv.poke() // features may have changed
		return err
	case <-e.stopped:
		return errStopped
	}
}

func (e *Engine) point(name string) (*point, error) {
	p, ok := e.points[name]
	if !ok {
		return nil, fmt.Errorf("enforcement point %q; there are %q: %w", name, slices.Sorted(maps.Keys(e.points)), core.ErrNotFound)
	}
	return p, nil
}

// Points lists the enforcement points.
func (e *Engine) Points() []string { return slices.Sorted(maps.Keys(e.points)) }

// Ruleset is what a point enforces, as far as this engine has written to it.
// ErrNotReady: it has not.
func (e *Engine) Ruleset(name string) (core.Ruleset, error) {
	p, err := e.point(name)
	if err != nil {
		return core.Ruleset{}, err
	}
	r, _ := p.state()
	if !r.known {
		return core.Ruleset{}, fmt.Errorf("enforcement point %q: what is enforced is not known yet: %w", name, core.ErrNotReady)
	}
	return r.enforced.Ruleset, nil
}

// Observe reads back what a point enforces.
func (e *Engine) Observe(ctx context.Context, name string) (core.Observation, error) {
	p, err := e.point(name)
	if err != nil {
		return core.Observation{}, err
	}
	b, _ := p.backendNow()
	return b.Observe(ctx)
}

// Counters reads a point's counters. ErrUnsupported: the backend has none.
func (e *Engine) Counters(ctx context.Context, name string) ([]core.Counter, error) {
	p, err := e.point(name)
	if err != nil {
		return nil, err
	}
	b, info := p.backendNow()
	if !p.has(core.FeatureCounters) {
		return nil, fmt.Errorf("backend %s lacks %s: %w", info.Name, core.FeatureCounters, core.ErrUnsupported)
	}
	return b.Counters(ctx)
}

// Input is the desired state and the inventory in one, as policy.Compile takes
// it: what Evaluate and Explain are asked about.
func (e *Engine) Input(point string) policy.Input {
	v, _ := e.now()
	in := policy.Input{Options: v.options, VMs: v.vms, Point: point}
	for _, name := range slices.Sorted(maps.Keys(v.snapshot.Groups)) {
		in.Groups = append(in.Groups, v.snapshot.Groups[name].Group)
	}
	return in
}
