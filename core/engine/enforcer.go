package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// enforcer leads one backend from what it holds to what it should hold. It
// belongs to its point's goroutine.
type enforcer struct {
	backend core.SecurityGroupBackend
	log     *slog.Logger
	timing  Timing
	stats   *Stats

	enforced policy.Versioned
	known    bool   // the point holds enforced; false until the first Sync
	resync   bool   // it may hold something else: Sync, not Apply
	writes   uint64 // that succeeded
	holds    map[unit]hold
	sweep    sweepNeed
	again    time.Time // when the flows must be looked at once more; zero = need not be
}

func newEnforcer(b core.SecurityGroupBackend, timing Timing, log *slog.Logger, stats *Stats) *enforcer {
	return &enforcer{backend: b, log: log, timing: timing, stats: stats, holds: map[unit]hold{}}
}

// call gives every call of a backend its longest time.
func (f *enforcer) call(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, f.timing.Call)
	defer cancel()
	err := fn(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w (%w)", err, ctx.Err())
	}
	return err
}

// put makes the point hold want, by difference where that is possible.
func (f *enforcer) put(ctx context.Context, want policy.Versioned) error {
	if f.known && !f.resync {
		d := policy.Diff(f.enforced, want)
		if d.Empty() {
			return nil
		}
		f.stats.Applies++
		err := f.call(ctx, func(ctx context.Context) error { return f.backend.Apply(ctx, d) })
		switch {
		case err == nil:
			f.took(want, tightens(d))
			return nil
		case !errors.Is(err, core.ErrConflict):
			f.failed(err)
			return err
		}
		f.log.Warn("the point holds another ruleset than the last one it was given; writing it whole", "error", err)
	}
	f.stats.Syncs++
	err := f.call(ctx, func(ctx context.Context) error { return f.backend.Sync(ctx, want.Ruleset) })
	if err != nil {
		f.failed(err)
		return err
	}
	f.took(want, sweepTightened)
	return nil
}

func (f *enforcer) took(r policy.Versioned, need sweepNeed) {
	f.enforced, f.known, f.resync = r, true, false
	f.writes++
	f.sweep = max(f.sweep, need)
}

func (f *enforcer) failed(err error) {
	f.stats.Failures++
	if vague(err) {
		f.resync = true
	}
}

// vague errors say nothing about the ruleset, and leave open whether it is in
// force: the answer was lost, or the backend is not there.
func vague(err error) bool {
	for _, e := range []error{context.DeadlineExceeded, context.Canceled, core.ErrNotReady, core.ErrConflict} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// enforce makes the point hold t, or as much of t as the backend takes. It
// gives the NICs that are not held to what t asks, and why. With an error,
// what was enforced before still is.
func (f *enforcer) enforce(ctx context.Context, t *target) (map[core.NICKey]error, error) {
	if t.err != nil {
		return nil, t.err
	}
	if err := f.mayReplace(ctx, t); err != nil {
		return nil, err
	}
	f.review(t)
	for {
		rs, affected := f.substitute(t)
		err := f.put(ctx, rs)
		switch {
		case err == nil:
			return affected, nil
		case vague(err):
			return affected, err
		case f.holdNamed(t, err):
			continue // without them
		}
		if err := f.bisect(ctx, t, err); err != nil {
			return affected, err
		}
		_, affected = f.substitute(t)
		return affected, nil
	}
}

// mayReplace finds out what a point holds that this engine has not written to
// yet. As long as no List has shown a VM, it is left alone, unless it holds
// nothing of any VM.
func (f *enforcer) mayReplace(ctx context.Context, t *target) error {
	if f.known || !t.doubtful {
		return nil
	}
	o, err := f.observe(ctx)
	if err != nil {
		return err
	}
	bare := core.Ruleset{Options: t.Options}.Fingerprint() // closed ports alone
	switch o.Fingerprint {
	case core.Fingerprint{}, bare, t.Fingerprint:
	default:
		return fmt.Errorf("the hypervisor has shown no VM yet, but policies are enforced here; looking again before they are removed: %w", core.ErrNotReady)
	}
	return nil
}

func (f *enforcer) observe(ctx context.Context) (o core.Observation, err error) {
	err = f.call(ctx, func(ctx context.Context) (err error) {
		o, err = f.backend.Observe(ctx)
		return err
	})
	return o, err
}

// hold keeps a unit as it is enforced now, because the backend has refused what
// is wanted.
type hold struct {
	err error
	// wanted is what was refused. Another is tried at once.
	wanted content
	// unsupported: it was not even tried.
	unsupported bool
	// blankRefused: not even the closed policy was taken.
	blankRefused bool
}

// content is what a ruleset says about one unit.
type content struct {
	nic     core.NICPolicy
	group   core.GroupPolicy
	set     core.AddressSet
	options core.Options
}

func contentOf(r core.Ruleset, u unit) content {
	switch {
	case u.isNIC():
		return content{nic: r.NICs[u.nic]}
	case u.group != "":
		return content{group: r.Groups[u.group], set: r.Sets[u.group]}
	}
	return content{options: r.Options}
}

func (c content) equal(o content) bool {
	return c.nic.Equal(o.nic) && slices.Equal(c.group.Entries, o.group.Entries) &&
		slices.Equal(c.set.Members, o.set.Members) && c.options.Equal(o.options)
}

// review lets go of units whose wanted content has changed since, and holds
// what the backend says it cannot do.
func (f *enforcer) review(t *target) {
	for u, h := range f.holds {
		if h.unsupported || !h.wanted.equal(contentOf(t.Ruleset, u)) {
			delete(f.holds, u)
		}
	}
	for u, err := range t.unsupported {
		if _, held := f.holds[u]; !held {
			f.holds[u] = hold{err: err, wanted: contentOf(t.Ruleset, u), unsupported: true}
		}
	}
}

// release lets everything be tried again.
func (f *enforcer) release() { clear(f.holds) }

func (f *enforcer) hold(t *target, u unit, err error) {
	f.holds[u] = hold{err: err, wanted: contentOf(t.Ruleset, u)}
}

// holdNamed holds the units that an error names. It says whether there were
// any that were not held yet.
func (f *enforcer) holdNamed(t *target, err error) bool {
	progress := false
	name := func(u unit, err error, known bool) {
		h, held := f.holds[u]
		switch {
		case !known:
		case !held:
			f.log.Error("the backend refuses an object; going on without it", "object", u.String(), "error", err)
			f.hold(t, u, err)
			progress = true
		case u.isNIC() && !h.blankRefused:
			h.blankRefused = true
			f.holds[u] = h
			progress = true
		}
	}
	for _, o := range objectErrors(err) {
		for _, k := range o.NICs {
			_, wanted := t.NICs[k]
			_, enforced := f.enforced.NICs[k]
			name(unit{nic: k}, o.Err, wanted || enforced)
		}
		for _, g := range o.Groups {
			known := false
			for _, r := range []core.Ruleset{t.Ruleset, f.enforced.Ruleset} {
				_, group := r.Groups[g]
				_, set := r.Sets[g]
				known = known || group || set
			}
			name(unit{group: g}, o.Err, known)
		}
	}
	return progress
}
