package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

// libvirtHook is what the two commands about libvirt's hook are told.
type libvirtHook struct {
	installer hook.Installer
	version   string // of libvirt; empty = ask it
	onFailure string
	timeout   time.Duration
}

func (l *libvirtHook) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.installer.Dir, "dir", hook.DefaultDir, "libvirt's `folder` of hooks")
	f.BoolVar(&l.installer.DryRun, "dry-run", false, "tell what would be done, and do nothing")
}

func (a *app) installLibvirtHookCommand() *cobra.Command {
	var l libvirtHook
	c := &cobra.Command{
		Use:   "libvirt-hook",
		Short: "Have libvirt ask the agent before a VM runs",
		Long: `Have libvirt ask the agent before a VM runs: its policy is in force before its first
packet. Where libvirt is 6.5 or newer the hook is a file of its own beside others; else
it takes the place of the one hook there can be, and runs the one that was there with
the same input, output and exit status.

What the hook must know is taken from config (the socket, hypervisor.settings) and kept
beside it; on-failure and timeout stay as they were unless they are given. Installing
again changes only what has changed.`,
		Example: `  ringwall install libvirt-hook --dry-run
  ringwall install libvirt-hook
  ringwall install libvirt-hook --on-failure refuse    # no policy in force, no start
  ringwall install libvirt-hook --libvirt-version 9.0.0  # libvirt does not run yet`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, config, err := a.libvirtHook(cmd, l)
			if err != nil {
				return err
			}
			r, err := l.installer.Install(version, config)
			return errors.Join(a.printHookReport(l.installer, r, err), err)
		},
	}
	l.flags(c)
	f := c.Flags()
	f.StringVar(&l.installer.Binary, "binary", hook.DefaultBinary, "`path` of the hook's program")
	f.StringVar(&l.version, "libvirt-version", "", "`version` of libvirt (default: ask it)")
	f.StringVar(&l.onFailure, "on-failure", string(hook.Closed), "a VM whose policy cannot be put in force: `closed` (it starts with closed ports) or refuse (it does not start)")
	f.DurationVar(&l.timeout, "timeout", hook.DefaultConfig().Timeout, "how long a VM waits for the agent")
	return c
}

func (a *app) uninstallLibvirtHookCommand() *cobra.Command {
	var l libvirtHook
	c := &cobra.Command{
		Use:     "libvirt-hook",
		Short:   "Take the hook out of libvirt and put back what was there",
		Example: "  ringwall uninstall libvirt-hook",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			r, err := l.installer.Uninstall()
			return errors.Join(a.printHookReport(l.installer, r, err), err)
		},
	}
	l.flags(c)
	return c
}

// libvirtHook finds out what the installer needs.
func (a *app) libvirtHook(cmd *cobra.Command, l libvirtHook) (kvm.Version, hook.Config, error) {
	none := hook.Config{}
	loaded, err := a.loadConfig("")
	if err != nil {
		return 0, none, err
	}
	if name := loaded.Hypervisor.Adapter; name != kvm.Name {
		return 0, none, fmt.Errorf("hypervisor.adapter is %s on this host, and the hook is libvirt's: choose kvm there first: %w", name, core.ErrInvalid)
	}
	c, err := l.installer.Config()
	if err != nil {
		fmt.Fprintf(a.stderr, "ringwall: the config that the hook has is not used: %v\n", err)
	}
	c.Socket = loaded.Socket.Path
	if c.CloudStackNames, err = kvm.SystemVMsByName(loaded.Hypervisor.Settings); err != nil {
		return 0, none, err
	}
	if cmd.Flags().Changed("on-failure") {
		c.OnFailure = hook.OnFailure(l.onFailure)
	}
	if cmd.Flags().Changed("timeout") {
		c.Timeout = l.timeout
	}
	if err := c.Validate(); err != nil {
		return 0, none, err
	}
	v, err := libvirtVersion(cmd.Context(), l.version, loaded.Hypervisor.Settings)
	return v, c, err
}

// libvirtVersion is the one that was given, or that of the daemon.
func libvirtVersion(ctx context.Context, given string, s core.Settings) (kvm.Version, error) {
	if given == "" {
		v, err := kvm.LibvirtVersion(ctx, s)
		if err != nil {
			err = errors.Join(err, errors.New("where libvirt does not run yet, say its version with --libvirt-version"))
		}
		return v, err
	}
	v, err := kvm.ParseVersion(given)
	if err != nil {
		err = &usageError{fmt.Errorf("--libvirt-version: %w", err)}
	}
	return v, err
}

func (a *app) printHookReport(i hook.Installer, r hook.Report, err error) error {
	if err != nil && len(r.Changes) == 0 {
		return nil
	}
	type report struct {
		hook.Report
		DryRun bool `json:"dry_run"`
	}
	return a.print(report{r, i.DryRun}, func(w io.Writer) error {
		would := ""
		if i.DryRun {
			would = "(not done) "
		}
		for _, c := range r.Changes {
			fmt.Fprintln(w, would+c)
		}
		switch {
		case err != nil:
		case len(r.Changes) == 0:
			fmt.Fprintln(w, "nothing to do")
		case r.RestartLibvirt:
			fmt.Fprintln(w, "libvirt looks for hooks when it starts: restart it once (systemctl restart libvirtd, or virtqemud; VMs run on)")
		}
		return nil
	})
}
