package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// Exit statuses. verify_network_rules has more, which are the stock script's.
const (
	exitOK      = 0
	exitFailure = 1 // not safely programmed, or wrong values
	exitUsage   = 2
)

// environment is all that a run touches of the world.
type environment struct {
	name     string // of the program, for usage
	args     []string
	environ  []string
	stdout   io.Writer
	stderr   io.Writer
	registry agent.Registry
	hostname string        // to look up in config; empty = this machine's
	timing   engine.Timing // of a standalone engine; zero = defaults
	waits    waits         // zero = defaults
}

// waits is how long a call waits for what it needs.
type waits struct {
	agent  time.Duration // for ringwalld to answer
	start  time.Duration // the same, of can_bridge_firewall: both may be starting
	report time.Duration // the same, of get_rule_logs_for_vms, which comes again each minute
	lock   time.Duration // for the stock script to end
}

func (w waits) withDefaults() waits {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&w.agent, api.DefaultWait}, {&w.start, time.Minute}, {&w.report, 10 * time.Second}, {&w.lock, time.Minute}} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	return w
}

// run is the command; it returns the exit status. Standard error stays empty
// unless the call fails: the agent reads both as one.
func run(ctx context.Context, env environment) int {
	env.waits = env.waits.withDefaults()
	args, err := parse(env.args)
	var usageErr usageError
	switch {
	case errors.As(err, &usageErr):
		fmt.Fprintf(env.stderr, "%s\n%s: error: %s\n", usage(env.name), env.name, usageErr)
		return exitUsage
	case args.help:
		fmt.Fprintln(env.stdout, usage(env.name))
		return exitOK
	case !slices.Contains(cloudstack.Commands, cloudstack.Command(args.command)):
		fmt.Fprintf(env.stderr, "Unknown command: %s\n", oneLine(args.command))
		return exitFailure
	}
	answer, err := env.answer(ctx, args)
	if err != nil {
		fmt.Fprintln(env.stderr, "security_group: "+oneLine(err.Error()))
		return exitFailure
	}
	if answer.Text != "" || cloudstack.Command(args.command) == cloudstack.RuleLogs {
		roomFor(env.stdout, len(answer.Text)+1)
		fmt.Fprintln(env.stdout, answer.Text)
	}
	return answer.Exit
}

func (env environment) answer(ctx context.Context, args arguments) (cloudstack.Answer, error) {
	call, err := args.call()
	if err != nil {
		return cloudstack.Answer{}, err
	}
	c, err := env.config()
	if err != nil {
		return cloudstack.Answer{}, err
	}
	log := openLog(c.CloudStack.Log)
	defer log.close()
	start := time.Now()
	answer, err := env.call(ctx, c, call)
	log.call(env.args, answer, err, time.Since(start))
	return answer, err
}

func (env environment) config() (*config.Loaded, error) {
	path := ""
	for _, e := range env.environ {
		if v, ok := strings.CutPrefix(e, config.EnvConfig+"="); ok {
			path = v
		}
	}
	return config.Load(config.Source{Path: path, Host: env.hostname, Environ: env.environ, Known: env.registry.Known()})
}

func (env environment) call(ctx context.Context, c *config.Loaded, call cloudstack.Call) (a cloudstack.Answer, err error) {
	if call.Command != cloudstack.RuleLogs && call.Command != cloudstack.VerifyRules { // they change nothing
		unlock, err := lock(ctx, c.CloudStack.Lock, env.waits.lock)
		if err != nil {
			return a, err
		}
		defer unlock()
	}
	service, release, err := env.connect(ctx, c, call.Command)
	if errors.Is(err, core.ErrNotReady) && call.Command == cloudstack.CanBridgeFirewall {
		// The answer counts until the agent is started again, and "no" would
		// leave its VMs without rules for as long. Every call fails until
		// ringwalld answers, and the server tries again.
		return cloudstack.Answer{Warnings: []string{err.Error()}}, nil
	}
	if err != nil {
		return a, err
	}
	defer release()
	return service.CloudStack(ctx, call)
}

func (env environment) connect(ctx context.Context, c *config.Loaded, command cloudstack.Command) (api.Service, func(), error) {
	if c.Mode == config.ModeStandalone {
		local, err := agent.Open(ctx, agent.Options{Config: c, Registry: env.registry, Standalone: true, Wait: env.waits.agent, Time: env.timing,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, nil, err
		}
		return local, func() { _ = local.Close() }, nil
	}
	wait := env.waits.agent
	switch command {
	case cloudstack.CanBridgeFirewall:
		wait = env.waits.start
	case cloudstack.RuleLogs:
		wait = env.waits.report
	}
	client, err := api.Dial(ctx, api.ClientConfig{Path: c.Socket.Path, Wait: wait})
	if err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}

// oneLine keeps what the agent logs on one line: it joins lines without a
// space.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	if len(s) > 4000 {
		s = s[:4000] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
