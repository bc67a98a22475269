package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
)

// Config is the config that runs.
func (a *Agent) Config(context.Context, api.Empty) (api.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return describe(a.config, nil), nil
}

func describe(c *config.Loaded, restart []string) api.Config {
	return api.Config{Host: c.Host, Cluster: c.Cluster, Files: c.Files, Values: c.Values(), Origins: c.Origins, Restart: restart}
}

// Reload reads the config anew and goes over to it. An invalid one changes
// nothing. Another backend takes the ruleset over before the former lets go.
func (a *Agent) Reload(ctx context.Context, _ api.Empty) (api.Config, error) {
	if a.o.Load == nil || a.o.Standalone {
		return api.Config{}, fmt.Errorf("a standalone command reads its config each time; there is nothing to reload: %w", core.ErrUnsupported)
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	next, err := a.o.Load()
	if err != nil {
		return api.Config{}, fmt.Errorf("the config that runs stays: %w", err)
	}
	a.mu.Lock()
	old := a.config
	a.mu.Unlock()
	if old.Backend.Driver != next.Backend.Driver {
		if err := a.swap(ctx, next); err != nil {
			return api.Config{}, err
		}
	}
	if o := next.Options(); !o.Equal(old.Options()) {
		// Stored or not, the engine goes on with what it took; an error without
		// it says that it took nothing.
		if res, err := a.engine.SetPolicy(ctx, o); err != nil && !res.Stored {
			return api.Config{}, fmt.Errorf("the options that run stay: %w", err)
		} else if err != nil {
			a.log.Error("the new options are not enforced everywhere yet", "error", err)
		}
	}
	if a.o.Level != nil {
		a.o.Level.Set(Level(next.Log.Level))
	}
	restart := needRestart(old, next)
	a.mu.Lock()
	a.config = next
	a.mu.Unlock()
	if err := a.remember(ctx); err != nil {
		a.log.Warn("which driver writes here was not kept", "error", err)
	}
	a.log.Info("config reloaded", "files", next.Files, "restart_needed", restart)
	return describe(next, restart), nil
}

// swap opens next's backend and puts it in place of the one that runs, whose
// driver is another: of one driver, the former would take down what the new one
// has just made.
func (a *Agent) swap(ctx context.Context, next *config.Loaded) error {
	c, err := opener{a.o.Registry, next, a.log}.backend(ctx)
	if err != nil {
		return fmt.Errorf("the backend that runs stays: %w", err)
	}
	info := c.value.Info()
	err = core.CheckFeatures(info.Name, info.Features, core.Ruleset{Options: next.Options()})
	if err == nil {
		err = a.engine.SwapBackend(ctx, "", c.value)
	}
	switch {
	case errors.Is(err, engine.ErrLeftBehind):
		a.log.Error("the former backend is not taken down whole", "error", err)
	case err != nil:
		return errors.Join(fmt.Errorf("the backend that runs stays: %w", err), c.close())
	}
	a.mu.Lock()
	former := a.backend
	a.backend = c
	a.mu.Unlock()
	if former.plugin != nil { // its backend was closed by the engine
		former.plugin.Stop()
	}
	return nil
}

// needRestart names the keys that changed and that a running agent cannot
// follow.
func needRestart(old, next *config.Loaded) (out []string) {
	pins := func(run config.Run, name string) bool {
		return run == config.RunPlugin && !reflect.DeepEqual(old.Plugins[name], next.Plugins[name])
	}
	sameDriver := old.Backend.Driver == next.Backend.Driver
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"state", old.State != next.State},
		{"mode", old.Mode != next.Mode},
		{"socket", old.Socket != next.Socket},
		{"log.format", old.Log.Format != next.Log.Format},
		{"hypervisor", !reflect.DeepEqual(old.Hypervisor, next.Hypervisor)},
		{"backend", sameDriver && !reflect.DeepEqual(old.Backend, next.Backend)},
		{"cloudstack", old.CloudStack != next.CloudStack},
		{"plugins." + next.Hypervisor.Adapter, pins(next.Hypervisor.Run, next.Hypervisor.Adapter)},
		{"plugins." + next.Backend.Driver, sameDriver && pins(next.Backend.Run, next.Backend.Driver)},
	} {
		if k.changed {
			out = append(out, k.key)
		}
	}
	return out
}

// Level is the slog level of a name in config.
func Level(name string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return l
}
