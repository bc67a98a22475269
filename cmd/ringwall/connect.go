package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
)

// connect gives the agent, or the same in process where that is asked for.
func connect(ctx context.Context, a *app) (api.Service, func(), error) {
	path := a.socket
	if path == "" || a.standalone {
		c, err := a.loadConfig("")
		if err != nil {
			return nil, nil, errors.Join(err, errors.New("mend the config, or name the agent's socket with --socket"))
		}
		if a.standalone || c.Mode == config.ModeStandalone {
			local, err := agent.Open(ctx, agent.Options{
				Config: c, Registry: a.registry, Time: a.timing, Standalone: true, Wait: lockWait(c.Mode),
				Log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			})
			switch {
			case errors.Is(err, core.ErrConflict) && c.Mode == config.ModeAgent:
				return nil, nil, errors.Join(err, errors.New("leave out --standalone, or stop the agent first"))
			case err != nil:
				return nil, nil, err
			}
			return local, func() { local.Close() }, nil
		}
		path = c.Socket.Path
	}
	client, err := api.Dial(ctx, api.ClientConfig{Path: path, Waiting: func(path string, wait time.Duration) {
		fmt.Fprintf(a.stderr, "ringwall: waiting up to %s for ringwalld at %s\n", wait, path)
	}})
	if err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}

// lockWait is how long a standalone command waits for the state: where all
// commands are standalone another one may hold it for a moment, where there is
// an agent it is the agent.
func lockWait(m config.Mode) time.Duration {
	if m == config.ModeStandalone {
		return api.DefaultWait
	}
	return 2 * time.Second
}
