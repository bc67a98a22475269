package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

func (a *app) installCloudStackCommand() *cobra.Command {
	adopt := false
	c := &cobra.Command{
		Use:   "cloudstack",
		Short: "Have CloudStack's agent call Ringwall in place of its script",
		Long: `Have CloudStack's agent call Ringwall in place of its script. The script is kept beside,
with .stock behind its name; on Debian its package is told (dpkg-divert), elsewhere an
upgrade of the package puts it back, and "ringwall doctor" says so.

With --adopt the VMs that run keep the script's rules until CloudStack has sent theirs
to Ringwall, which it does within a minute. Without it, do this where no VM runs.`,
		Example: `  ringwall install cloudstack            # no VM runs here
  ringwall install cloudstack --adopt    # VMs run here`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.installCloudStack(cmd.Context(), adopt) },
	}
	c.Flags().BoolVar(&adopt, "adopt", false, "take running VMs over as they are")
	return c
}

func (a *app) uninstallCloudStackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cloudstack",
		Short: "Put CloudStack's script back",
		Long: `Put CloudStack's script back. Ringwall goes on holding each VM to its rules until the
script has rewritten them, which CloudStack sees to within a minute; then it lets go of
the VM, and of the bridges after the last one.`,
		Example: "  ringwall uninstall cloudstack",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.uninstallCloudStack(cmd.Context()) },
	}
}

// cloudStackConfig is the config that both commands go by.
func (a *app) cloudStackConfig() (*config.Loaded, scriptPlace, error) {
	c, err := a.loadConfig("")
	if err != nil {
		return nil, scriptPlace{}, err
	}
	if !c.CloudStack.Enabled {
		return nil, scriptPlace{}, &core.FieldError{Path: "cloudstack.enabled", Value: "false", Reason: "set it to true in " + c.Path + " and start ringwalld anew first"}
	}
	return c, scriptPlace{script: c.CloudStack.Script, command: c.CloudStack.Command, divert: findDivert(a.environ)}, nil
}

func (a *app) installCloudStack(ctx context.Context, adopt bool) error {
	_, place, err := a.cloudStackConfig()
	if err != nil {
		return err
	}
	if err := place.check(); err != nil {
		return err
	}
	err = a.service(ctx, func(s api.Service) error {
		if !adopt { // it has to be there, or every call would fail
			_, err := s.CloudStack(ctx, cloudstack.Call{Command: cloudstack.CanBridgeFirewall})
			return err
		}
		answer, err := s.CloudStack(ctx, cloudstack.Call{Command: cloudstack.Adopt})
		for vm := range strings.FieldsSeq(answer.Text) {
			fmt.Fprintf(a.stdout, "%s keeps the script's rules until CloudStack has sent its own\n", vm)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := place.install(ctx); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s is Ringwall's now; the script is kept as %s\n", place.script, place.stock())
	return nil
}

func (a *app) uninstallCloudStack(ctx context.Context) error {
	_, place, err := a.cloudStackConfig()
	if err != nil {
		return err
	}
	// First, so that no call of the agent's meets a script whose logs say that
	// all is well.
	err = a.service(ctx, func(s api.Service) error {
		_, err := s.CloudStack(ctx, cloudstack.Call{Command: cloudstack.Release})
		return err
	})
	if err != nil {
		return err
	}
	if err := place.uninstall(ctx); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s is CloudStack's again; rules stay in force until it has rewritten them\n", place.script)
	return nil
}
