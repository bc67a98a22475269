// Vmops takes the place of CloudStack's vmops plugin in a XenServer or XCP-ng
// host's dom0: XAPI runs it with the same argument and reads the same answers.
// What is not about security groups it hands on to the stock plugin, which
// stays beside it as vmops.stock.
//
// Started as setup-vif-rules it is the command that puts a VIF under its policy
// before its first packet. vmops install, uninstall and status put both in
// place and away again. See docs/cloudstack/xenserver.md.
package main

import (
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ringwall/ringwall/cmd/internal/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := environment{args: os.Args, environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr, registry: registry.BuiltIn(),
		log: logger(), exec: syscall.Exec}
	code := env.run(ctx)
	stop()
	os.Exit(code)
}

// run chooses what this is started as. XAPI's argument is XML, so that words
// are for people.
func (env environment) run(ctx context.Context) int {
	if filepath.Base(env.args[0]) == hookName {
		return env.hook(ctx)
	}
	if len(env.args) > 1 && !strings.HasPrefix(strings.TrimSpace(env.args[1]), "<") {
		return env.operate(env.args[1:])
	}
	return env.plugin(ctx)
}

// logger writes to the system's log: standard output is XAPI's, and standard
// error goes nowhere.
func logger() *slog.Logger {
	var w io.Writer = os.Stderr
	if s, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "ringwall-vmops"); err == nil {
		w = s
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{} // syslog has its own
		}
		return a
	}}))
}
