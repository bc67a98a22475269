package main

import (
	"context"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/hypervisors/xenserver/hook"
)

// hook takes the place of xenopsd's own per-VIF script.
func (env environment) hook(ctx context.Context) int {
	c, err := env.config()
	if err != nil {
		env.log.Error("the config cannot be read; VIFs come up as the kernel holds them: closed", "error", err)
		c = nil
	}
	h := hook.Hook{Log: env.log, Links: hook.Kernel{}, Programmer: unreachable{err}}
	if c != nil {
		h.Settings, h.Programmer = c.Hypervisor.Settings, socket{c}
	}
	return h.Run(ctx, env.args[1:], env.stderr)
}

// unreachable programs nothing, because of an error.
type unreachable struct{ err error }

func (u unreachable) Program(context.Context, core.Instance) (bool, error) { return false, u.err }

// socket has the agent program a VM.
type socket struct{ c *config.Loaded }

// Program does not wait for an agent that is not there: the VM would wait with
// it.
func (s socket) Program(ctx context.Context, in core.Instance) (bool, error) {
	client, err := api.Dial(ctx, api.ClientConfig{Path: s.c.Socket.Path, Wait: time.Millisecond})
	if err != nil {
		return false, err
	}
	defer client.Close()
	r, err := client.Program(ctx, api.NewProgramRequest(in))
	if err != nil {
		return false, err
	}
	for _, n := range r.NICs {
		if n.State != engine.Enforced {
			return false, nil
		}
	}
	return len(r.NICs) > 0, nil
}
