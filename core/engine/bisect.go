package engine

import (
	"context"
	"maps"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// hopeless is how many single units may fail, with nothing done in between,
// before the failure is taken for the point's and not the units'.
const hopeless = 8

// bisect finds the units that a backend refuses without naming them: it holds
// everything that changes and lets halves go. Every success is in force at
// once. With an error, nothing was found, and the holds are as before.
func (f *enforcer) bisect(ctx context.Context, t *target, cause error) error {
	if !f.known {
		// What is enforced was written before this engine started, and is not
		// known in detail. Trying subsets would close those left out.
		o, err := f.observe(ctx)
		if err != nil || o.Fingerprint != (core.Fingerprint{}) {
			return cause
		}
	}
	wanted, _ := f.substitute(t)
	units := unitsOf(policy.Diff(f.enforced, wanted))
	before := maps.Clone(f.holds)
	b := &bisection{enforcer: f, target: t}
	err := b.holdAll(ctx, units, cause)
	if err == nil {
		b.writes = f.writes
		err = b.halves(ctx, units)
	}
	// A single unit is to blame, or the point is: either way all others are as
	// they should be.
	if err == nil && len(units) > 1 && !b.progress() {
		err = cause
	}
	if err != nil {
		f.holds = before
		return err
	}
	for u := range f.holds {
		if _, known := before[u]; !known {
			f.log.Error("the backend refuses an object without naming it; going on without it", "object", u.String(), "error", f.holds[u].err)
		}
	}
	return nil
}

type bisection struct {
	*enforcer
	target   *target
	writes   uint64 // that had succeeded before
	failures int    // of single units
	noBlanks bool   // blank policies are refused, too
}

func (b *bisection) progress() bool { return b.enforcer.writes > b.writes }

// holdAll keeps everything as it is, save NICs that nothing closes but a policy:
// they get the blank one, or, when that is refused, none.
func (b *bisection) holdAll(ctx context.Context, units []unit, cause error) error {
	b.keep(units, cause)
	err := b.attempt(ctx)
	if err == nil || vague(err) {
		return err
	}
	b.noBlanks = true
	b.keep(units, cause)
	return b.attempt(ctx)
}

func (b *bisection) keep(units []unit, cause error) {
	for _, u := range units {
		b.holds[u] = hold{err: cause, wanted: contentOf(b.target.Ruleset, u), blankRefused: b.noBlanks}
	}
}

func (b *bisection) attempt(ctx context.Context) error {
	rs, _ := b.substitute(b.target)
	return b.put(ctx, rs)
}

// halves lets units go, all of which are held, if the backend takes them. Only
// an error that is the point's own comes back.
func (b *bisection) halves(ctx context.Context, units []unit) error {
	if len(units) == 0 {
		return nil
	}
	for _, u := range units {
		if _, unsupported := b.target.unsupported[u]; !unsupported {
			delete(b.holds, u)
		}
	}
	err := b.attempt(ctx)
	if err == nil {
		return nil
	}
	b.keep(units, err)
	switch {
	case vague(err):
		return err
	case len(units) > 1:
		if err := b.halves(ctx, units[:len(units)/2]); err != nil {
			return err
		}
		return b.halves(ctx, units[len(units)/2:])
	}
	if b.failures++; b.failures >= hopeless && !b.progress() {
		return err
	}
	return nil
}
