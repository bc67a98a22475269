package coretest

import (
	"context"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

func (b *FakeBackend) set(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// RefuseNIC makes every ruleset fail that holds another policy for the NIC
// than the one enforced, with an ObjectError around err, such as ErrRefused;
// nil takes that back.
func (b *FakeBackend) RefuseNIC(k core.NICKey, err error) {
	b.set(func() { b.nics = with(b.nics, k, err) })
}

// RefuseGroup is RefuseNIC for a group's rules and members.
func (b *FakeBackend) RefuseGroup(name string, err error) {
	b.set(func() { b.groups = with(b.groups, name, err) })
}

// RefuseWhen asks fn about every change; nil takes that back.
func (b *FakeBackend) RefuseWhen(fn func(from, to core.Ruleset) error) {
	b.set(func() { b.refuse = fn })
}

// NameObjects says whether refusals are ObjectErrors (the default) or say
// nothing of whom they concern.
func (b *FakeBackend) NameObjects(yes bool) { b.set(func() { b.anonymous = !yes }) }

// FailNext makes the next call of a method fail; call it again for more.
func (b *FakeBackend) FailNext(m Method, err error) {
	b.set(func() {
		if b.next == nil {
			b.next = map[Method][]error{}
		}
		b.next[m] = append(b.next[m], err)
	})
}

// Fail makes every call of a method fail until it is given nil.
func (b *FakeBackend) Fail(m Method, err error) {
	b.set(func() { b.always = with(b.always, m, err) })
}

// LoseAnswer makes the next Sync or Apply succeed and report a timeout.
func (b *FakeBackend) LoseAnswer() { b.set(func() { b.lose = true }) }

// OnWrite calls fn, under the backend's lock, before a change is taken over.
func (b *FakeBackend) OnWrite(fn func(from, to core.Ruleset)) { b.set(func() { b.onWrite = fn }) }

// Hang makes calls of a method wait until their context ends, or until the
// function that it gives is called.
func (b *FakeBackend) Hang(m Method) (release func()) {
	ch := make(chan struct{})
	b.set(func() {
		if b.hang == nil {
			b.hang = map[Method]chan struct{}{}
		}
		b.hang[m] = ch
	})
	return func() {
		b.set(func() {
			if b.hang[m] == ch {
				delete(b.hang, m)
				close(ch)
			}
		})
	}
}

func (b *FakeBackend) fault(ctx context.Context, m Method) error {
	b.mu.Lock()
	hang := b.hang[m]
	b.mu.Unlock()
	if hang != nil {
		select {
		case <-ctx.Done():
		case <-hang:
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.next[m]; len(q) > 0 {
		b.next[m] = q[1:]
		return q[0]
	}
	return b.always[m]
}

func with[K comparable](m map[K]error, k K, err error) map[K]error {
	m = maps.Clone(m)
	if err == nil {
		delete(m, k)
		return m
	}
	if m == nil {
		m = map[K]error{}
	}
	m[k] = err
	return m
}

// Tamper changes what is enforced behind the backend's back, and tells those
// who listen to Events. Observe reports the drift; fn may empty the ruleset.
func (b *FakeBackend) Tamper(d core.Drift, fn func(*core.Ruleset)) {
	b.mu.Lock()
	r := b.enforced
	r.Groups, r.Sets, r.NICs = maps.Clone(r.Groups), maps.Clone(r.Sets), maps.Clone(r.NICs)
	fn(&r)
	b.enforced = r
	b.drift = append(b.drift, d)
	b.mu.Unlock()
	b.Emit(core.Event{Kind: core.EventDrift, Object: d.Object})
}

// Wipe is a host that rebooted: nothing is there, not even a fingerprint.
func (b *FakeBackend) Wipe() {
	b.set(func() { b.told, b.enforced, b.kept, b.drift = core.Ruleset{}, core.Ruleset{}, core.Fingerprint{}, nil })
}

// Emit sends an event to those who listen and keep up.
func (b *FakeBackend) Emit(e core.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ch := range b.events {
		select {
		case ch <- e:
		default:
		}
	}
}

// AddFlow makes a flow tracked.
func (b *FakeBackend) AddFlow(flows ...core.Flow) {
	b.set(func() { b.flows = append(b.flows, flows...) })
}

// Tracked lists the flows as they are marked now.
func (b *FakeBackend) Tracked() (flows []core.Flow) {
	b.set(func() { flows = slices.Clone(b.flows) })
	return flows
}

// SetCounters sets what Counters gives.
func (b *FakeBackend) SetCounters(cs ...core.Counter) { b.set(func() { b.counters = cs }) }
