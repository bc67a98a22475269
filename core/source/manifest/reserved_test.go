package manifest

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
)

// TestReservedGroups: an answer of the agent may hold what a user may not write.
func TestReservedGroups(t *testing.T) {
	m := Manifest{Groups: []core.Group{{Name: "cloudstack/i-2-7-VM"}},
		VMs: []core.VM{{Key: "i-2-7-VM", Name: "i-2-7-VM", NICs: []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, 1}, Groups: []string{"cloudstack/i-2-7-VM"}}}}}}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Manifest
	if err := json.Unmarshal(text, &back); err != nil || !cmp.Equal(m, back) {
		t.Errorf("%v\n%s", err, cmp.Diff(m, back))
	}
	if _, err := Parse(text); err == nil {
		t.Error("a user may write it, too")
	}
}
