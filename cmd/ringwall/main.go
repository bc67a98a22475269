// Ringwall applies security groups to the VMs of this host and shows what is
// enforced. It asks the agent, ringwalld, or does the work itself with
// --standalone.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ringwall/ringwall/cmd/internal/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, environment{
		args:     os.Args[1:],
		environ:  os.Environ(),
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		colour:   wantsColour(os.Stdout, os.Environ()),
		registry: registry.BuiltIn(),
		connect:  connect,
	})
	stop()
	os.Exit(code)
}
