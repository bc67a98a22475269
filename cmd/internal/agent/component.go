package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/plugin"
)

// component is an opened backend or adapter and, where it runs in one, its
// plugin.
type component[T io.Closer] struct {
	name   string
	value  T
	plugin *plugin.Plugin // nil in process
	opened bool
}

func (c component[T]) close() error {
	var err error
	if c.opened {
		err = c.value.Close()
	}
	if c.plugin != nil {
		c.plugin.Stop()
	}
	return err
}

// opener opens what a config chooses.
type opener struct {
	registry Registry
	config   *config.Loaded
	log      *slog.Logger
}

func (o opener) backend(ctx context.Context) (c component[core.SecurityGroupBackend], err error) {
	b := o.config.Backend
	c.name = b.Driver
	var driver core.BackendDriver
	if b.Run == config.RunPlugin {
		if c.plugin, err = o.plugin(b.Driver); err == nil {
			driver, err = c.plugin.Backend(ctx)
		}
	} else {
		driver = o.registry.Backends[b.Driver]
	}
	if err == nil {
		c.value, err = driver.Open(ctx, b.Settings)
	}
	if err != nil {
		return c, errors.Join(fmt.Errorf("backend %s: %w", b.Driver, err), c.close())
	}
	c.opened = true
	return c, nil
}

// adapter gives none for config.NoAdapter.
func (o opener) adapter(ctx context.Context) (c component[core.HypervisorAdapter], err error) {
	h := o.config.Hypervisor
	c.name = h.Adapter
	if h.Adapter == config.NoAdapter {
		return c, nil
	}
	var driver core.AdapterDriver
	if h.Run == config.RunPlugin {
		if c.plugin, err = o.plugin(h.Adapter); err == nil {
			driver, err = c.plugin.Adapter(ctx)
		}
	} else {
		driver = o.registry.Adapters[h.Adapter]
	}
	if err == nil {
		c.value, err = driver.Open(ctx, h.Settings)
	}
	if err != nil {
		return c, errors.Join(fmt.Errorf("hypervisor adapter %s: %w", h.Adapter, err), c.close())
	}
	c.opened = true
	return c, nil
}

// plugin starts nothing yet. Plugins' sockets are beside the agent's.
func (o opener) plugin(name string) (*plugin.Plugin, error) {
	p := o.config.Plugins[name]
	return plugin.New(plugin.Config{
		Name: name, Path: p.Binary(name), SHA256: p.SHA256, AllowUnpinned: p.AllowUnpinned,
		RunDir: filepath.Join(filepath.Dir(o.config.Socket.Path), "plugins"), Logger: o.log,
	})
}
