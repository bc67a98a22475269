package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/version"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
)

// Exit codes, as ringwall has them.
const (
	exitOK      = 0
	exitFailure = 1
	exitInput   = 2
)

// process is all that the agent touches of the world.
type process struct {
	args     []string
	environ  []string
	stdout   io.Writer
	stderr   io.Writer
	reload   <-chan os.Signal
	registry agent.Registry
	timing   engine.Timing // zero = defaults
	lockWait time.Duration // zero = lockWait
}

const (
	// lockWait lets a standalone command end that is at work.
	lockWait = 10 * time.Second
	// shutdownWait is for calls under way.
	shutdownWait = 10 * time.Second
)

const usageText = `Usage: ringwalld [flags]

The agent of a host: keeps the kernel's rules as groups and VMs want them, and
answers ringwall on a unix socket. SIGTERM ends it, and what is enforced stays;
SIGHUP reads the config anew, and an invalid one changes nothing.

Flags:
`

// run is the agent; it returns the exit code.
func run(ctx context.Context, p process) int {
	err := p.run(ctx)
	if err == nil {
		return exitOK
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(p.stderr, "ringwalld: "+strings.TrimSuffix(line, ": "+core.ErrInvalid.Error()))
	}
	if errors.Is(err, core.ErrInvalid) {
		return exitInput
	}
	return exitFailure
}

func (p process) run(ctx context.Context) error {
	flags := pflag.NewFlagSet("ringwalld", pflag.ContinueOnError)
	flags.SetOutput(p.stderr)
	flags.Usage = func() { fmt.Fprint(p.stderr, usageText+flags.FlagUsages()) }
	path := flags.String("config", "", "config `file` (default "+config.DefaultPath+", or $"+config.EnvConfig+")")
	showVersion := flags.Bool("version", false, "show the version")
	bootClosed := flags.Bool("boot-closed", false, "close the VM ports of managed bridges, unless rules of ours are in force, and end")
	values := config.Flags() // config's own set; see its comment
	flags.AddFlagSet(values)
	switch err := flags.Parse(p.args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return fmt.Errorf("%w; see ringwalld --help: %w", err, core.ErrInvalid)
	case flags.NArg() > 0:
		return fmt.Errorf("no arguments are taken, but got %q; see ringwalld --help: %w", flags.Arg(0), core.ErrInvalid)
	case *showVersion:
		fmt.Fprintln(p.stdout, "ringwalld "+version.String())
		return nil
	}
	if *path == "" {
		for _, e := range p.environ {
			if v, ok := strings.CutPrefix(e, config.EnvConfig+"="); ok {
				*path = v
			}
		}
	}
	load := func() (*config.Loaded, error) {
		return config.Load(config.Source{Path: *path, Environ: p.environ, Flags: values, Known: p.registry.Known()})
	}
	c, err := load()
	if err != nil {
		return err
	}
	if *bootClosed {
		log, _ := newLogger(p.stderr, c.Log)
		slog.SetDefault(log)
		closed, err := agent.BootClosed(ctx, c, p.registry, log)
		if err == nil {
			log.Info("boot", "closed", closed)
		}
		return err
	}
	if c.Mode != config.ModeAgent {
		return &core.FieldError{Path: "mode", Value: string(c.Mode), Reason: "commands do the work themselves in this mode; ringwalld is for mode: agent"}
	}
	return p.serve(ctx, c, load)
}

// serve runs the agent until ctx ends.
func (p process) serve(ctx context.Context, c *config.Loaded, load func() (*config.Loaded, error)) (err error) {
	log, level := newLogger(p.stderr, c.Log)
	slog.SetDefault(log) // drivers log there
	a, err := agent.Open(ctx, agent.Options{Config: c, Registry: p.registry, Load: load, Wait: cmp.Or(p.lockWait, lockWait), Log: log, Level: level, Time: p.timing})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	server, err := api.NewServer(ctx, api.ServerConfig{Path: c.Socket.Path, Access: api.Access{Owner: c.Socket.Owner, Group: c.Socket.Group}, Service: a, Log: log})
	if err != nil {
		return err
	}
	a.Start()
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	log.Info("ringwalld runs", "version", version.String(), "host", c.Host, "cluster", c.Cluster, "backend", c.Backend.Driver, "hypervisor", c.Hypervisor.Adapter, "bridges", c.Bridges, "socket", c.Socket.Path)
	notify := notifier(p.environ)
	notify("READY=1")
	for {
		select {
		case err := <-served:
			return fmt.Errorf("socket %s: %w", c.Socket.Path, err)
		case <-p.reload:
			notify(reloading())
			if _, err := a.Reload(ctx, api.Empty{}); err != nil {
				log.Error("the config was not reloaded", "error", err)
			}
			notify("READY=1")
		case <-ctx.Done():
			log.Info("stopping; what is enforced stays")
			notify("STOPPING=1")
			wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
			defer cancel()
			err := server.Shutdown(wait)
			<-served
			return err
		}
	}
}

func newLogger(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(agent.Level(c.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level
	}
	return slog.New(slog.NewTextHandler(w, o)), level
}
