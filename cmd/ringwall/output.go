package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

var outputs = []string{"table", "json", "yaml"}

// print writes v in the form asked for; table writes it for people.
func (a *app) print(v any, table func(io.Writer) error) error {
	switch a.output {
	case "json":
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "yaml":
		return writeYAML(a.stdout, v)
	}
	return table(a.stdout)
}

// writeYAML writes what has a form in YAML in that, and everything else as its
// JSON says, key for key.
func writeYAML(w io.Writer, v any) error {
	if _, ok := v.(yaml.Marshaler); !ok {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(text, &doc); err != nil {
			return err
		}
		restyle(&doc)
		v = &doc
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return errors.Join(enc.Encode(v), enc.Close())
}

// restyle turns JSON's braces and quotes into YAML's usual style. Empty lists
// and mappings have no other form.
func restyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		restyle(c)
	}
}

// wantsColour: on a terminal, unless NO_COLOR (no-color.org) or a dumb terminal
// says otherwise.
func wantsColour(f *os.File, environ []string) bool {
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// colour is an SGR parameter.
type colour int

const (
	plain  colour = 0
	bold   colour = 1
	red    colour = 31
	green  colour = 32
	yellow colour = 33
)

func (a *app) paint(c colour, s string) string {
	if !a.colour || c == plain || s == "" {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, s)
}

// stateColour is how good a state is.
func stateColour(s string) colour {
	switch {
	case slices.Contains([]string{"enforced", "ok", "in sync", "created", "unchanged", "running"}, s):
		return green
	case slices.Contains([]string{"pending", "unmanaged", "warning", "waiting", "updated", "restarting"}, s):
		return yellow
	case slices.Contains([]string{"closed", "closed-port", "conflict", "stale", "error", "deleted", "out of sync"}, s):
		return red
	}
	return plain
}

// table aligns columns. Colours are put on after the widths are known, which
// text/tabwriter cannot do.
type table struct {
	app  *app
	head []string
	rows [][]string
	// hue gives the colour of a cell; nil = none.
	hue func(column int, cell string) colour
}

func (a *app) table(head ...string) *table { return &table{app: a, head: head} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
		if row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// coloured paints the column with the state in it.
func (t *table) coloured(column string) *table {
	at := slices.Index(t.head, column)
	t.hue = func(i int, cell string) colour {
		if i == at {
			return stateColour(cell)
		}
		return plain
	}
	return t
}

func (t *table) write(w io.Writer) error {
	if len(t.rows) == 0 {
		return nil
	}
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	line := func(row []string, hue func(int, string) colour) {
		for i, c := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			painted := c
			if hue != nil {
				painted = t.app.paint(hue(i, c), c)
			}
			b.WriteString(painted)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
			}
		}
		b.WriteByte('\n')
	}
	line(t.head, func(int, string) colour { return bold })
	for _, row := range t.rows {
		line(row, t.hue)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// words joins a list for a table's cell.
func words[T any](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = fmt.Sprint(v)
	}
	return strings.Join(s, ",")
}

// plural is "1 rule", "2 rules".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
