package core

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is stored and what is sent must come back as it was.
func TestNICRoundTripsThroughJSON(t *testing.T) {
	want := NIC{MAC: MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Groups: []string{"web"},
		Pairs: []AddressPair{
			{Prefix: netip.MustParsePrefix("10.0.0.100/32")},
			{Prefix: netip.MustParsePrefix("fd00::/64"), MAC: MAC{0, 0, 0x5e, 0, 1, 1}},
		}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got NIC
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestMACText(t *testing.T) {
	for _, bad := range []string{"00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "02:00", "x"} {
		var m MAC
		if err := m.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%s was taken for a NIC's", bad)
		}
	}
	m := MAC{1}
	if err := m.UnmarshalText(nil); err != nil || m != (MAC{}) {
		t.Errorf("nothing is %v, %v", m, err)
	}
}
