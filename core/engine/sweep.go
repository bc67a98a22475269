package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// sweepNeed says what a change may have done to tracked flows.
type sweepNeed uint8

const (
	sweepNone      sweepNeed = iota
	sweepLoosened            // revoked flows may be allowed again
	sweepTightened           // flows may be allowed no more
)

// maxSweeps bounds the looks at the flows after one change. Every one finds
// fewer; a system where that is not so needs a person.
const maxSweeps = 20

// tightens says whether d can take away what some flow lives on. New
// entries and members cannot: an egress entry that denies the rest comes with
// a new policy of its NICs.
func tightens(d core.Delta) sweepNeed {
	if d.Options != nil || len(d.NICs) > 0 || len(d.Removed) > 0 {
		return sweepTightened
	}
	for _, g := range d.Groups {
		if g.Gone || len(g.Remove) > 0 {
			return sweepTightened
		}
	}
	for _, s := range d.Sets {
		if s.Gone || len(s.Remove) > 0 {
			return sweepTightened
		}
	}
	return sweepLoosened
}

// sweepFlows revokes the tracked flows that the enforced ruleset allows no
// more, and gives back those that it allows again. A packet that was under way
// when the ruleset came into force can make a flow tracked afterwards, so what
// may have tightened is looked at once more after a pause, until there is
// nothing left. Where the first look finds nothing to cut, no traffic is there
// that the change is about, and the second look does not hold up the answer:
// again says when it is due.
func (f *enforcer) sweepFlows(ctx context.Context) error {
	flows, ok := f.backend.(core.FlowBackend)
	if f.sweep == sweepNone || !f.known {
		return nil
	}
	if !ok || !slices.Contains(f.backend.Info().Features, core.FeatureFlows) {
		f.sweep = sweepNone
		return nil
	}
	for pass := range maxSweeps {
		found, err := f.sweepOnce(ctx, flows)
		if err != nil {
			return fmt.Errorf("the ruleset is in force, but tracked flows were not revoked: %w", err)
		}
		if !found {
			if pass == 0 && f.sweep == sweepTightened {
				f.again = time.Now().Add(f.timing.SweepPause)
			}
			f.sweep = sweepNone
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.timing.SweepPause):
		}
	}
	return fmt.Errorf("the ruleset is in force, but %d looks found flows to revoke each time: %w", maxSweeps, core.ErrNotReady)
}

// lookAgain is the second look.
func (p *point) lookAgain(ctx context.Context) {
	due := p.again
	p.again = time.Time{}
	p.sweep = max(p.sweep, sweepLoosened)
	if err := p.sweepFlows(ctx); err != nil && ctx.Err() == nil {
		p.log.Error("flows that began while a ruleset came into force were not looked for", "error", err)
		p.nudge() // which sweeps, too, and reports
	}
	if p.again.IsZero() && time.Now().Before(due) {
		p.again = due // a later change is younger than the pause
	}
}

// lookBeforeLeaving does not leave the second look to nobody.
func (p *point) lookBeforeLeaving(ctx context.Context) {
	if p.again.IsZero() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	sleep(ctx, time.Until(p.again))
	p.lookAgain(ctx)
}

func (f *enforcer) sweepOnce(ctx context.Context, b core.FlowBackend) (found bool, err error) {
	var all []core.Flow
	err = f.call(ctx, func(ctx context.Context) (err error) {
		all, err = b.Flows(ctx)
		return err
	})
	if err != nil {
		return false, err
	}
	if len(all) == 0 {
		return false, nil // judging makes an index of the whole ruleset first
	}
	revoke, restore := policy.StaleFlows(f.enforced.Ruleset, all)
	if len(revoke)+len(restore) == 0 {
		return false, nil
	}
	changed := 0
	err = f.call(ctx, func(ctx context.Context) (err error) {
		changed, err = b.RevokeFlows(ctx, revoke, restore)
		return err
	})
	if err != nil {
		return false, err
	}
	f.stats.FlowsRevoked += uint64(len(revoke))
	f.stats.FlowsRestored += uint64(len(restore))
	f.log.Info("flows swept", "revoked", len(revoke), "restored", len(restore), "changed", changed)
	return true, nil
}
