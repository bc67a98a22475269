package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/state"
)

// source owns what the agent itself keeps in the state.
const source = "agent"

// driverKey is where the driver is kept that wrote to this host last.
const driverKey = "backend"

// writer is a driver that has written to this host.
type writer struct {
	Driver string     `json:"driver"`
	Run    config.Run `json:"run"`
}

// retryPause is between attempts to take a predecessor down.
const retryPause = 10 * time.Second

// succeed takes down what another driver has left here, once ours is in force:
// config may have changed while nothing ran.
func (a *Agent) succeed(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.Settle(ctx)
		if err == nil {
			err = a.takeDownFormer(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Debug("what another driver may have left stays for now", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

func (a *Agent) takeDownFormer(ctx context.Context) error {
	a.reloading.Lock() // or a swap would be at it, too
	defer a.reloading.Unlock()
	a.mu.Lock()
	c := *a.config
	a.mu.Unlock()
	var former writer
	if text, ok := a.store.Snapshot().Values[state.ValueKey{Source: source, Key: driverKey}]; ok {
		if err := json.Unmarshal(text, &former); err != nil {
			return fmt.Errorf("which driver wrote here last: %w", err)
		}
	}
	if former.Driver != "" && former.Driver != c.Backend.Driver {
		c.Backend = config.Backend{Driver: former.Driver, Run: former.Run}
		if err := a.takeDown(ctx, &c); err != nil {
			a.log.Error("what the former driver has left stays, and goes on dropping; name it in config again and reload, to take it down", "driver", former.Driver, "error", err)
			return err
		}
		a.log.Info("what the former driver had left was taken down", "driver", former.Driver)
	}
	return a.remember(ctx)
}

// takeDown opens the backend of c and makes it remove all that it ever made.
func (a *Agent) takeDown(ctx context.Context, c *config.Loaded) error {
	if _, ok := a.o.Registry.Backends[c.Backend.Driver]; !ok && c.Backend.Run != config.RunPlugin {
		return fmt.Errorf("driver %s is not built in", c.Backend.Driver)
	}
	b, err := opener{a.o.Registry, c, a.log}.backend(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	return b.value.Teardown(ctx)
}

// remember keeps the driver that writes now.
func (a *Agent) remember(ctx context.Context) error {
	a.mu.Lock()
	now := writer{a.config.Backend.Driver, a.config.Backend.Run}
	a.mu.Unlock()
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if string(a.store.Snapshot().Values[state.ValueKey{Source: source, Key: driverKey}]) == string(text) {
		return nil
	}
	_, err = a.engine.Change(ctx, func(tx *state.Tx) error { return tx.PutValue(source, driverKey, text) })
	return err
}
