// Ringwalld is the agent of a host: it keeps the kernel's rules as groups and
// VMs want them, and answers ringwall on a unix socket. What is enforced stays
// when it stops.
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
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	code := run(ctx, process{
		args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr,
		reload: reload, registry: registry.BuiltIn(),
	})
	stop()
	os.Exit(code)
}
