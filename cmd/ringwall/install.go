package main

import "github.com/spf13/cobra"

// installCommand is the parent of what puts Ringwall in front of other software.
func (a *app) installCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install",
		Short: "Put Ringwall where other software calls it",
		Long: `Put Ringwall where other software calls it. Nothing of that software is lost: what has
to make room is kept, and "ringwall uninstall" puts it back.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.installCloudStackCommand(), a.installLibvirtHookCommand())
	return c
}

// uninstallCommand is its opposite.
func (a *app) uninstallCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take Ringwall out again",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.uninstallCloudStackCommand(), a.uninstallLibvirtHookCommand())
	return c
}
