package plugin

import (
	"context"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// Adapter gives the plugin's adapter driver, and starts the plugin if need
// be. A plugin that serves none is core.ErrUnsupported.
func (p *Plugin) Adapter(ctx context.Context) (core.AdapterDriver, error) {
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	s, err := p.current()
	if err != nil {
		return nil, err
	}
	if s.serves.Adapter == nil {
		return nil, fmt.Errorf("plugin %s serves no adapter, only backend %s: %w", p.cfg.Name, s.serves.Backend.Name, core.ErrUnsupported)
	}
	return adapterDriver{p, *s.serves.Adapter}, nil
}

type adapterDriver struct {
	p    *Plugin
	info core.Info
}

func (d adapterDriver) Info() core.Info { return d.info }

func (d adapterDriver) Open(ctx context.Context, settings core.Settings) (core.HypervisorAdapter, error) {
	a := &adapter{p: d.p, opened: opened[core.HypervisorAdapter]{p: d.p, open: func(ctx context.Context, c *rpc.Client) (core.HypervisorAdapter, error) {
		return c.OpenAdapter(ctx, settings)
	}}}
	if _, err := a.get(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// adapter outlives processes: it opens the driver again in the next one.
type adapter struct {
	opened[core.HypervisorAdapter]
	p *Plugin
}

func (a *adapter) get(ctx context.Context) (core.HypervisorAdapter, error) {
	c, _, err := a.opened.get(ctx)
	return c, err
}

func (a *adapter) Info() core.Info { return a.latest().Info() }

func (a *adapter) Preflight(ctx context.Context) ([]core.Check, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Preflight(ctx)
}

func (a *adapter) List(ctx context.Context) ([]core.Instance, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.List(ctx)
}

// Watch goes on after a restart, with a VMResync first.
func (a *adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	return follow(ctx, a.p, func(ctx context.Context) (<-chan core.VMEvent, error) {
		c, err := a.get(ctx)
		if err != nil {
			return nil, err
		}
		return c.Watch(ctx)
	}, core.VMEvent{Kind: core.VMResync})
}
