package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	c := enterNamespace(t)
	want := sampleState()
	apply(t, c, Diff(nil, want))
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

func TestDump(t *testing.T) {
	for id, table := range sampleState() {
		t.Log(id, table)
	}
}
