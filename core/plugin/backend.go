package plugin

import (
	"context"
	"fmt"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// Backend gives the plugin's backend driver, and starts the plugin if need
// be. A plugin that serves none is core.ErrUnsupported.
func (p *Plugin) Backend(ctx context.Context) (core.BackendDriver, error) {
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	s, err := p.current()
	if err != nil {
		return nil, err
	}
	if s.serves.Backend == nil {
		return nil, fmt.Errorf("plugin %s serves no backend, only adapter %s: %w", p.cfg.Name, s.serves.Adapter.Name, core.ErrUnsupported)
	}
	return backendDriver{p, *s.serves.Backend}, nil
}

type backendDriver struct {
	p    *Plugin
	info core.Info
}

func (d backendDriver) Info() core.Info { return d.info }

func (d backendDriver) Open(ctx context.Context, settings core.Settings) (core.SecurityGroupBackend, error) {
	b := &backend{p: d.p, opened: opened[core.SecurityGroupBackend]{p: d.p, open: func(ctx context.Context, c *rpc.Client) (core.SecurityGroupBackend, error) {
		return c.OpenBackend(ctx, settings)
	}}}
	if _, err := b.get(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.resync = false // nothing was lost: this is the first
	b.mu.Unlock()
	return rpc.Combine(b, flowBackend{b}, eventBackend{b}), nil
}

// backend outlives processes: it opens the driver again in the next one.
type backend struct {
	opened[core.SecurityGroupBackend]
	p *Plugin

	mu     sync.Mutex
	resync bool // a process died since the last Sync
	seen   int  // the session that resync speaks of
}

// get is opened.get that notices restarts.
func (b *backend) get(ctx context.Context) (core.SecurityGroupBackend, error) {
	current, session, err := b.opened.get(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if session != b.seen {
		b.seen, b.resync = session, true
	}
	return current, nil
}

func (b *backend) Info() core.Info { return b.latest().Info() }

func (b *backend) Preflight(ctx context.Context) ([]core.Check, error) {
	c, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Preflight(ctx)
}

func (b *backend) Sync(ctx context.Context, r core.Ruleset) error {
	c, err := b.get(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	session := b.seen
	b.mu.Unlock()
	if err := c.Sync(ctx, r); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen == session {
		b.resync = false
	}
	return nil
}

// Apply asks for a Sync first after a restart: a change may have been under
// way when the process died.
func (b *backend) Apply(ctx context.Context, d core.Delta) error {
	c, err := b.get(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	resync := b.resync
	b.mu.Unlock()
	if resync {
		return fmt.Errorf("plugin %s was restarted; the whole ruleset has to be synced: %w", b.p.cfg.Name, core.ErrConflict)
	}
	return c.Apply(ctx, d)
}

func (b *backend) Observe(ctx context.Context) (core.Observation, error) {
	c, err := b.get(ctx)
	if err != nil {
		return core.Observation{}, err
	}
	return c.Observe(ctx)
}

func (b *backend) Counters(ctx context.Context) ([]core.Counter, error) {
	c, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Counters(ctx)
}

func (b *backend) Teardown(ctx context.Context) error {
	c, err := b.get(ctx)
	if err != nil {
		return err
	}
	return c.Teardown(ctx)
}

type flowBackend struct{ *backend }

func (b flowBackend) get(ctx context.Context) (core.FlowBackend, error) {
	c, err := b.backend.get(ctx)
	if err != nil {
		return nil, err
	}
	f, ok := c.(core.FlowBackend)
	if !ok {
		return nil, lost(b.backend, core.FeatureFlows)
	}
	return f, nil
}

func (b flowBackend) Flows(ctx context.Context) ([]core.Flow, error) {
	f, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	return f.Flows(ctx)
}

func (b flowBackend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (int, error) {
	f, err := b.get(ctx)
	if err != nil {
		return 0, err
	}
	return f.RevokeFlows(ctx, revoke, restore)
}

type eventBackend struct{ *backend }

// Events goes on after a restart, with an EventLost first.
func (b eventBackend) Events(ctx context.Context) (<-chan core.Event, error) {
	return follow(ctx, b.p, func(ctx context.Context) (<-chan core.Event, error) {
		c, err := b.get(ctx)
		if err != nil {
			return nil, err
		}
		e, ok := c.(core.EventBackend)
		if !ok {
			return nil, lost(b.backend, core.FeatureEvents)
		}
		return e.Events(ctx)
	}, core.Event{Kind: core.EventLost, Object: "plugin " + b.p.cfg.Name + " was restarted"})
}

func lost(b *backend, f core.Feature) error {
	return fmt.Errorf("plugin %s came back without feature %s; restart the agent if that is meant: %w", b.p.cfg.Name, f, core.ErrUnsupported)
}
