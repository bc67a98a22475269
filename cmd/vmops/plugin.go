package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
)

// environment is all that a run touches of the world.
type environment struct {
	args     []string // the program's own name first
	environ  []string
	stdout   io.Writer
	stderr   io.Writer
	registry agent.Registry
	log      *slog.Logger
	exec     func(path string, argv, environ []string) error // replaces this process
	hostname string                                          // to look up in config; empty = this machine's
	wait     time.Duration                                   // for the agent; zero: api.DefaultWait
	timing   engine.Timing                                   // of a standalone engine; zero = defaults
}

// plugin answers XAPI. Its exit status is 0 whatever the answer says: XAPI reads
// the answer of no other.
func (env environment) plugin(ctx context.Context) int {
	if len(env.args) != 2 {
		fmt.Fprintf(env.stderr, "vmops: %d arguments; XAPI gives one, people use install, uninstall or status\n", len(env.args)-1)
		return 1
	}
	c, err := parseCall(env.args[1])
	if err != nil {
		env.log.Error("XAPI's call cannot be read", "error", err)
		return env.print(failure("XENAPI_PLUGIN_FAILURE", "", "InvalidCall", err.Error()))
	}
	f, ours := functions[c.function]
	if !ours {
		return env.handOver(c.function)
	}
	start := time.Now()
	calls, err := f.calls(newArguments(c.args))
	if err != nil {
		env.log.Error("a call has wrong arguments", "function", c.function, "error", err)
		return env.print(failure("XENAPI_PLUGIN_FAILURE", c.function, "InvalidArgument", err.Error()))
	}
	service, release, err := env.connect(ctx)
	if err == nil {
		defer release()
		var value string
		var warnings []string
		value, warnings, err = f.do(ctx, service, calls)
		for _, w := range warnings {
			env.log.Warn("a call is answered with a warning", "function", c.function, "vm", c.args["vmName"], "warning", w)
		}
		if err == nil {
			env.log.Info("a call is answered", "function", c.function, "vm", c.args["vmName"], "in", time.Since(start).Round(time.Millisecond))
			return env.print(success(value))
		}
	}
	env.log.Error("a call has failed", "function", c.function, "vm", c.args["vmName"], "error", err)
	if errors.Is(err, core.ErrInvalid) {
		return env.print(failure("XENAPI_PLUGIN_FAILURE", c.function, "InvalidArgument", oneLine(err)))
	}
	return env.print(success(f.failed))
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (env environment) print(answer string) int {
	if _, err := io.WriteString(env.stdout, answer); err != nil {
		env.log.Error("the answer was not taken", "error", err)
		return 1
	}
	return 0
}

// stock is the plugin that was here before.
func (env environment) stock() string {
	return filepath.Join(filepath.Dir(env.args[0]), stockName)
}

// handOver makes the stock plugin of this process: it has the same argument,
// environment, standard input and output, and XAPI gets its exit status.
func (env environment) handOver(function string) int {
	path := env.stock()
	if _, err := os.Stat(path); err != nil {
		return env.print(failure("UNKNOWN_XENAPI_PLUGIN_FUNCTION", function))
	}
	err := env.exec(path, env.args, env.environ)
	env.log.Error("the stock plugin cannot be run", "file", path, "function", function, "error", err)
	return env.print(failure("XENAPI_PLUGIN_FAILURE", function, "StockPlugin", fmt.Sprintf("%s: %v", path, err)))
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

// connect finds the agent, or makes one in process where config says so.
func (env environment) connect(ctx context.Context) (api.Service, func(), error) {
	c, err := env.config()
	if err != nil {
		return nil, nil, err
	}
	wait := env.wait
	if wait == 0 {
		wait = api.DefaultWait
	}
	if c.Mode == config.ModeStandalone {
		local, err := agent.Open(ctx, agent.Options{Config: c, Registry: env.registry, Standalone: true, Wait: wait, Time: env.timing, Log: env.log})
		if err != nil {
			return nil, nil, err
		}
		return local, func() { _ = local.Close() }, nil
	}
	client, err := api.Dial(ctx, api.ClientConfig{Path: c.Socket.Path, Wait: wait})
	if err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}
