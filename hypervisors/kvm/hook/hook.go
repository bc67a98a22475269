package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os/exec"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

// Programmer has a VM's policy put in force.
type Programmer interface {
	// Program returns when every NIC of the VM is held to its policy on this
	// host, or says why not. It must not end in a call to libvirt.
	Program(ctx context.Context, in core.Instance) (Outcome, error)
}

// Outcome is what became of a Program that did not fail.
type Outcome uint8

const (
	// Enforced: the policy is in force.
	Enforced Outcome = iota + 1
	// NoPolicy: nobody has said anything about this VM yet. Its ports are closed.
	NoPolicy
)

func (o Outcome) String() string {
	return [...]string{"", "enforced", "no policy"}[o]
}

// Hook is one run of the hook.
type Hook struct {
	Programmer Programmer
	Config     Config
	// Links tells where taps are plugged in when the XML does not.
	Links kvm.Links
	// Next is the hook that was there before; empty = none.
	Next string
	Log  *slog.Logger
}

// call is what libvirt asks: hooks/qemu DOMAIN OPERATION SUBOPERATION EXTRA.
// https://libvirt.org/hooks.html
type call struct{ domain, operation, phase string }

func parseCall(args []string) (c call, err error) {
	if len(args) < 3 {
		return call{}, fmt.Errorf("%d arguments; libvirt gives a domain, an operation and a phase: %w", len(args), core.ErrInvalid)
	}
	return call{args[0], args[1], args[2]}, nil
}

// guestIsAboutToRun: the taps exist, and QEMU is started next. It comes for a
// start, a restore and the incoming side of a migration alike. In prepare,
// before it, there are no taps yet; started, after it, is too late.
func (c call) guestIsAboutToRun() bool { return c.operation == "start" && c.phase == "begin" }

// Run answers libvirt: args as it gave them (without the program), the domain's
// XML on in. The result is the exit status; anything but 0 makes libvirt give
// up what it was about to do.
func (h Hook) Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c, err := parseCall(args)
	if err != nil {
		fmt.Fprintln(errOut, "ringwall:", err)
		return 1
	}
	if h.Next == "" && !c.guestIsAboutToRun() {
		return 0
	}
	xml, readErr := io.ReadAll(in)
	if h.Next != "" {
		// What the other hook says decides first: it may refuse the VM, and for
		// migrate and restore its output is the VM's new XML.
		if status := h.runNext(ctx, args, bytes.NewReader(xml), out, errOut); status != 0 {
			return status
		}
	}
	if !c.guestIsAboutToRun() {
		return 0
	}
	if readErr != nil {
		return h.failed(c, fmt.Errorf("read the domain's XML: %w", readErr), errOut)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.Config.Timeout, fmt.Errorf("no answer from the agent in %s", h.Config.Timeout))
	defer cancel()
	outcome, err := h.program(ctx, string(xml))
	if err != nil {
		return h.failed(c, err, errOut)
	}
	h.Log.Info("a VM is about to run", "domain", c.domain, "policy", outcome.String())
	return 0
}

// failed lets the VM start with closed ports, unless the config says otherwise.
func (h Hook) failed(c call, err error, errOut io.Writer) int {
	if h.Config.OnFailure == Refuse {
		h.Log.Error("a VM is refused, its policy could not be put in force", "domain", c.domain, "error", err)
		fmt.Fprintf(errOut, "ringwall: the policy of %s could not be put in force, and on_failure is refuse: %v\n", c.domain, err)
		return 1
	}
	h.Log.Error("a VM starts with closed ports, its policy could not be put in force", "domain", c.domain, "error", err)
	return 0
}

func (h Hook) program(ctx context.Context, xml string) (Outcome, error) {
	d, err := kvm.ParseDomain(xml, kvm.ParseOptions{CloudStackNames: h.Config.CloudStackNames})
	if err != nil {
		return 0, err
	}
	d.Locate(h.Links, nil)
	for _, p := range d.Problems {
		h.Log.Warn("a part of a domain cannot be used; what it concerns stays closed", "domain", d.Name, "error", p)
	}
	in := d.Instance()
	if !pluggedIn(in.VM) {
		return NoPolicy, nil // nothing of it reaches a bridge
	}
	outcome, err := h.Programmer.Program(ctx, in)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, core.ErrNotReady)
	}
	return outcome, err
}

func pluggedIn(vm core.VM) bool {
	for _, n := range vm.NICs {
		if len(n.Binding.Devices) > 0 {
			return true
		}
	}
	return false
}

// runNext gives the other hook what libvirt gave, and gives libvirt what the
// other hook gives.
func (h Hook) runNext(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	cmd := exec.CommandContext(ctx, h.Next, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errOut
	// A hook that leaves something running in the background must not hold up
	// the VM: what inherited its output would keep Wait waiting.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &exit):
		if exit.ExitCode() >= 0 {
			return exit.ExitCode()
		}
		return 1 // a signal ended it
	case errors.Is(err, fs.ErrNotExist):
		// Somebody took their hook away; ours goes on.
		h.Log.Warn("the hook that was wrapped is gone; remove our wrapper with ringwall uninstall libvirt-hook and install it again", "file", h.Next)
		return 0
	}
	fmt.Fprintf(errOut, "ringwall: run the hook that was here before, %s: %v\n", h.Next, err)
	return 1
}
