package main

import (
	"os"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	a := &app{}
	tab := a.table("NAME", "STATE", "N").coloured("STATE")
	tab.row("é", "enforced", 1)
	tab.row("long name", "", 12)
	var b strings.Builder
	if err := tab.write(&b); err != nil {
		t.Fatal(err)
	}
	want := "NAME       STATE     N\né          enforced  1\nlong name  -         12\n"
	if b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
	a.colour = true
	b.Reset()
	if err := tab.write(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "\x1b[32menforced\x1b[0m  1") || !strings.Contains(got, "\x1b[1mNAME\x1b[0m       ") {
		t.Errorf("got %q", got)
	}
}

func TestNoColourWithoutTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if wantsColour(w, nil) {
		t.Error("a pipe got colours")
	}
}

// TestColourOnTerminal uses a pseudo-terminal, and takes colours away again.
func TestColourOnTerminal(t *testing.T) {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !wantsColour(f, []string{"TERM=xterm", "NO_COLOR="}) {
		t.Error("a terminal got none")
	}
	for _, e := range []string{"NO_COLOR=1", "TERM=dumb"} {
		if wantsColour(f, []string{e}) {
			t.Errorf("%s was ignored", e)
		}
	}
}
