package nft

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// What is sent is what is read back, and the nft program can list it.
func TestRoundTrip(t *testing.T) {
	c := enterNamespace(t)
	want := sampleState()
	apply(t, c, Diff(nil, want))
	nftList(t, "ruleset")
	for id, table := range want {
		got := read(t, c, id)
		if d := cmp.Diff(table, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", id, d)
		}
		if tx := Diff(State{id: got}, State{id: table}); !tx.Empty() {
			t.Errorf("%s: read back differs", id)
		}
	}
}

// A table prints the same whether it was made here or read from the kernel.
func TestText(t *testing.T) {
	c := enterNamespace(t)
	state := sampleState()
	apply(t, c, Diff(nil, state))
	for id, table := range state {
		file := filepath.Join("testdata", id.Family.String()+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(table.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), table.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
		if d := cmp.Diff(string(want), read(t, c, id).String()); d != "" {
			t.Errorf("%s, read back (-want +got):\n%s", file, d)
		}
	}
}
