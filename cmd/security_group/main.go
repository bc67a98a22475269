// Security_group takes the place of CloudStack's security_group.py on KVM
// hosts: the agent calls it with the same arguments and reads the same answers.
// It asks ringwalld, or does the work itself where config says mode:
// standalone. See docs/cloudstack/kvm.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ringwall/ringwall/cmd/internal/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, environment{
		name: filepath.Base(os.Args[0]), args: os.Args[1:], environ: os.Environ(),
		stdout: os.Stdout, stderr: os.Stderr, registry: registry.BuiltIn(),
	})
	stop()
	os.Exit(code)
}
