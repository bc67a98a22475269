// Package agent puts a host's agent together from its config: state, backend,
// adapter and engine, and answers the API's verbs from them. ringwalld runs it
// behind the socket, a standalone command in process.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/source/cloudstack"
	"github.com/ringwall/ringwall/core/state"
)

// Options make an Agent.
type Options struct {
	Config   *config.Loaded
	Registry Registry
	// Load reads the config anew, for Reload. nil: there is no reloading.
	Load func() (*config.Loaded, error)
	// Standalone: one command, in process, which brings the host to what is
	// wanted before it answers.
	Standalone bool
	// Wait is how long to wait for another process to let go of the state.
	Wait  time.Duration
	Log   *slog.Logger   // nil logs nothing
	Level *slog.LevelVar // of Log, changed by Reload; nil stays
	Time  engine.Timing  // zero = defaults
}

// Agent is an api.Service over an engine. What is enforced stays when it is
// closed.
type Agent struct {
	o      Options
	log    *slog.Logger
	store  *state.Store
	engine *engine.Engine
	// cloudstack answers CloudStack's agent; nil = it is not answered.
	cloudstack *cloudstack.Source

	start   sync.Once
	stop    context.CancelFunc
	stopped chan struct{} // closed when the engine has ended
	// background is what goes on beside the engine.
	background sync.WaitGroup

	settle sync.Once // of a standalone command

	reloading sync.Mutex
	mu        sync.Mutex // of what follows
	config    *config.Loaded
	backend   component[core.SecurityGroupBackend]
	adapter   component[core.HypervisorAdapter] // value nil = none
}

var _ api.Service = (*Agent)(nil)

// Open takes the state's lock and opens backend and adapter. It changes
// nothing. ErrConflict: another process holds the state.
func Open(ctx context.Context, o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{o: o, log: o.Log, config: o.Config, stopped: make(chan struct{})}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.release())
	}
	return a, nil
}

func (a *Agent) open(ctx context.Context) (err error) {
	o, c := a.o, a.o.Config
	if a.store, err = state.Open(ctx, state.Options{Dir: c.State, Wait: o.Wait}); err != nil {
		return err
	}
	opener := opener{registry: o.Registry, config: c, log: o.Log}
	if a.backend, err = opener.backend(ctx); err != nil {
		return err
	}
	if a.adapter, err = opener.adapter(ctx); err != nil {
		return err
	}
	a.engine, err = engine.New(a.withCloudStack(engine.Options{
		State:    a.store,
		Backends: map[string]core.SecurityGroupBackend{"": a.backend.value},
		Adapter:  a.adapter.value,
		Policy:   c.Options(),
		Logger:   o.Log,
		Timing:   o.Time,
	}))
	a.openCloudStack()
	return err
}

// Start lets the engine run, until Close.
func (a *Agent) Start() {
	a.start.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		a.stop = cancel
		go func() {
			defer close(a.stopped)
			if err := a.engine.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				a.log.Error("the engine ended", "error", err)
			}
		}()
		if !a.o.Standalone {
			if a.cloudstack != nil {
				a.background.Go(func() { a.cloudstack.Run(ctx) })
			}
			a.background.Go(func() { a.succeed(ctx) })
		}
	})
}

// Settle waits until the host holds what it should, or says why it does not.
func (a *Agent) Settle(ctx context.Context) error { return a.engine.Settle(ctx) }

// ready makes sure that a standalone command's engine has settled. What hinders
// it is in the status.
func (a *Agent) ready(ctx context.Context) error {
	if !a.o.Standalone {
		return nil
	}
	a.settle.Do(func() {
		a.Start()
		if err := a.Settle(ctx); err != nil {
			a.log.Warn("the host does not hold all that it should", "error", err)
			return
		}
		if err := a.takeDownFormer(ctx); err != nil {
			a.log.Warn("what another driver may have left stays", "error", err)
		}
	})
	return ctx.Err()
}

// Close stops the engine and lets go of everything.
func (a *Agent) Close() error {
	a.start.Do(func() { close(a.stopped) }) // it never ran
	if a.stop != nil {
		a.stop()
	}
	<-a.stopped
	a.background.Wait()
	return a.release()
}

func (a *Agent) release() error {
	var errs []error
	errs = append(errs, a.adapter.close(), a.backend.close())
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}
