package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/source/manifest"
)

func (a *app) getCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "get",
		Short: "List groups, VMs, NICs, sets or rules",
		Long: `List what there is. Groups and VMs are desired state: with -o yaml they are a manifest,
which "ringwall apply" takes again. NICs are on this host, with their state. Sets and
rules are what this host's backend enforces: rules taken apart by family, protocol
and peer, and the members of the groups that rules refer to.

A NIC is enforced; pending: its VM does not run here; closed: it passes nothing; stale: it
is held to an older policy; conflict: two sources or two NICs claim the same;
closed-port: a port that looks like a VM's and no NIC has; or unmanaged. The column
WHY says what is between it and being enforced.`,
		Example: `  ringwall get groups
  ringwall get nics
  ringwall get groups web -o yaml
  ringwall get all -o yaml > backup.yaml   # groups and VMs, as a manifest`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	c.PersistentFlags().BoolVar(&all, "all", false, "show the groups that sources make up for single VMs, too")
	req := func() api.ObjectsRequest { return api.ObjectsRequest{All: all} }
	kind := func(name, alias, short string, run func(context.Context, api.Service, []string) error) {
		c.AddCommand(&cobra.Command{
			Use: name + " [NAME...]", Aliases: []string{alias}, Short: short,
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.service(cmd.Context(), func(s api.Service) error { return run(cmd.Context(), s, args) })
			},
		})
	}
	kind("groups", "group", "List groups with their rules", func(ctx context.Context, s api.Service, names []string) error {
		return a.getObjects(ctx, s, req(), names, true, false)
	})
	kind("vms", "vm", "List VMs that somebody has put", func(ctx context.Context, s api.Service, names []string) error {
		return a.getObjects(ctx, s, req(), names, false, true)
	})
	c.AddCommand(&cobra.Command{
		Use: "all", Short: "List groups and VMs; with -o yaml one manifest", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.service(cmd.Context(), func(s api.Service) error {
				return a.getObjects(cmd.Context(), s, req(), nil, true, true)
			})
		},
	})
	kind("nics", "nic", "List NICs on this host with their state", func(ctx context.Context, s api.Service, names []string) error {
		nics, err := s.NICs(ctx, req())
		if err != nil {
			return err
		}
		nics, err = named(nics, names, "NIC", func(n api.NIC, name string) bool {
			return name == n.VM || name == string(n.NIC.VM) || name == n.NIC.String() || name == n.NIC.MAC.String() || slices.Contains(n.Devices, name)
		})
		if err != nil {
			return err
		}
		return a.print(nics, func(w io.Writer) error {
			a.none(len(nics), "NICs")
			t := a.table("VM", "MAC", "DEVICE", "BRIDGE", "ADDRESSES", "GROUPS", "STATE", "WHY").coloured("STATE")
			for _, n := range nics {
				t.row(n.VM, macOf(n.NICStatus), words(n.Devices), n.Bridge, words(n.Addresses), words(n.Groups), n.State, n.Reason)
			}
			return t.write(w)
		})
	})
	kind("sets", "set", "List the members of groups that rules refer to", func(ctx context.Context, s api.Service, names []string) error {
		sets, err := s.Sets(ctx, req())
		if err != nil {
			return err
		}
		if sets, err = named(sets, names, "set", func(s api.Set, name string) bool { return s.Group == name }); err != nil {
			return err
		}
		return a.print(sets, func(w io.Writer) error {
			a.none(len(sets), "sets")
			t := a.table("GROUP", "SIZE", "MEMBERS")
			for _, s := range sets {
				t.row(s.Group, len(s.Members), words(s.Members))
			}
			return t.write(w)
		})
	})
	kind("rules", "rule", "List rules as the backend enforces them, by group", func(ctx context.Context, s api.Service, names []string) error {
		rules, err := s.Rules(ctx, req())
		if err != nil {
			return err
		}
		if rules, err = named(rules, names, "group", func(r api.Rule, name string) bool { return r.Group == name }); err != nil {
			return err
		}
		return a.print(rules, func(w io.Writer) error {
			a.none(len(rules), "rules")
			t := a.table("GROUP", "DIRECTION", "FAMILY", "PROTOCOL", "MATCH", "PEER")
			for _, r := range rules {
				t.row(r.Group, r.Direction, r.Family, r.Protocol, r.Match, r.Peer)
			}
			return t.write(w)
		})
	})
	return c
}

// named keeps the items that names ask for; one that nothing answers to is an
// error. No names keep all.
func named[T any](items []T, names []string, noun string, is func(T, string) bool) ([]T, error) {
	if len(names) == 0 {
		return append([]T{}, items...), nil // [] in JSON, never null
	}
	for _, name := range names {
		if !slices.ContainsFunc(items, func(v T) bool { return is(v, name) }) {
			return nil, fmt.Errorf("there is no %s %s: %w", noun, name, core.ErrNotFound)
		}
	}
	return slices.DeleteFunc(slices.Clone(items), func(v T) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return is(v, name) })
	}), nil
}

func (a *app) getObjects(ctx context.Context, s api.Service, req api.ObjectsRequest, names []string, groups, vms bool) (err error) {
	o, err := s.Objects(ctx, req)
	if err != nil {
		return err
	}
	var m manifest.Manifest
	if groups {
		if m.Groups, err = named(o.Manifest.Groups, names, "group", func(g core.Group, name string) bool { return g.Name == name }); err != nil {
			return err
		}
	}
	if vms {
		if m.VMs, err = named(o.Manifest.VMs, names, "VM", func(v core.VM, name string) bool { return v.Name == name || string(v.Key) == name }); err != nil {
			return err
		}
	}
	return a.print(m, func(w io.Writer) error {
		if groups {
			a.none(len(m.Groups), "groups")
		}
		if vms {
			a.none(len(m.VMs), "VMs")
		}
		t := a.table("GROUP", "RULES", "NICS", "SOURCE")
		for _, g := range m.Groups {
			t.row(g.Name, len(g.Rules), users(o.Manifest.VMs, g.Name), o.GroupSources[g.Name])
		}
		if err := t.write(w); err != nil {
			return err
		}
		if len(m.Groups) > 0 && len(m.VMs) > 0 {
			fmt.Fprintln(w)
		}
		t = a.table("VM", "KIND", "NICS", "ADDRESSES", "GROUPS", "SOURCE")
		for _, v := range m.VMs {
			var addresses, attached []string
			for _, n := range v.NICs {
				for _, x := range n.Addresses {
					addresses = append(addresses, x.String())
				}
				for _, g := range n.Groups {
					if !slices.Contains(attached, g) {
						attached = append(attached, g)
					}
				}
			}
			t.row(v.Name, v.Kind, len(v.NICs), words(addresses), words(attached), o.VMSources[v.Key])
		}
		return t.write(w)
	})
}

// none tells a person, not a program that reads the output, that a list is empty.
func (a *app) none(n int, noun string) {
	if n == 0 {
		fmt.Fprintf(a.stderr, "there are no %s\n", noun)
	}
}

// users counts the NICs that a group is attached to.
func users(vms []core.VM, group string) (n int) {
	for _, v := range vms {
		for _, nic := range v.NICs {
			if slices.Contains(nic.Groups, group) {
				n++
			}
		}
	}
	return n
}
