package engine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// point is one enforcement point with its loop. A point that fails or hangs
// holds up only itself.
type point struct {
	name   string
	log    *slog.Logger
	timing Timing
	wake   chan struct{} // has one element when there is something to do
	swaps  chan swap

	*enforcer // the loop's own
	keeper    *keeper
	recalled  bool
	retry     *time.Timer
	pause     backoff

	mu      sync.Mutex
	info    core.Info // of the backend
	current core.SecurityGroupBackend
	target  *target
	report  report
	changed chan struct{} // closed when report changes
}

// report is how a point stands after an attempt. Maps in it are not changed
// afterwards.
type report struct {
	attempts uint64  // ended
	target   *target // that was attempted last
	enforced policy.Versioned
	known    bool // enforced is what the point holds
	started  bool // something was written since the start
	affected map[core.NICKey]error
	err      error
	watchErr error // of looking for drift
	closed   []string
	stats    Stats
	retryAt  time.Time
	synced   time.Time // of the last success
}

// clean says that the point holds what it should, flows included.
func (r report) clean() bool { return r.known && r.err == nil && len(r.affected) == 0 }

func newPoint(name string, b core.SecurityGroupBackend, s *state.Store, timing Timing, log *slog.Logger) *point {
	log = log.With("point", name)
	p := &point{name: name, log: log, timing: timing, wake: make(chan struct{}, 1), swaps: make(chan swap),
		pause: backoff{min: timing.RetryMin, max: timing.RetryMax}, info: b.Info(), current: b, changed: make(chan struct{})}
	p.enforcer = newEnforcer(b, timing, log, &Stats{})
	p.keeper = newKeeper(s, name, log)
	p.retry = time.NewTimer(time.Hour)
	p.retry.Stop()
	return p
}

// run is the loop.
func (p *point) run(ctx context.Context) {
	defer p.retry.Stop()
	look := time.NewTicker(p.timing.Observe)
	defer look.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	events := p.listen(ctx)
	defer func() { events.stop() }()
	for armed := false; ; {
		if !armed && !p.again.IsZero() {
			armed = true // and not put off by what comes meanwhile
			again.Reset(time.Until(p.again))
		}
		select {
		case <-ctx.Done():
			p.lookBeforeLeaving(ctx)
			return
		case <-again.C:
			armed = false
			if !p.again.IsZero() {
				p.lookAgain(ctx)
			}
		case <-p.wake:
			p.reconcile(ctx)
		case <-p.retry.C:
			p.release()
			p.reconcile(ctx)
		case <-look.C:
			p.inspect(ctx)
		case <-events.foreign:
			p.inspect(ctx)
			// Whoever fights over the rules must not keep the host busy.
			sleep(ctx, p.timing.SweepPause)
		case s := <-p.swaps:
			events.stop()
			s.done <- p.swap(ctx, s)
			events = p.listen(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// aim gives the point a target, unless it has it already, and says which it has
// now, and how many attempts have ended so far.
func (p *point) aim(t *target) (now *target, attempts uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.same(p.target) {
		p.target = t
		p.nudge()
	}
	return p.target, p.report.attempts
}

func (p *point) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// reconcile leads the backend to the newest target and reports.
func (p *point) reconcile(ctx context.Context) {
	p.mu.Lock()
	t := p.target
	p.mu.Unlock()
	if t == nil {
		return
	}
	affected, err := p.attempt(ctx, t)
	if err == nil || p.sweep != sweepNone {
		err = errors.Join(err, p.sweepFlows(ctx))
	}
	if ctx.Err() != nil {
		return // stopping: not the backend's fault
	}
	r := p.settle(t, affected, err)
	p.publish(func(old *report) {
		r.attempts, r.closed, r.watchErr, r.synced = old.attempts+1, old.closed, old.watchErr, old.synced
		if err == nil {
			r.synced = time.Now()
		}
		*old = r
	})
}

// attempt is enforce with a memory.
func (p *point) attempt(ctx context.Context, t *target) (map[core.NICKey]error, error) {
	if !p.recalled {
		if err := p.recall(ctx, p.keeper.load()); err != nil {
			return nil, err
		}
		p.recalled = true
	}
	affected, err := p.enforce(ctx, t)
	if err == nil {
		p.keeper.save(p.kept(affected))
	}
	return affected, err
}

// settle arranges for another attempt where one is needed.
func (p *point) settle(t *target, affected map[core.NICKey]error, err error) report {
	r := report{target: t, enforced: p.enforced, known: p.known && !p.resync, started: p.known, affected: affected, err: err, stats: *p.stats}
	if err == nil && len(p.holds) == 0 {
		p.pause.reset()
		p.retry.Stop()
		return r
	}
	if err != nil {
		p.log.Error("the ruleset is not in force as wanted; trying again", "error", err, "failures", p.pause.failures+1)
	}
	d := p.pause.next()
	p.retry.Reset(d)
	r.retryAt = time.Now().Add(d)
	return r
}

func (p *point) publish(change func(*report)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.report)
	close(p.changed)
	p.changed = make(chan struct{})
}

// state is the newest report, and a channel that is closed with the next.
func (p *point) state() (report, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.report, p.changed
}

// await waits until a target at least as new as seq was attempted. When the
// point is not as it should be, that must be an attempt that ended after the
// first since ones, so that the answer is not an old one.
func (p *point) await(ctx context.Context, stopped <-chan struct{}, seq, since uint64) (report, error) {
	for nudged := false; ; {
		r, changed := p.state()
		if r.target != nil && r.target.seq >= seq {
			if r.clean() || r.attempts > since {
				return r, nil
			}
			if !nudged {
				nudged = true
				p.nudge()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, ctx.Err()
		case <-stopped:
			return r, errStopped
		}
	}
}

// backendNow is the backend for calls that may run beside the loop's.
func (p *point) backendNow() (core.SecurityGroupBackend, core.Info) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current, p.info
}

func (p *point) has(f core.Feature) bool {
	_, info := p.backendNow()
	return slices.Contains(info.Features, f)
}
