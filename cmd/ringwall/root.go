package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/cmd/internal/version"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
)

// Exit codes.
const (
	exitOK         = 0
	exitFailure    = 1 // anything but the other two
	exitInput      = 2 // wrong flags, manifest or config; nothing was changed
	exitDifference = 3 // diff, verify or doctor has found something
)

// environment is all that a run touches of the world, so that tests can give
// another.
type environment struct {
	args    []string
	environ []string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	colour  bool
	// registry has the built-in drivers and adapters.
	registry agent.Registry
	hostname string        // to look up in config; empty = this machine's
	timing   engine.Timing // of a standalone engine; zero = defaults
	// connect gives what answers: the agent, or the same in process.
	connect func(context.Context, *app) (api.Service, func(), error)
}

// app is one run of the command.
type app struct {
	environment
	output     string // -o
	configPath string
	socket     string
	standalone bool
}

// errDifference ends a run with exitDifference and no message: what was found
// is on standard output.
var errDifference = errors.New("differences found")

// run is the command; it returns the exit code.
func run(ctx context.Context, env environment) int {
	a := &app{environment: env}
	root := a.root()
	root.SetArgs(env.args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	if code == exitFailure || code == exitInput {
		for line := range strings.SplitSeq(describe(err), "\n") {
			fmt.Fprintln(env.stderr, "ringwall: "+line)
		}
	}
	return code
}

func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errDifference):
		return exitDifference
	case errors.As(err, &usage), errors.Is(err, core.ErrInvalid):
		return exitInput
	}
	return exitFailure
}

// describe is err for people: the kind that it ends on is in the exit code.
func describe(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+core.ErrInvalid.Error())
}

// usageError is a wrong command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

const rootLong = `Ringwall enforces security groups on the traffic of this host's VMs.

A manifest says which groups and VMs there should be; "ringwall apply" makes it
so. Commands ask the agent, ringwalld, over its socket, and wait up to 30 seconds
for it. With --standalone (or mode: standalone in config) they do the work in
process; that is refused while an agent runs.

Exit codes: 0 done; 1 failed; 2 wrong input, nothing was changed; 3 diff, verify
or doctor has found something.`

const rootExample = `  # Enforce what a manifest says, and look at the result
  ringwall apply -f web-tier.yaml
  ringwall status

  # Why can web1 not reach the database?
  ringwall explain --from web1 --to db1 --proto tcp --dport 5432

  # What would a changed manifest do?
  ringwall diff -f web-tier.yaml`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "ringwall",
		Short:         "Security groups for the VMs of this host",
		Long:          rootLong,
		Example:       rootExample,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(outputs, a.output) {
				return usage("-o %s: use %s", a.output, strings.Join(outputs, ", "))
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "table", "`form` of the output: "+strings.Join(outputs, ", "))
	f.StringVar(&a.configPath, "config", "", "config `file` (default "+config.DefaultPath+", or $"+config.EnvConfig+")")
	f.StringVar(&a.socket, "socket", "", "`path` of the agent's socket (default from config)")
	f.BoolVar(&a.standalone, "standalone", false, "do the work in process, without an agent")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddGroup(&cobra.Group{ID: "change", Title: "Change:"}, &cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "agent", Title: "Agent:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("change", a.applyCommand(), a.deleteCommand())
	add("look", a.getCommand(), a.diffCommand(), a.explainCommand(), a.statusCommand(), a.countersCommand())
	add("agent", a.doctorCommand(), a.verifyCommand(), a.pluginCommand(), a.configCommand(), a.installCommand(), a.uninstallCommand(), a.versionCommand())
	root.SetHelpCommandGroupID("agent")
	root.SetCompletionCommandGroupID("agent")
	return root
}

// noArguments turns cobra's "unknown command" into a usage error with what was
// probably meant.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("%q is not a command of %s", args[0], cmd.CommandPath())
	if !cmd.HasSubCommands() {
		msg = fmt.Sprintf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
	}
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		msg += "; did you mean " + strings.Join(s, " or ") + "?"
	}
	return usage("%s; see %s --help", msg, cmd.CommandPath())
}

// service runs fn with what answers.
func (a *app) service(ctx context.Context, fn func(api.Service) error) error {
	s, release, err := a.connect(ctx, a)
	if err != nil {
		return err
	}
	defer release()
	return fn(s)
}

// loadConfig reads this host's config, or that of another host.
func (a *app) loadConfig(host string) (*config.Loaded, error) {
	if host == "" {
		host = a.hostname
	}
	flags := config.Flags()
	if a.socket != "" {
		if err := flags.Set("socket", a.socket); err != nil {
			return nil, err
		}
	}
	return config.Load(config.Source{Path: a.configFile(), Host: host, Environ: a.environ, Flags: flags, Known: a.registry.Known()})
}

// configFile is the file that was asked for, empty for the default.
func (a *app) configFile() string {
	if a.configPath != "" {
		return a.configPath
	}
	for _, e := range a.environ {
		if path, ok := strings.CutPrefix(e, config.EnvConfig+"="); ok {
			return path
		}
	}
	return ""
}
