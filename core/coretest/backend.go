package coretest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ringwall/ringwall/core"
)

// AllFeatures is what a FakeBackend has unless it is told otherwise: all but
// FeatureSegments, which stands for a backend of another kind.
var AllFeatures = []core.Feature{
	core.FeatureIPv4, core.FeatureIPv6, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP,
	core.FeatureProtocols, core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureNoAntiSpoof,
	core.FeaturePairs, core.FeatureMultiNIC, core.FeatureSystemVM, core.FeatureMulticast, core.FeatureCountOnly,
	core.FeatureFailClosed, core.FeatureFlows, core.FeatureZones, core.FeatureFlowEnds, core.FeatureCounters, core.FeatureEvents,
}

// Method names a call to a FakeBackend, for faults and for the record.
type Method string

const (
	Sync        Method = "sync"
	Apply       Method = "apply"
	Observe     Method = "observe"
	Counters    Method = "counters"
	Flows       Method = "flows"
	RevokeFlows Method = "revoke-flows"
	Teardown    Method = "teardown"
	Close       Method = "close"
	Events      Method = "events"
)

// FakeBackend is a SecurityGroupBackend, FlowBackend and EventBackend whose
// enforcement point is a Ruleset in memory. Its methods may be called at once
// from several goroutines, but a Sync, Apply, RevokeFlows or Teardown that
// starts before another has ended is recorded as a fault of the caller.
type FakeBackend struct {
	Name     string         // "fake" when empty
	Features []core.Feature // nil = AllFeatures

	mu       sync.Mutex
	told     core.Ruleset     // what it was last told
	enforced core.Ruleset     // what it holds; differs from told after Tamper
	kept     core.Fingerprint // kept at the point; zero = nothing there
	drift    []core.Drift
	flows    []core.Flow
	counters []core.Counter
	events   []chan core.Event
	writing  Method // under way
	writes   int
	calls    []Method
	abuse    []string
	closed   bool

	anonymous bool
	refuse    func(from, to core.Ruleset) error
	nics      map[core.NICKey]error
	groups    map[string]error
	next      map[Method][]error
	always    map[Method]error
	hang      map[Method]chan struct{}
	lose      bool
	onWrite   func(from, to core.Ruleset)
}

var (
	_ core.SecurityGroupBackend = (*FakeBackend)(nil)
	_ core.FlowBackend          = (*FakeBackend)(nil)
	_ core.EventBackend         = (*FakeBackend)(nil)
)

// Info has the name and the features.
func (b *FakeBackend) Info() core.Info {
	name, features := b.Name, b.Features
	if name == "" {
		name = "fake"
	}
	if features == nil {
		features = AllFeatures
	}
	return core.Info{Name: name, Version: "1", Features: features}
}

// Preflight finds nothing wrong.
func (b *FakeBackend) Preflight(context.Context) ([]core.Check, error) {
	return []core.Check{{Name: "fake", Summary: "nothing to check"}}, nil
}

// Sync takes r over, or fails and leaves everything as it was.
func (b *FakeBackend) Sync(ctx context.Context, r core.Ruleset) error {
	return b.write(ctx, Sync, func() (core.Ruleset, error) { return r, nil })
}

// Apply takes the delta over, or fails and leaves everything as it was.
func (b *FakeBackend) Apply(ctx context.Context, d core.Delta) error {
	return b.write(ctx, Apply, func() (core.Ruleset, error) {
		if len(b.drift) > 0 {
			return core.Ruleset{}, fmt.Errorf("what is enforced is not what was told: %w", core.ErrConflict)
		}
		next, err := d.Apply(b.told, b.kept)
		if err == nil && next.Fingerprint() != d.To {
			err = fmt.Errorf("the change does not lead to ruleset %s: %w", d.To.Short(), core.ErrInvalid)
		}
		return next, err
	})
}

func (b *FakeBackend) write(ctx context.Context, m Method, next func() (core.Ruleset, error)) error {
	done := b.begin(m)
	defer done()
	if err := b.fault(ctx, m); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	to, err := next()
	if err == nil {
		err = b.refused(to)
	}
	if err != nil {
		return err
	}
	if b.onWrite != nil {
		b.onWrite(b.enforced, to)
	}
	if f := to.Fingerprint(); f != b.kept || len(b.drift) > 0 {
		b.writes++
		b.kept = f
	}
	b.told, b.enforced, b.drift = to, to, nil
	if b.lose {
		b.lose = false
		return fmt.Errorf("the answer was lost: %w", context.DeadlineExceeded)
	}
	return nil
}

// begin notes a writing call and finds fault with a second one beside it.
func (b *FakeBackend) begin(m Method) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, m)
	if b.writing != "" {
		b.abuse = append(b.abuse, fmt.Sprintf("%s while %s was under way", m, b.writing))
	}
	if b.closed {
		b.abuse = append(b.abuse, string(m)+" after close")
	}
	b.writing = m
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.writing = ""
	}
}

// refused applies the rules of RefuseNIC, RefuseGroup and RefuseWhen, and
// those of a well-formed ruleset.
func (b *FakeBackend) refused(to core.Ruleset) error {
	if err := wellFormed(to); err != nil {
		b.abuse = append(b.abuse, err.Error())
		return err
	}
	o := &core.ObjectError{}
	for k, err := range b.nics {
		if n, ok := to.NICs[k]; ok && !n.Equal(b.enforced.NICs[k]) {
			o.NICs, o.Err = append(o.NICs, k), err
		}
	}
	for name, err := range b.groups {
		g, ok := to.Groups[name]
		s, member := to.Sets[name]
		if ok && !slices.Equal(g.Entries, b.enforced.Groups[name].Entries) || member && !slices.Equal(s.Members, b.enforced.Sets[name].Members) {
			o.Groups, o.Err = append(o.Groups, name), err
		}
	}
	switch {
	case o.Err != nil && b.anonymous:
		return o.Err
	case o.Err != nil:
		return o
	case b.refuse != nil:
		return b.refuse(b.enforced, to)
	}
	return nil
}

// wellFormed checks what every ruleset promises.
func wellFormed(r core.Ruleset) error {
	devices := map[string]core.NICKey{}
	for k, n := range r.NICs {
		if n.Key != k {
			return fmt.Errorf("nic %s has the key %s: %w", k, n.Key, core.ErrInvalid)
		}
		for _, g := range n.Groups {
			if _, ok := r.Groups[g]; !ok {
				return fmt.Errorf("nic %s refers to group %s, which is not in the ruleset: %w", k, g, core.ErrInvalid)
			}
		}
		for _, d := range n.Devices {
			if other, twice := devices[d]; twice {
				return fmt.Errorf("nics %s and %s have one device %s: %w", k, other, d, core.ErrInvalid)
			}
			devices[d] = k
		}
	}
	for name, g := range r.Groups {
		for _, e := range g.Entries {
			if _, ok := r.Sets[e.Peer.Group]; e.Peer.Group != "" && !ok {
				return fmt.Errorf("group %s refers to set %s, which is not in the ruleset: %w", name, e.Peer.Group, core.ErrInvalid)
			}
		}
	}
	return nil
}

// Observe compares what is held with what was last told.
func (b *FakeBackend) Observe(ctx context.Context) (core.Observation, error) {
	if err := b.read(ctx, Observe); err != nil {
		return core.Observation{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return core.Observation{Fingerprint: b.kept, Drift: slices.Clone(b.drift)}, nil
}

// Counters gives what SetCounters set.
func (b *FakeBackend) Counters(ctx context.Context) ([]core.Counter, error) {
	if err := b.read(ctx, Counters); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.counters), nil
}

// Flows gives the flows that are tracked.
func (b *FakeBackend) Flows(ctx context.Context) ([]core.Flow, error) {
	if err := b.read(ctx, Flows); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.flows), nil
}

// RevokeFlows marks flows.
func (b *FakeBackend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (int, error) {
	defer b.begin(RevokeFlows)()
	if err := b.fault(ctx, RevokeFlows); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := 0
	mark := func(list []core.Flow, revoked bool) {
		for _, f := range list {
			if i := slices.Index(b.flows, f); i >= 0 && f.Revoked != revoked {
				b.flows[i].Revoked = revoked
				changed++
			}
		}
	}
	mark(revoke, true)
	mark(restore, false)
	return changed, nil
}

// Events streams what Emit and Tamper send.
func (b *FakeBackend) Events(ctx context.Context) (<-chan core.Event, error) {
	if err := b.read(ctx, Events); err != nil {
		return nil, err
	}
	ch := make(chan core.Event, 16)
	b.mu.Lock()
	b.events = append(b.events, ch)
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if i := slices.Index(b.events, ch); i >= 0 {
			b.events = slices.Delete(b.events, i, i+1)
			close(ch)
		}
	})
	return ch, nil
}

// Teardown forgets everything.
func (b *FakeBackend) Teardown(ctx context.Context) error {
	defer b.begin(Teardown)()
	if err := b.fault(ctx, Teardown); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told, b.enforced, b.kept, b.drift = core.Ruleset{}, core.Ruleset{}, core.Fingerprint{}, nil
	return nil
}

// Close ends the event streams. What is enforced stays.
func (b *FakeBackend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, Close)
	b.closed = true
	for _, ch := range b.events {
		close(ch)
	}
	b.events = nil
	return nil
}

func (b *FakeBackend) read(ctx context.Context, m Method) error {
	b.mu.Lock()
	b.calls = append(b.calls, m)
	b.mu.Unlock()
	return b.fault(ctx, m)
}

// ErrRefused is what a fake kernel says when no other error was asked for.
var ErrRefused = errors.New("refused by the fake kernel")

// Ruleset is what is enforced now.
func (b *FakeBackend) Ruleset() core.Ruleset {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.enforced
	return core.Ruleset{Options: r.Options, Groups: maps.Clone(r.Groups), Sets: maps.Clone(r.Sets), NICs: maps.Clone(r.NICs)}
}

// Fingerprint is the one kept at the point.
func (b *FakeBackend) Fingerprint() core.Fingerprint {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept
}

// Writes counts the Syncs and Applies that changed anything.
func (b *FakeBackend) Writes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

// Calls lists the calls so far.
func (b *FakeBackend) Calls() []Method {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// Count is how often a method was called.
func (b *FakeBackend) Count(m Method) int {
	n := 0
	for _, c := range b.Calls() {
		if c == m {
			n++
		}
	}
	return n
}

// Abuse lists what callers did that the interface forbids.
func (b *FakeBackend) Abuse() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.abuse)
}
