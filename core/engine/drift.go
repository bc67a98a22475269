package engine

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// inspect reads back what is enforced and repairs what somebody else changed.
func (p *point) inspect(ctx context.Context) {
	if !p.known || p.resync {
		p.reconcile(ctx)
		return
	}
	o, err := p.observe(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.log.Warn("what is enforced cannot be read back", "error", err)
		p.publish(func(r *report) { r.watchErr = err })
		return
	}
	if len(o.Drift) > 0 || o.Fingerprint != p.enforced.Fingerprint {
		p.repair(ctx, o)
	}
	// A flow can be opened past one of its ends: its first packet flooded to an
	// uplink and a VM, allowed at the one and denied at the other. No change of
	// policy follows that would have it found.
	p.sweep = sweepTightened
	if err := p.sweepFlows(ctx); err != nil {
		p.log.Warn("flows could not be looked at", "error", err)
	}
	closed := p.closedPorts(ctx)
	p.publish(func(r *report) { r.watchErr, r.closed, r.stats = nil, closed, *p.stats })
}

func (p *point) repair(ctx context.Context, o core.Observation) {
	for _, d := range o.Drift {
		p.log.Error("enforced state was changed by somebody else; repairing", "object", d.Object, "difference", d.Difference)
	}
	if len(o.Drift) == 0 {
		p.log.Error("another ruleset is enforced than was written; repairing", "fingerprint", o.Fingerprint.Short(), "written", p.enforced.Fingerprint.Short())
	}
	p.stats.Drifts += uint64(max(1, len(o.Drift)))
	p.resync = true
	p.reconcile(ctx)
	if !p.resync {
		p.stats.Repairs++
	}
}

// closedPorts lists the devices that the backend has counted packets of and
// that no NIC has.
func (p *point) closedPorts(ctx context.Context) []string {
	if !slices.Contains(p.backend.Info().Features, core.FeatureCounters) {
		return nil
	}
	var counters []core.Counter
	err := p.call(ctx, func(ctx context.Context) (err error) {
		counters, err = p.backend.Counters(ctx)
		return err
	})
	if err != nil {
		p.log.Warn("counters cannot be read", "error", err)
		return nil
	}
	devices := map[string]bool{}
	for _, c := range counters {
		if c.Reason == core.ReasonClosedPort && c.Device != "" && c.NIC == (core.NICKey{}) {
			devices[c.Device] = true
		}
	}
	return slices.Sorted(maps.Keys(devices))
}

// listener follows a backend's events.
type listener struct {
	foreign <-chan struct{} // has one element when there is reason to look
	stop    func()          // waits for the end
}

// listen follows the events of the point's backend, if it has any, and begins
// anew when they end.
func (p *point) listen(ctx context.Context) listener {
	b, ok := p.backend.(core.EventBackend)
	if !ok || !slices.Contains(p.backend.Info().Features, core.FeatureEvents) {
		return listener{stop: func() {}}
	}
	ctx, cancel := context.WithCancel(ctx)
	foreign, ended := make(chan struct{}, 1), make(chan struct{})
	look := func() (first bool) {
		select {
		case foreign <- struct{}{}:
			return true
		default:
			return false
		}
	}
	go func() {
		defer close(ended)
		pause := backoff{min: p.timing.RetryMin, max: p.timing.RetryMax}
		for first := true; ctx.Err() == nil; first = false {
			if !first {
				look() // what happened meanwhile was not told
			}
			if err := p.follow(ctx, b, look, &pause); err != nil && !errors.Is(err, context.Canceled) {
				p.log.Warn("the backend tells no events; looking at intervals", "error", err)
			}
			sleep(ctx, pause.next())
		}
	}()
	return listener{foreign: foreign, stop: func() { cancel(); <-ended }}
}

// follow takes events until there are no more. look says whether nobody had
// asked for a look yet.
func (p *point) follow(ctx context.Context, b core.EventBackend, look func() (first bool), pause *backoff) error {
	events, err := b.Events(ctx)
	if err != nil {
		return err
	}
	for e := range events {
		pause.reset()
		p.log.Debug("backend event", "kind", e.Kind.String(), "object", e.Object, "by", e.By)
		switch e.Kind {
		case core.EventDrift:
			// One line for each look: a program in a loop must not fill the log.
			if look() {
				p.log.Info("another program touched what is enforced; looking", "object", e.Object, "by", e.By)
			}
		case core.EventLost:
			look()
		case core.EventRepaired:
			p.log.Warn("the driver has put a prerequisite back", "object", e.Object, "by", e.By)
			look()
		case core.EventPorts:
			look() // a new port may be a closed one
		}
	}
	return ctx.Err()
}
