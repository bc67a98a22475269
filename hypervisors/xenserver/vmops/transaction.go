package vmops

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ringwall/ringwall/core"
)

// undoTimeout bounds the way back after a failure.
const undoTimeout = 30 * time.Second

// transaction leads a host from what its records say to programs, VM by VM.
type transaction struct {
	*Backend
	*look
	logs map[string]string
}

// run stops at the first failure.
func (t *transaction) run(ctx context.Context, programs map[core.VMKey]program) error {
	for _, key := range slices.Sorted(maps.Keys(t.records)) {
		p, stays := programs[key]
		if stays && p.name == t.records[key].Name {
			continue
		}
		if err := t.remove(ctx, t.look, key); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		if err := t.put(ctx, key, programs[key]); err != nil {
			return &core.ObjectError{NICs: []core.NICKey{programs[key].nic}, Err: err}
		}
	}
	return nil
}

// back leads to the former ruleset again. It says whether it got there.
func (t *transaction) back(ctx context.Context, r core.Ruleset) bool {
	programs, err := plan(r)
	if err == nil {
		err = t.run(ctx, programs)
	}
	if err != nil {
		t.log.Error("the former ruleset could not be put back; synchronising again", "error", err)
	}
	return err == nil
}

// put programs one VM, as far as its record says that it is needed.
func (t *transaction) put(ctx context.Context, key core.VMKey, p program) error {
	r, had := t.records[key]
	g, ok := t.vms[key]
	if !ok || !g.here {
		return fmt.Errorf("vm %s does not run on host %s: %w", p.name, t.info.Name, core.ErrNotReady)
	}
	domid := int64(g.Domid)
	fresh := !had || !r.sameDefaults(p, domid)
	next := record{Name: p.name, System: p.system, MAC: p.nic.MAC.String(), Domid: domid, Address: p.address, Secondary: p.secondary,
		Signature: r.Signature, Sequence: r.Sequence}
	switch {
	case fresh:
		if err := t.defaults(ctx, t.look, p); err != nil {
			return err
		}
	case !p.system:
		if err := t.addresses(ctx, p, r.Secondary); err != nil {
			return err
		}
	}
	if !p.system && (fresh || r.Signature != signature(p.rules) || t.forgotten(key, r)) {
		seq, err := t.nextSequence(ctx, g, r)
		if err != nil {
			return err
		}
		g.OtherConfig = map[string]string{sequenceKey: fmt.Sprint(seq)} // for a way back
		t.vms[key] = g
		if err := t.made.wait(ctx, p.sets); err != nil {
			return err
		}
		if err := t.userRules(ctx, t.look, p, seq); err != nil {
			return err
		}
		next.Sequence, next.Signature = seq, signature(p.rules)
	}
	if !fresh && r.Sequence == next.Sequence && slices.Equal(r.Secondary, p.secondary) {
		return nil
	}
	return t.putRecord(ctx, t.look, key, next)
}

// forgotten says whether vmops shows that it no longer has what it was told.
func (t *transaction) forgotten(key core.VMKey, r record) bool {
	line, shown := t.logs[r.Name]
	return shown && line != r.log(key)
}

// addresses adds and takes away secondary addresses one by one: the other rules
// are not touched.
func (t *transaction) addresses(ctx context.Context, p program, have []string) error {
	for _, a := range have {
		if !slices.Contains(p.secondary, a) {
			if err := t.secondary(ctx, t.look, p, a, "-D"); err != nil {
				return err
			}
		}
	}
	for _, a := range p.secondary {
		if !slices.Contains(have, a) {
			if err := t.secondary(ctx, t.look, p, a, "-A"); err != nil {
				return err
			}
		}
	}
	return nil
}

// secondHand knows when temporary sets were made. vmops names one by its set and
// the second of the clock, and fails when the same is made twice in a second.
type secondHand map[string]time.Time

// wait until none of the sets' temporary ones was made in this second, and takes
// them for made now.
func (h *secondHand) wait(ctx context.Context, sets []string) error {
	const second = 1100 * time.Millisecond // of a clock that is not ours
	var last time.Time
	for _, s := range sets {
		if at := (*h)[temporary(s)]; at.After(last) {
			last = at
		}
	}
	if rest := time.Until(last.Add(second)); rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if *h == nil {
		*h = secondHand{}
	}
	now := time.Now()
	for s, at := range *h {
		if now.Sub(at) > second {
			delete(*h, s)
		}
	}
	for _, s := range sets {
		(*h)[temporary(s)] = now
	}
	return nil
}
