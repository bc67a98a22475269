package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// Result is what became of a change.
type Result struct {
	// Stored: desired state holds the change, and the engine goes on to enforce
	// it, whatever error came with the result.
	Stored   bool
	Revision uint64
	// NICs of the VMs that the change names, and those of the groups it names
	// that are not held to what is wanted. Sorted.
	NICs []NICStatus
}

// Pending lists the NICs that do not run here.
func (r Result) Pending() []core.NICKey {
	var out []core.NICKey
	for _, n := range r.NICs {
		if n.State == Pending {
			out = append(out, n.NIC)
		}
	}
	return out
}

// maxBatch is how many changes are committed in one transaction at most, and
// how many wait in the queue.
const maxBatch = 1024

// request is something for the writer.
type request struct {
	ctx        context.Context
	change     func(*state.Tx) error // nil changes nothing
	options    *core.Options
	everywhere bool // concerns every point
	staged     chan staged
}

// staged is the writer's answer: the request is in desired state.
type staged struct {
	err      error
	before   *view
	after    *view
	touched  state.Touched
	revision uint64
}

var errStopped = fmt.Errorf("the engine has stopped: %w", core.ErrNotReady)

// Change runs change upon desired state and answers when every enforcement
// point that it concerns holds the result, flows included. VMs that do not run
// here are Pending and wait for nothing.
//
// An error without Result.Stored: nothing has changed. ErrInvalid,
// ErrUnsupported and ErrConflict say what is wrong with the change, ErrNotReady
// that it could not be written. An error with Result.Stored says why the change
// is not enforced yet, or not everywhere; the engine goes on trying.
//
// change may run more than once, in the engine's goroutine; only the Tx may
// remember it. It must not call the engine.
func (e *Engine) Change(ctx context.Context, change func(*state.Tx) error) (Result, error) {
	return e.do(ctx, &request{change: change})
}

func (e *Engine) do(ctx context.Context, r *request) (Result, error) {
	s, err := e.submit(ctx, r)
	if err != nil {
		return Result{}, err
	}
	return e.await(ctx, r, s)
}

// submit waits for the writer, which waits for nobody.
func (e *Engine) submit(ctx context.Context, r *request) (staged, error) {
	r.ctx, r.staged = ctx, make(chan staged, 1)
	select {
	case e.queue <- r:
	case <-ctx.Done():
		return staged{}, fmt.Errorf("the change was not made: %w", ctx.Err())
	case <-e.stopped:
		return staged{}, errStopped
	}
	select {
	case s := <-r.staged:
		return s, s.err
	case <-e.stopped:
		select { // the last thing it did may have been this
		case s := <-r.staged:
			return s, s.err
		default:
			return staged{}, errStopped
		}
	}
}

// write is the writer's goroutine.
func (e *Engine) write(ctx context.Context) {
	e.seen = map[core.VMKey]bool{}
	first := e.opts.Adapter != nil
	if !first {
		e.refresh()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.inv.changed:
			v := e.refresh()
			e.goneVMs(v, &first)
		case r := <-e.queue:
			e.commit(e.batch(r))
		}
	}
}

// batch takes what waits in the queue, up to a limit.
func (e *Engine) batch(r *request) []*request {
	rs := []*request{r}
	for len(rs) < maxBatch {
		select {
		case r := <-e.queue:
			rs = append(rs, r)
		default:
			return rs
		}
	}
	return rs
}

// refresh makes a view of what is known now and aims the points at it.
func (e *Engine) refresh() *view {
	_, options := e.now()
	e.seq++
	v := build(e.input(e.opts.State.Snapshot(), options, e.inv.stock()), e.seq)
	e.adopt(v, options)
	return v
}

// adopt makes v the view. Nobody else has it yet.
func (e *Engine) adopt(v *view, options core.Options) {
	for key := range v.present {
		e.seen[key] = true
	}
	if v.ready || v.stock.expected { // else what is enforced stays until the adapter has answered
		for name, p := range e.points {
			// The target may be an older one that is the same.
			v.targets[name], v.attempts[name] = p.aim(v.targets[name])
		}
	}
	e.mu.Lock()
	old := e.view
	e.view, e.options = v, options
	e.mu.Unlock()
	e.report(old, v)
}

// report logs what is new in a view.
func (e *Engine) report(old, v *view) {
	for _, note := range v.notes {
		if !slices.Contains(old.notes, note) {
			e.log.Warn(note)
		}
	}
	if err := v.problems.beyond(old.problems); err != nil {
		e.log.Error("something cannot be enforced as asked", "error", err)
	}
}

// goneVMs tells Options.Gone of VMs that were here and are not.
func (e *Engine) goneVMs(v *view, first *bool) {
	if !v.ready || v.stock.doubtful {
		return
	}
	var gone []state.VM
	for key, d := range v.snapshot.VMs {
		if !v.present[key] && (*first || e.seen[key]) {
			gone = append(gone, d)
		}
	}
	*first, e.seen = false, maps.Clone(v.present)
	if len(gone) == 0 || e.opts.Gone == nil {
		return
	}
	slices.SortFunc(gone, func(a, b state.VM) int { return cmp.Compare(a.Key, b.Key) })
	r := &request{ctx: context.Background(), staged: make(chan staged, 1),
		change: func(tx *state.Tx) error { return e.opts.Gone(tx, gone) }}
	e.commit([]*request{r})
	if s := <-r.staged; s.err != nil {
		e.log.Error("records of VMs that are gone stay", "error", s.err)
	}
}

// commit stages requests, commits them in one transaction and answers them.
// When together they are refused, they are tried apart, so that each is judged
// by itself.
func (e *Engine) commit(rs []*request) {
	before, options := e.now()
	if e.inv.stale(before.stock) {
		// So that no fault of the inventory is laid at a change's door.
		before = e.refresh()
	}
	tx := e.opts.State.Snapshot().Edit()
	var in, apart []*request
	touched := map[*request]state.Touched{}
	for _, r := range rs {
		t, err := stage(tx, r)
		switch {
		case err == nil:
			in, touched[r] = append(in, r), t
			if r.options != nil {
				options = *r.options
			}
		case len(in) > 0:
			apart = append(apart, r) // one before it may be to blame, and be refused
		default:
			r.staged <- staged{err: err}
		}
	}
	e.commitStaged(before, options, tx, in, touched)
	for _, r := range apart {
		e.commit([]*request{r})
	}
}

func (e *Engine) commitStaged(before *view, options core.Options, tx *state.Tx, in []*request, touched map[*request]state.Touched) {
	if len(in) == 0 {
		return
	}
	e.seq++
	v := build(e.input(tx.Snapshot(), options, before.stock), e.seq)
	err := v.problems.beyond(before.problems)
	if err != nil && len(in) > 1 {
		e.commit(in[:len(in)/2])
		e.commit(in[len(in)/2:])
		return
	}
	if err == nil {
		err = e.opts.State.Commit(tx)
	}
	if err != nil {
		for _, r := range in {
			r.staged <- staged{err: err}
		}
		return
	}
	v.snapshot = e.opts.State.Snapshot()
	e.adopt(v, options)
	for _, r := range in {
		r.staged <- staged{before: before, after: v, touched: touched[r], revision: v.snapshot.Revision}
	}
}

// stage runs a request's change upon tx, or leaves tx as it is.
func stage(tx *state.Tx, r *request) (state.Touched, error) {
	if err := r.ctx.Err(); err != nil {
		return state.Touched{}, fmt.Errorf("the change was not made: %w", err)
	}
	if r.change == nil {
		return state.Touched{}, nil
	}
	child := tx.Child()
	if err := r.change(child); err != nil {
		return state.Touched{}, err
	}
	tx.Absorb(child)
	return child.Touched(), nil
}

// Plan says what change would do at each point, and does nothing. Errors are
// those of Change.
func (e *Engine) Plan(ctx context.Context, change func(*state.Tx) error) (map[string]core.Delta, error) {
	before, err := e.readyView(ctx)
	if err != nil {
		return nil, err
	}
	_, options := e.now()
	tx := e.opts.State.Snapshot().Edit()
	if err := change(tx); err != nil {
		return nil, err
	}
	after := build(e.input(tx.Snapshot(), options, before.stock), before.seq)
	if err := after.problems.beyond(before.problems); err != nil {
		return nil, err
	}
	out := map[string]core.Delta{}
	for name, p := range e.points {
		r, _ := p.state()
		from := r.enforced
		if !r.known {
			from = before.targets[name].Versioned
		}
		out[name] = policy.Diff(from, after.targets[name].Versioned)
	}
	return out, nil
}

// readyView waits until the adapter has answered or failed.
func (e *Engine) readyView(ctx context.Context) (*view, error) {
	select {
	case <-e.inv.tried:
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("the hypervisor adapter has not answered: %w", core.ErrNotReady), ctx.Err())
	case <-e.stopped:
		return nil, errStopped
	}
	if s := e.inv.stock(); !s.ready {
		return nil, fmt.Errorf("the hypervisor adapter has not answered yet, what is enforced stays as it is: %w: %w", s.err, core.ErrNotReady)
	}
	if v, _ := e.now(); v.ready {
		return v, nil
	}
	// It has answered, but the view is older.
	s, err := e.submit(ctx, &request{})
	return s.after, err
}
