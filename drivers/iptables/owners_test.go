package iptables

import (
	"strings"
	"testing"

	"github.com/ringwall/ringwall/core"
)

// A host has more VMs than fit into one list of ebtables-restore.
func TestLongListsOfMACsAreCut(t *testing.T) {
	const nics = 300
	var views []nicView
	for i := range nics {
		views = append(views, nicView{policy: core.NICPolicy{Key: core.NICKey{MAC: core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}}})
	}
	seen := map[string]bool{}
	for _, list := range macsHere(views) {
		if len(list) > 1023 {
			t.Errorf("a list has %d bytes", len(list))
		}
		for _, m := range strings.Split(list, ",") {
			seen[m] = true
		}
	}
	if len(seen) != nics {
		t.Errorf("%d MACs of %d", len(seen), nics)
	}
}
