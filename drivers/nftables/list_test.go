package nftables

import (
	"os/exec"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
)

// TestCommandLists: an operator can list every table with nft.
func TestCommandLists(t *testing.T) {
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	b := openBackend(t, h)
	in := manyNICs(2)
	in.VMs[0].NICs[0].SpoofingAllowed = true // so that flows are labelled
	r := compiled(t, in)
	labtest.Check(t, b.Sync(t.Context(), r))
	state := b.renderer().all(b.enforced)
	labtest.Check(t, h.Do(func() error {
		for id, table := range state {
			out, err := exec.Command("nft", "list", "table", id.Family.String(), id.Name).CombinedOutput()
			if err != nil {
				t.Errorf("table %s: %v: %.500s", id, err, out)
				for name := range table.Chains {
					if out, err := exec.Command("nft", "list", "chain", id.Family.String(), id.Name, name).CombinedOutput(); err != nil {
						t.Errorf("chain %s %s: %v: %.500s", id, name, err, out)
					}
				}
				for name := range table.Sets {
					if out, err := exec.Command("nft", "list", "set", id.Family.String(), id.Name, name).CombinedOutput(); err != nil {
						t.Errorf("set %s %s: %v: %.500s", id, name, err, out)
					}
				}
			}
		}
		return nil
	}))
}
