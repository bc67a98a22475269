package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/source/manifest"
)

func (a *app) applyCommand() *cobra.Command {
	var file string
	var prune bool
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make groups and VMs be as a manifest says",
		Long: `Make groups and VMs be as a manifest says, and return when this host enforces it.

Groups and VMs that the manifest names are created or replaced; others stay, unless
--prune takes away those that a manifest has put before and this one does not name.
A VM that does not run on this host is pending: its policy comes into force when it
starts. On a mistake in the manifest nothing is changed.`,
		Example: `  ringwall apply -f web-tier.yaml
  ringwall apply -f all.yaml --prune       # all.yaml is all there should be
  generate | ringwall apply -f -           # from standard input`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.readManifest(file)
			if err != nil {
				return err
			}
			return a.service(cmd.Context(), func(s api.Service) error {
				change, err := s.Apply(cmd.Context(), api.ApplyRequest{Manifest: text, Prune: prune})
				if err != nil {
					return err
				}
				return a.print(change, func(w io.Writer) error { return a.printChange(w, change) })
			})
		},
	}
	a.fileFlag(c, &file)
	c.Flags().BoolVar(&prune, "prune", false, "delete what manifests have put and this one does not name")
	return c
}

func (a *app) diffCommand() *cobra.Command {
	var file string
	var prune bool
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what applying a manifest would change; change nothing",
		Long: `Show what applying a manifest would change: the groups and VMs, and each rule,
member and NIC that would come into force or go. Nothing is changed.

Exit code 3 when there are differences, 0 when there are none.`,
		Example: `  ringwall diff -f web-tier.yaml
  ringwall diff -f all.yaml --prune -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.readManifest(file)
			if err != nil {
				return err
			}
			return a.service(cmd.Context(), func(s api.Service) error {
				change, err := s.Apply(cmd.Context(), api.ApplyRequest{Manifest: text, Prune: prune, DryRun: true})
				if err != nil {
					return err
				}
				if err := a.print(change, func(w io.Writer) error { return a.printDiff(w, change) }); err != nil {
					return err
				}
				if changes(change) {
					return errDifference
				}
				return nil
			})
		},
	}
	a.fileFlag(c, &file)
	c.Flags().BoolVar(&prune, "prune", false, "show what apply --prune would delete, too")
	return c
}

func (a *app) deleteCommand() *cobra.Command {
	var file string
	var ignoreMissing bool
	c := &cobra.Command{
		Use:   "delete (group|vm) NAME... | -f FILE",
		Short: "Take groups and VMs away",
		Long: `Take groups and VMs away, by name or as a manifest names them. The port of a VM that
is taken away and still runs is closed. A group that is in use cannot go.`,
		Example: `  ringwall delete vm web1 web2
  ringwall delete group web
  ringwall delete -f web-tier.yaml         # all that the manifest names`,
		ValidArgs: []string{"group", "vm"},
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case file != "" && len(args) > 0:
				return usage("give names or -f, not both; see %s --help", cmd.CommandPath())
			case file == "" && len(args) < 2:
				return usage("say what to delete, as in: %s vm web1; see %s --help", cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.DeleteRequest
			switch {
			case file != "":
				text, err := a.readManifest(file)
				if err != nil {
					return err
				}
				if req, err = namesIn(text); err != nil {
					return err
				}
			case args[0] == "group" || args[0] == "groups":
				req.Groups = args[1:]
			case args[0] == "vm" || args[0] == "vms":
				req.VMs = args[1:]
			default:
				return usage("%q is neither group nor vm; see %s --help", args[0], cmd.CommandPath())
			}
			req.IgnoreMissing = ignoreMissing
			return a.service(cmd.Context(), func(s api.Service) error {
				change, err := s.Delete(cmd.Context(), req)
				if err != nil {
					return err
				}
				return a.print(change, func(w io.Writer) error { return a.printChange(w, change) })
			})
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "manifest `file` that names them; - is standard input")
	c.Flags().BoolVar(&ignoreMissing, "ignore-missing", false, "what is not there is no error")
	_ = c.MarkFlagFilename("file", "yaml", "yml", "json")
	return c
}

func namesIn(text string) (req api.DeleteRequest, err error) {
	m, err := manifest.Parse([]byte(text))
	if err != nil {
		return req, err
	}
	for _, g := range m.Groups {
		req.Groups = append(req.Groups, g.Name)
	}
	for _, vm := range m.VMs {
		req.VMs = append(req.VMs, string(vm.Key))
	}
	return req, nil
}

// fileFlag adds -f. It is not marked as required: cobra's complaint would not
// be a usage error.
func (a *app) fileFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "file", "f", "", "manifest `file`; - is standard input")
	_ = c.MarkFlagFilename("file", "yaml", "yml", "json")
}

// readManifest reads a file and checks it here, so that a mistake needs no
// agent to be told.
func (a *app) readManifest(file string) (string, error) {
	if file == "" {
		return "", usage("name a manifest with -f FILE")
	}
	var in io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", &usageError{err}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, manifest.MaxBytes+1))
	if err != nil {
		return "", fmt.Errorf("manifest %s: %w", file, err)
	}
	if _, err := manifest.Parse(data); err != nil {
		return "", err
	}
	return string(data), nil
}

func changes(c api.Change) bool {
	for _, o := range c.Objects {
		if o.Action != api.Unchanged {
			return true
		}
	}
	return len(c.Elements) > 0
}

// printChange tells what was done, and how the NICs are that it concerns.
func (a *app) printChange(w io.Writer, c api.Change) error {
	t := a.table("KIND", "NAME", "CHANGE").coloured("CHANGE")
	for _, o := range c.Objects {
		t.row(o.Kind, o.Name, o.Action)
	}
	if err := t.write(w); err != nil || len(c.NICs) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return a.nicStates(c.NICs).write(w)
}

func (a *app) nicStates(nics []engine.NICStatus) *table {
	t := a.table("VM", "MAC", "DEVICE", "STATE", "WHY").coloured("STATE")
	for _, n := range nics {
		t.row(n.VM, macOf(n), words(n.Devices), n.State, n.Reason)
	}
	return t
}

// macOf is empty for a port that is no NIC's.
func macOf(n engine.NICStatus) string {
	if n.NIC == (core.NICKey{}) {
		return ""
	}
	return n.NIC.MAC.String()
}

// printDiff is a diff: one line for each thing that comes or goes.
func (a *app) printDiff(w io.Writer, c api.Change) error {
	if !changes(c) {
		fmt.Fprintln(w, "no differences")
		return nil
	}
	t := a.table("KIND", "NAME", "CHANGE").coloured("CHANGE")
	for _, o := range c.Objects {
		if o.Action != api.Unchanged {
			t.row(o.Kind, o.Name, o.Action)
		}
	}
	if err := t.write(w); err != nil || len(c.Elements) == 0 {
		return err
	}
	if len(t.rows) > 0 {
		fmt.Fprintln(w)
	}
	for _, e := range c.Elements {
		sign, c := "-", red
		if e.Add {
			sign, c = "+", green
		}
		line := sign + " " + e.What + ": " + e.Value
		if e.Point != "" {
			line = sign + " " + e.Point + ": " + e.What + ": " + e.Value
		}
		fmt.Fprintln(w, a.paint(c, line))
	}
	return nil
}
