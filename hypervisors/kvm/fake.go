package kvm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Fake is a libvirt of maps, for tests of whoever uses an adapter. Its zero
// value serves no domain.
type Fake struct {
	// CallTimeout ends a call that gets no answer, as Dialer.Timeout does. Set it
	// before use; zero: never.
	CallTimeout time.Duration

	mu       sync.Mutex
	domains  map[string]fakeDomain // by UUID
	networks map[string]string
	conns    map[*fakeConn]bool
	down     bool
	deaf     bool // says nothing of what happens
	hung     chan struct{}
}

type fakeDomain struct {
	ref DomainRef
	xml string
}

// Run starts a domain, or changes one that runs. The XML may be anything that
// libvirt never gives.
func (f *Fake) Run(uuid, name, xml string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.domains == nil {
		f.domains = map[string]fakeDomain{}
	}
	ref := DomainRef{uuid, name}
	f.domains[uuid] = fakeDomain{ref, xml}
	f.tell(ref)
}

// Stop ends a domain.
func (f *Fake) Stop(uuid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ref := f.domains[uuid].ref
	delete(f.domains, uuid)
	f.tell(ref)
}

// Touch reports an event of a domain that need not exist.
func (f *Fake) Touch(ref DomainRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell(ref)
}

// SetNetwork gives a libvirt network its bridge.
func (f *Fake) SetNetwork(name, bridge string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.networks == nil {
		f.networks = map[string]string{}
	}
	f.networks[name] = bridge
}

// SetDown ends every connection and refuses new ones, until it is up again.
func (f *Fake) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	for c := range f.conns {
		c.drop()
	}
	f.conns = nil
}

// SetDeaf loses events, as between registering and listening.
func (f *Fake) SetDeaf(deaf bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = deaf
}

// SetHung leaves every call without an answer until it is let go on. Connections
// stay open.
func (f *Fake) SetHung(hung bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case hung && f.hung == nil:
		f.hung = make(chan struct{})
	case !hung && f.hung != nil:
		close(f.hung)
		f.hung = nil
	}
}

// Connections counts those that are open.
func (f *Fake) Connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *Fake) tell(ref DomainRef) {
	if f.deaf {
		return
	}
	for c := range f.conns {
		c.push(ref)
	}
}

// Connect implements Connector.
func (f *Fake) Connect(ctx context.Context) (Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, fmt.Errorf("the fake libvirt is down: %w", core.ErrNotReady)
	}
	c := &fakeConn{fake: f, gone: make(chan struct{})}
	if f.conns == nil {
		f.conns = map[*fakeConn]bool{}
	}
	f.conns[c] = true
	return c, nil
}

type fakeConn struct {
	fake *Fake
	gone chan struct{}
	once sync.Once

	// Guarded by fake.mu. As in the real client, the queue has no bound.
	subscribed bool
	events     []DomainRef
	more       chan struct{}
}

func (c *fakeConn) drop() { c.once.Do(func() { close(c.gone) }) }

func (c *fakeConn) push(ref DomainRef) {
	if !c.subscribed {
		return
	}
	c.events = append(c.events, ref)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// enter waits while the daemon hangs, and leaves the fake locked.
func (c *fakeConn) enter(ctx context.Context) error {
	if t := c.fake.CallTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	for {
		c.fake.mu.Lock()
		hung := c.fake.hung
		select {
		case <-c.gone:
			c.fake.mu.Unlock()
			return fmt.Errorf("the fake libvirt hung up: %w", core.ErrNotReady)
		default:
		}
		if hung == nil {
			return nil
		}
		c.fake.mu.Unlock()
		select {
		case <-hung:
		case <-c.gone:
		case <-ctx.Done():
			c.Close()
			return fmt.Errorf("the fake libvirt hangs: %w: %w", ctx.Err(), core.ErrNotReady)
		}
	}
}

func (c *fakeConn) Domains(ctx context.Context) ([]DomainRef, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.fake.mu.Unlock()
	var out []DomainRef
	for _, uuid := range slices.Sorted(maps.Keys(c.fake.domains)) {
		out = append(out, c.fake.domains[uuid].ref)
	}
	return out, nil
}

func (c *fakeConn) DomainXML(ctx context.Context, d DomainRef) (string, error) {
	if err := c.enter(ctx); err != nil {
		return "", err
	}
	defer c.fake.mu.Unlock()
	have, ok := c.fake.domains[d.UUID]
	if !ok {
		return "", fmt.Errorf("domain %s: %w", d.Name, core.ErrNotFound)
	}
	return have.xml, nil
}

func (c *fakeConn) NetworkBridge(ctx context.Context, name string) (string, error) {
	if err := c.enter(ctx); err != nil {
		return "", err
	}
	defer c.fake.mu.Unlock()
	bridge, ok := c.fake.networks[name]
	if !ok {
		return "", fmt.Errorf("network %s: %w", name, core.ErrNotFound)
	}
	return bridge, nil
}

func (c *fakeConn) Version(ctx context.Context) (Version, error) {
	if err := c.enter(ctx); err != nil {
		return 0, err
	}
	defer c.fake.mu.Unlock()
	return 9_000_000, nil
}

func (c *fakeConn) Events(ctx context.Context) (<-chan DomainRef, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	c.subscribed, c.more = true, make(chan struct{}, 1)
	c.fake.mu.Unlock()
	out := make(chan DomainRef)
	go func() {
		defer close(out)
		for {
			select {
			case <-c.more:
			case <-c.gone:
				return
			case <-ctx.Done():
				return
			}
			c.fake.mu.Lock()
			events := c.events
			c.events = nil
			c.fake.mu.Unlock()
			for _, e := range events {
				select {
				case out <- e:
				case <-c.gone:
					return
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

func (c *fakeConn) Close() error {
	c.drop()
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	delete(c.fake.conns, c)
	return nil
}

// FakeLinks are interfaces of a host that is not there.
type FakeLinks map[string]Link

// Link implements Links.
func (f FakeLinks) Link(name string) (Link, error) {
	l, ok := f[name]
	if !ok {
		return Link{}, fmt.Errorf("interface %s: %w", name, core.ErrNotFound)
	}
	return l, nil
}

// Close implements Links.
func (FakeLinks) Close() error { return nil }
