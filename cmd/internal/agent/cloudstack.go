package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/source/cloudstack"
	"github.com/ringwall/ringwall/core/source/cloudstack/stock"
	"github.com/ringwall/ringwall/core/state"
)

// withCloudStack puts CloudStack's source on an engine that is to be made.
func (a *Agent) withCloudStack(o engine.Options) engine.Options {
	if !a.config.CloudStack.Enabled {
		return o
	}
	o.Derive = cloudstack.Derive
	o.Gone = func(tx *state.Tx, vms []state.VM) error { return a.cloudstack.Gone(tx, vms) }
	if o.Adapter != nil {
		o.Adapter = cloudstack.SystemVMs(o.Adapter)
	}
	return o
}

// openCloudStack makes the source, once there is an engine.
func (a *Agent) openCloudStack() {
	c := a.config.CloudStack
	if !c.Enabled {
		return
	}
	// The iptables driver's own chains may have the stock script's names.
	var there cloudstack.Stock
	if a.config.Backend.Driver != "iptables" {
		there = stock.Host{}
	}
	a.cloudstack = cloudstack.New(cloudstack.Options{
		Engine:   a.engine,
		Stock:    there,
		Settings: cloudstack.Settings{AllowBeforeRules: c.BeforeRules == config.BeforeAllow, Files: c.Files},
		Logger:   a.log,
	})
}

// CloudStack answers a call of CloudStack's agent.
func (a *Agent) CloudStack(ctx context.Context, c cloudstack.Call) (cloudstack.Answer, error) {
	if a.cloudstack == nil {
		return cloudstack.Answer{}, fmt.Errorf("CloudStack's calls are not answered here; set cloudstack.enabled: true in config: %w", core.ErrUnsupported)
	}
	switch {
	case c.Command == cloudstack.CanBridgeFirewall:
		if err := a.canEnforce(ctx); err != nil {
			return cloudstack.Answer{}, err
		}
		a.startStandalone()
	case c.Command == cloudstack.RuleLogs, c.Command == cloudstack.CleanupRules, c.Command == cloudstack.VerifyRules,
		c.Command == cloudstack.Adopt, c.Command == cloudstack.Release:
		if err := a.ready(ctx); err != nil {
			return cloudstack.Answer{}, err
		}
	default:
		a.startStandalone()
	}
	return a.cloudstack.Call(ctx, c)
}

func (a *Agent) startStandalone() {
	if a.o.Standalone {
		a.Start()
	}
}

// foreignRules is the check that finds other rules about VM ports: while VMs are
// adopted, those of the stock script.
const foreignRules = "vm-port-rules"

// canEnforce asks the backend whether it ever can, here. What may pass by
// itself is no hindrance, and the hypervisor is not asked: CloudStack's agent
// asks once, at its start.
func (a *Agent) canEnforce(ctx context.Context) error {
	a.mu.Lock()
	b := a.backend.value
	a.mu.Unlock()
	checks, err := b.Preflight(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range checks {
		if c.Status == core.StatusError && !(a.cloudstack.Adopting() && c.Name == foreignRules) {
			errs = append(errs, fmt.Errorf("%s: %s (%s); %s: %w", c.Name, c.Summary, c.Evidence, c.Fix, core.ErrUnsupported))
		}
	}
	return errors.Join(errs...)
}

// bootState is how long the boot waits for a state that somebody holds.
const bootState = 5 * time.Second

// bootOptions are the options to close a host with: in CloudStack mode calls
// have named bridges, which are in the state.
func bootOptions(ctx context.Context, c *config.Loaded, log *slog.Logger) core.Options {
	o := c.Options()
	if !c.CloudStack.Enabled {
		return o
	}
	s, err := state.Open(ctx, state.Options{Dir: c.State, Wait: bootState})
	if err != nil {
		log.Error("bridges that CloudStack has named are not known, and stay open until the agent runs", "error", err)
		return o
	}
	defer s.Close()
	return cloudstack.Derive(o, s.Snapshot())
}

// scriptChecks says whether CloudStack's agent finds Ringwall where it looks for
// its script: an upgrade of its package may put the script back.
func scriptChecks(c config.CloudStack) []core.Check {
	if !c.Enabled {
		return nil
	}
	if to, err := os.Readlink(c.Script); err != nil || to != c.Command {
		return []core.Check{{Name: "cloudstack-script", Status: core.StatusError, Summary: "CloudStack's agent does not call Ringwall",
			Evidence: fmt.Sprintf("%s is no link to %s", c.Script, c.Command), Fix: "ringwall install cloudstack"}}
	}
	return []core.Check{{Name: "cloudstack-script", Summary: "CloudStack's agent calls Ringwall", Evidence: c.Script}}
}
