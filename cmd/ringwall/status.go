package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/cmd/internal/version"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what is wanted, what is enforced, and why they differ",
		Long: `Show what is wanted and what is enforced, per enforcement point and NIC, and why they
differ where they do. "get nics" lists every NIC.`,
		Example: `  ringwall status
  ringwall status -o json | jq '.nics[] | select(.state != "enforced")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				st, err := s.Status(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				return a.print(st, func(w io.Writer) error { return a.printStatus(w, st) })
			})
		},
	}
}

func (a *app) printStatus(w io.Writer, st api.Status) error {
	host := st.Host
	if st.Cluster != "" {
		host += ", cluster " + st.Cluster
	}
	fmt.Fprintf(w, "Host        %s\n", host)
	fmt.Fprintf(w, "Ringwall    %s, %s\n", st.Version.Version, st.Version.Mode)
	hypervisor := st.Hypervisor
	if ad := st.Adapter; ad != nil {
		hypervisor += ", " + plural(ad.VMs, "VM")
		switch {
		case ad.Reason != "":
			hypervisor += "; " + a.paint(red, ad.Reason)
		case !ad.Ready:
			hypervisor += "; " + a.paint(yellow, "has not answered yet")
		}
	}
	fmt.Fprintf(w, "Hypervisor  %s\n", hypervisor)
	fmt.Fprintf(w, "Desired     %s, %s\n", plural(st.Groups, "group"), plural(st.VMs, "VM"))
	fmt.Fprintf(w, "NICs        %s\n", nicCounts(st.NICs))
	fmt.Fprintln(w)
	t := a.table("POINT", "BACKEND", "STATE", "WANTED", "ENFORCED", "WHY").coloured("STATE")
	for _, p := range st.Points {
		state, why := "in sync", p.Reason
		if p.WatchError != "" {
			why = strings.TrimPrefix(why+"; cannot be read back: "+p.WatchError, "; ")
		}
		if !p.InSync {
			state = "out of sync"
			if !p.Retry.IsZero() {
				why += "; next try at " + p.Retry.Format(time.TimeOnly)
			}
		}
		t.row(pointName(p.Name), p.Backend, state, p.Wanted.Short(), p.Enforced.Short(), why)
	}
	if err := t.write(w); err != nil {
		return err
	}
	open := slices.DeleteFunc(slices.Clone(st.NICs), func(n engine.NICStatus) bool { return n.State == engine.Enforced })
	if len(open) > 0 {
		fmt.Fprintln(w)
		if err := a.nicStates(open).write(w); err != nil {
			return err
		}
	}
	if len(st.Problems) > 0 {
		fmt.Fprintln(w, "\nProblems:")
		for _, p := range st.Problems {
			fmt.Fprintln(w, "  "+a.paint(red, p))
		}
	}
	return nil
}

// pointName: the point without a name is this host.
func pointName(s string) string {
	if s == "" {
		return "host"
	}
	return s
}

// nicCounts is "4 enforced, 1 pending".
func nicCounts(nics []engine.NICStatus) string {
	n := map[engine.State]int{}
	for _, nic := range nics {
		n[nic.State]++
	}
	if len(n) == 0 {
		return "none"
	}
	var parts []string
	for _, s := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
	}
	return strings.Join(parts, ", ")
}

func (a *app) countersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "counters",
		Short: "Show packets and bytes per NIC, direction and reason",
		Long: `Show packets and bytes per NIC, direction and reason: what passed and why, what was
dropped and why. A closed port has no NIC; it is shown by its device.`,
		Example: `  ringwall counters
  ringwall counters -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				counters, err := s.Counters(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				return a.print(counters, func(w io.Writer) error {
					a.none(len(counters), "counters")
					t := a.table("VM", "NIC", "DEVICE", "DIRECTION", "REASON", "PACKETS", "BYTES")
					for _, c := range counters {
						_, mac, _ := strings.Cut(c.NIC, "/")
						t.row(c.VM, mac, c.Device, c.Direction, c.Reason, c.Packets, c.Bytes)
					}
					return t.write(w)
				})
			})
		},
	}
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read back what the kernel enforces and compare it",
		Long: `Read back what is enforced, object by object, and compare it with what should be.
Nothing is changed, by --standalone neither; an agent that runs repairs differences by
itself and logs them.

Exit code 3 when there are differences, 0 when there are none.`,
		Example: `  ringwall verify`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				points, err := s.Verify(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				if err := a.print(points, func(w io.Writer) error { return a.printVerification(w, points) }); err != nil {
					return err
				}
				for _, p := range points {
					if !verified(p) {
						return errDifference
					}
				}
				return nil
			})
		},
	}
}

func verified(p api.Verification) bool { return len(p.Differences) == 0 && p.Wanted == p.Enforced }

func (a *app) printVerification(w io.Writer, points []api.Verification) error {
	for _, p := range points {
		switch {
		case verified(p):
			fmt.Fprintf(w, "%s: %s, ruleset %s\n", pointName(p.Point), a.paint(green, "as it should be"), p.Enforced.Short())
			continue
		case p.Wanted != p.Enforced:
			fmt.Fprintf(w, "%s: %s %s, should be %s\n", pointName(p.Point), a.paint(red, "holds ruleset"), p.Enforced.Short(), p.Wanted.Short())
		default:
			fmt.Fprintf(w, "%s: %s\n", pointName(p.Point), a.paint(red, "differs from ruleset "+p.Enforced.Short()))
		}
		if len(p.Differences) == 0 {
			continue
		}
		t := a.table("OBJECT", "DIFFERENCE", "NIC")
		for _, d := range p.Differences {
			t.row(d.Object, d.Difference, d.NIC)
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check this host, and say how to mend it",
		Long: `Check what Ringwall needs of this host, the backend and the hypervisor. Each finding comes
with what was seen and the command that mends it. Nothing is changed.

Exit code 3 when a check fails, 0 when none does; warnings do not count.`,
		Example: `  ringwall doctor
  ringwall doctor --standalone             # before the agent is started`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				checks, err := s.Doctor(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				if err := a.print(checks, func(w io.Writer) error { return a.printChecks(w, checks) }); err != nil {
					return err
				}
				for _, c := range checks {
					if c.Status == "error" {
						return errDifference
					}
				}
				return nil
			})
		},
	}
}

func (a *app) printChecks(w io.Writer, checks []api.Check) error {
	t := a.table("STATUS", "PART", "CHECK", "SUMMARY").coloured("STATUS")
	for _, c := range checks {
		t.row(c.Status, c.Part, c.Name, c.Summary)
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, c := range checks {
		if c.Status == "ok" || c.Evidence == "" && c.Fix == "" {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", a.paint(stateColour(c.Status), c.Name), c.Summary)
		for _, part := range [][2]string{{"  seen: ", c.Evidence}, {"  fix:  ", c.Fix}} {
			if part[1] != "" {
				fmt.Fprintln(w, part[0]+strings.ReplaceAll(strings.TrimSpace(part[1]), "\n", "\n        "))
			}
		}
	}
	return nil
}

func (a *app) versionCommand() *cobra.Command {
	var client bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this command and of the agent",
		Example: `  ringwall version
  ringwall version --client                # do not ask the agent`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Client string       `json:"client"`
				Agent  *api.Version `json:"agent,omitempty"`
			}{Client: version.String()}
			if !client {
				err := a.service(cmd.Context(), func(s api.Service) error {
					v, err := s.Version(cmd.Context(), api.Empty{})
					out.Agent = &v
					return err
				})
				if err != nil {
					return err
				}
			}
			return a.print(out, func(w io.Writer) error {
				fmt.Fprintf(w, "ringwall   %s\n", out.Client)
				if out.Agent != nil {
					fmt.Fprintf(w, "%-10s %s, API version %s\n", out.Agent.Mode, out.Agent.Version, out.Agent.API)
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&client, "client", false, "show this command's version only")
	return c
}

func (a *app) pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "Show the plugins of the agent",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List plugins with their state",
		Long: `List the plugins that the agent runs: which binary, whether its checksum is pinned, and
how often it was restarted.`,
		Example: `  ringwall plugin list`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				plugins, err := s.Plugins(cmd.Context(), api.Empty{})
				if err != nil {
					return err
				}
				return a.print(plugins, func(w io.Writer) error {
					a.none(len(plugins), "plugins")
					t := a.table("PLUGIN", "SERVES", "VERSION", "STATE", "PID", "RESTARTS", "PINNED", "PATH", "LAST ERROR").coloured("STATE")
					for _, p := range plugins {
						serves := strings.Trim(p.Backend+","+p.Adapter, ",")
						t.row(p.Name, serves, p.Version, p.Phase, p.PID, p.Restarts, p.Pinned, p.Path, p.LastError)
					}
					return t.write(w)
				})
			})
		},
	})
	return c
}
