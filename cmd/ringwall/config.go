package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check, show or reload config",
		Long: `Check, show or reload config. One file serves a whole fleet; each host finds its own part
by its name. docs/configuration.md has every key.`,
		Example: `  ringwall config check                    # every cluster in the file
  ringwall config show --origin            # this host, and where each value is from
  ringwall config reload                   # an invalid file changes nothing`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.configCheckCommand(), a.configShowCommand(), a.configReloadCommand())
	return c
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check every cluster and host entry in the config file",
		Long: `Check every cluster and host entry in the config file and in conf.d, without the
environment and flags of this machine, and say which driver, adapter, plugin binary
and checksum each class of hosts would use. Needs no agent.

Exit code 2 when there is a mistake.`,
		Example: `  ringwall config check
  ringwall config check --config ./fleet.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			classes, err := config.Check(a.configFile(), a.registry.Known())
			if err != nil {
				return err
			}
			if err := a.print(classes, func(w io.Writer) error { return a.printClasses(w, classes) }); err != nil {
				return err
			}
			bad := 0
			for _, c := range classes {
				bad += len(c.Errors)
			}
			if bad > 0 {
				return usage("%s in config", plural(bad, "mistake"))
			}
			return nil
		},
	}
}

func (a *app) printClasses(w io.Writer, classes []config.Class) error {
	t := a.table("CLUSTER", "HOSTS", "BACKEND", "HYPERVISOR", "PLUGIN", "CHECKSUM", "STATUS").coloured("STATUS")
	for _, c := range classes {
		hosts := c.Host
		if hosts == "" {
			hosts = "(others)"
		}
		state := "ok"
		if len(c.Warnings) > 0 {
			state = "warning"
		}
		if len(c.Errors) > 0 {
			state = "error"
		}
		path, sum := pluginCells(c.Backend, c.Hypervisor)
		t.row(c.Cluster, hosts, component(c.Backend), component(c.Hypervisor), path, sum, state)
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, c := range classes {
		where := c.Cluster
		if c.Host != "" {
			where += " " + c.Host
		}
		if where == "" {
			where = "defaults"
		}
		for _, e := range c.Errors {
			fmt.Fprintf(w, "%s %s: %s\n", a.paint(red, "error"), where, e)
		}
		for _, e := range c.Warnings {
			fmt.Fprintf(w, "%s %s: %s\n", a.paint(yellow, "warning"), where, e)
		}
	}
	return nil
}

func component(c config.Component) string {
	switch c.Run {
	case "":
		return c.Name
	case config.RunPlugin:
		return c.Name + " (plugin)"
	}
	return c.Name + " (in process)"
}

func pluginCells(components ...config.Component) (path, sum string) {
	for _, c := range components {
		if c.Plugin == nil {
			continue
		}
		if path != "" {
			path, sum = path+",", sum+","
		}
		path += c.Plugin.Path
		sum += c.Plugin.Status
		if c.Plugin.SHA256 != "" {
			sum += " " + c.Plugin.SHA256[:12]
		}
	}
	return path, sum
}

func (a *app) configShowCommand() *cobra.Command {
	var origin, running bool
	var host string
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the config of this host",
		Long: `Show the config of this host as the files, the environment and flags make it, or, with
--running, as the agent has it.`,
		Example: `  ringwall config show
  ringwall config show --origin
  ringwall config show --host kvm-east-07  # of another host in the file
  ringwall config show --running           # what the agent has`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if running && host != "" {
				return usage("--running is about this host's agent; leave out --host")
			}
			if running {
				return a.service(cmd.Context(), func(s api.Service) error {
					c, err := s.Config(cmd.Context(), api.Empty{})
					if err != nil {
						return err
					}
					return a.printConfig(c, origin)
				})
			}
			l, err := a.loadConfig(host)
			if err != nil {
				return err
			}
			return a.printConfig(api.Config{Host: l.Host, Cluster: l.Cluster, Files: l.Files, Values: l.Values(), Origins: l.Origins}, origin)
		},
	}
	c.Flags().BoolVar(&origin, "origin", false, "show where each value comes from")
	c.Flags().BoolVar(&running, "running", false, "ask the agent")
	c.Flags().StringVar(&host, "host", "", "show the config of the host with this `name`")
	return c
}

func (a *app) printConfig(c api.Config, origin bool) error {
	if origin {
		return a.print(c.Origins, func(w io.Writer) error {
			t := a.table("KEY", "VALUE", "FROM")
			for _, o := range c.Origins {
				t.row(o.Key, o.Value, o.From)
			}
			return t.write(w)
		})
	}
	if a.output == "table" { // a config is a file, and looks best as one
		fmt.Fprintf(a.stdout, "# host %s", c.Host)
		if c.Cluster != "" {
			fmt.Fprintf(a.stdout, ", cluster %s", c.Cluster)
		}
		fmt.Fprintf(a.stdout, "; files: %s\n", words(c.Files))
		a.output = "yaml"
	}
	return a.print(c.Values, nil)
}

func (a *app) configReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the agent read its config anew",
		Long: `Make the agent read its config anew, as SIGHUP does. An invalid config is an error here,
and the agent goes on with the one it has. Keys that count only after a restart of the
agent are named.`,
		Example: `  ringwall config check && ringwall config reload`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				c, err := s.Reload(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				return a.print(c, func(w io.Writer) error {
					fmt.Fprintln(w, "reloaded")
					if len(c.Restart) > 0 {
						fmt.Fprintf(w, "these count after a restart of ringwalld: %s\n", words(c.Restart))
					}
					return nil
				})
			})
		},
	}
}
