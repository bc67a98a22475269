package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

// agent speaks to ringwalld's socket.
type agent struct{ socket string }

// Program implements hook.Programmer. It does not wait for an agent that is not
// there: the VM would wait with it.
func (a agent) Program(ctx context.Context, in core.Instance) (hook.Outcome, error) {
	client, err := api.Dial(ctx, api.ClientConfig{Path: a.socket, Wait: -1})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	r, err := client.Program(ctx, api.NewProgramRequest(in))
	if err != nil {
		return 0, fmt.Errorf("ringwalld at %s: %w", a.socket, err)
	}
	return outcome(r.NICs)
}

// outcome is a VM's, of those of its NICs.
func outcome(nics []engine.Programmed) (hook.Outcome, error) {
	out := hook.NoPolicy
	var errs []error
	for _, n := range nics {
		switch n.Outcome {
		case engine.InForce:
			out = hook.Enforced
		case engine.Failed:
			errs = append(errs, fmt.Errorf("nic %s is %s: %s", n.NIC.MAC, n.State, n.Reason))
		}
	}
	return out, errors.Join(errs...)
}
