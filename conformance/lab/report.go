package lab

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MatrixReport is what a matrix found.
type MatrixReport struct {
	Nodes []string // rows and columns
	Cells []Cell   // by service, sender, receiver
}

// Cell is one attempt.
type Cell struct {
	From, To  string
	Service   Service
	Expected  Expectation
	Reachable bool
	Reason    string // why it failed
}

// Mark is the cell in one word.
func (c Cell) Mark() string {
	switch {
	case c.Reachable && c.Expected == Block:
		return "LEAK"
	case !c.Reachable && c.Expected == Pass:
		return "CUT"
	case c.Reachable:
		return "ok"
	}
	return "--"
}

// Wrong says whether the cell is not as expected.
func (c Cell) Wrong() bool { m := c.Mark(); return m == "LEAK" || m == "CUT" }

// Failed says whether any cell is not as expected.
func (r *MatrixReport) Failed() bool {
	for _, c := range r.Cells {
		if c.Wrong() {
			return true
		}
	}
	return false
}

// Text prints one grid for each service, and a line for each cell that is not
// as expected.
func (r *MatrixReport) Text() string {
	var b strings.Builder
	r.write(&b, func(mark string) string { return mark })
	return b.String()
}

// Print writes Text, with colours when w is a terminal and NO_COLOR is not set.
func (r *MatrixReport) Print(w io.Writer) error {
	var b strings.Builder
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" {
		r.write(&b, coloured)
	} else {
		r.write(&b, func(mark string) string { return mark })
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const legend = "Rows send, columns receive. ok: passes. --: blocked. " +
	"LEAK: passes, must be blocked. CUT: blocked, must pass.\n"

func (r *MatrixReport) write(b *strings.Builder, paint func(string) string) {
	var services []Service
	cells := map[pair]Cell{}
	for _, c := range r.Cells {
		if len(services) == 0 || services[len(services)-1] != c.Service {
			services = append(services, c.Service)
		}
		cells[pair{c.From, c.To, c.Service}] = c
	}
	for _, s := range services {
		r.grid(b, s, cells, paint)
		b.WriteByte('\n')
	}
	wrong := 0
	for _, c := range r.Cells {
		if !c.Wrong() {
			continue
		}
		wrong++
		must := "passes, must be blocked"
		if !c.Reachable {
			must = "blocked, must pass: " + c.Reason
		}
		fmt.Fprintf(b, "%s %s -> %s %s: %s\n", pad(paint(c.Mark()), c.Mark(), 4), c.From, c.To, c.Service, must)
	}
	if wrong > 0 {
		fmt.Fprintf(b, "%d of %d not as expected.\n", wrong, len(r.Cells))
	}
	b.WriteString(legend)
}

// grid has a column for each node, wide enough for its name and every mark.
func (r *MatrixReport) grid(b *strings.Builder, s Service, cells map[pair]Cell, paint func(string) string) {
	first := len(s.String())
	for _, n := range r.Nodes {
		first = max(first, len(n))
	}
	row := func(head string, text func(to string) (painted, plain string)) {
		line := pad(head, head, first)
		for _, to := range r.Nodes {
			painted, plain := text(to)
			line += "  " + pad(painted, plain, max(len(to), len("LEAK")))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	row(s.String(), func(to string) (string, string) { return to, to })
	for _, from := range r.Nodes {
		row(from, func(to string) (string, string) {
			c, ok := cells[pair{from, to, s}]
			if !ok {
				return ".", "."
			}
			return paint(c.Mark()), c.Mark()
		})
	}
}

// pad fills painted up as if it were as long as plain.
func pad(painted, plain string, width int) string {
	return painted + strings.Repeat(" ", max(0, width-len(plain)))
}

func coloured(mark string) string {
	code := map[string]string{"ok": "32", "--": "2", "LEAK": "1;31", "CUT": "1;33"}[mark]
	return "\x1b[" + code + "m" + mark + "\x1b[0m"
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
