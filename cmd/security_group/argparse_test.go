package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse holds the parser against what Python's argparse (3.11) made of the
// same command lines.
func TestParse(t *testing.T) {
	text, err := os.ReadFile("testdata/argparse.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Args    []string
		Command string
		Values  map[string]string
		Help    bool
		Error   string
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 70 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		got, err := parse(c.Args)
		if c.Error != "" {
			if err == nil || err.Error() != c.Error {
				t.Errorf("%q: %v, want %s", c.Args, err, c.Error)
			}
			continue
		}
		if err != nil || got.command != c.Command || got.help != c.Help || !c.Help && !cmp.Equal(got.values, c.Values) {
			t.Errorf("%q: %+v, %v; want %+v", c.Args, got, err, c)
		}
	}
}
