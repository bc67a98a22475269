package api

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
)

// TestProgramCrosses: what the hook says arrives as an instance, the answer
// with it.
func TestProgramCrosses(t *testing.T) {
	mac, other := core.MAC{0x52, 0x54, 0, 0, 0, 1}, core.MAC{0x52, 0x54, 0, 0, 0, 2}
	in := core.Instance{Claims: true, DomainID: "7", VM: core.VM{Key: "6c2f", Name: "web one", Kind: core.SystemVM, NICs: []core.NIC{
		{MAC: mac, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Groups: []string{"web", "cloudstack/x"},
			Pairs:           []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, {Prefix: netip.MustParsePrefix("10.0.0.9/32"), MAC: other}},
			SpoofingAllowed: true, Binding: core.Binding{Bridge: "br0", Devices: []string{"tap1", "vif1"}, Point: "p"}},
		{MAC: other, Groups: []string{"web"}},
	}}}
	answer := ProgramResult{NICs: []engine.Programmed{
		{NICStatus: engine.NICStatus{NIC: core.NICKey{VM: "6c2f", MAC: mac}, State: engine.Enforced, Source: "manifest"}, Outcome: engine.InForce},
		{NICStatus: engine.NICStatus{NIC: core.NICKey{VM: "6c2f", MAC: other}, State: engine.Closed, Reason: "why"}, Outcome: engine.NoPolicy},
	}}
	var got ProgramRequest
	c := dial(t, serve(t, &fake{program: func(_ context.Context, r ProgramRequest) (ProgramResult, error) { got = r; return answer, nil }}))
	out, err := c.Program(t.Context(), NewProgramRequest(in))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(answer, out); diff != "" {
		t.Error(diff)
	}
	arrived, err := got.Instance()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, arrived, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

func TestProgramRequestRefusals(t *testing.T) {
	mac := core.MAC{0x52, 0x54, 0, 0, 0, 1}
	for path, r := range map[string]ProgramRequest{
		"kind":                   {Key: "k", Kind: "router"},
		"vms[0].name":            {},
		"vms[0].nics[0].mac":     {Key: "k", NICs: []ProgramNIC{{}}},
		"vms[0].nics[0].bridge":  {Key: "k", NICs: []ProgramNIC{{MAC: mac, Bridge: "a/b"}}},
		"vms[0].nics[0].devices": {Key: "k", NICs: []ProgramNIC{{MAC: mac, Bridge: "b", Devices: []string{"a b"}}}},
	} {
		_, err := r.Instance()
		var f *core.FieldError
		if !errors.As(err, &f) || len(f.Path) < len(path) || f.Path[:len(path)] != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}
