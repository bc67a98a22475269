// Command demo shows Ringwall's main job on real packets, in network namespaces
// that it makes and removes: a host with a bridge, an uplink and six VMs, the
// agent, and docs/examples/web-tier.yaml.
//
// Run it by `make demo`. It needs root, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside tells the second start of the program from the first.
const inside = "DEMO_INSIDE"

func main() { os.Exit(run()) }

func run() (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	play := isolate
	if os.Getenv(inside) != "" {
		play = demonstrate
	}
	err := play(ctx)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// isolate starts the program again in mount and network namespaces of its own:
// names under /run/netns, which the netns adapter reads, then vanish with it,
// however it ends.
func isolate(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("making network namespaces needs root: sudo make demo")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// privateRun hides the machine's /run/netns behind an empty one.
func privateRun() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, "")
}
