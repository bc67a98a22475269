package vmware

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
)

func TestMark(t *testing.T) {
	full := mark{Segment: Segment{VLAN: 100, Kind: Community, Group: "tenant/web:1"}, ID: 2001, Own: []int{2001}}
	closed := mark{Segment: Segment{VLAN: 100, Kind: Closed}, ID: 2000, Own: []int{100, 2000}, Ruleset: core.Fingerprint{1, 2}}
	bare := mark{Segment: Segment{VLAN: 100, Kind: Promiscuous}, ID: 100}
	for _, m := range []mark{full, closed, bare} {
		got := parseMark(m.String())
		if got == nil {
			t.Fatalf("%s is not read back", m)
		}
		if diff := cmp.Diff(m, *got); diff != "" {
			t.Error(diff)
		}
		if n := len(m.String()); n > 255 {
			t.Errorf("%d bytes", n)
		}
		// Whatever somebody edits, it is not ours any more.
		for i := range m.String() {
			if edited := m.String()[:i]; parseMark(edited) != nil && edited != m.String() && parseMark(edited).String() != edited {
				t.Errorf("%q is taken for ours", edited)
			}
		}
		if parseMark(m.String()+" x") != nil || parseMark("x "+m.String()) != nil {
			t.Error("edited, and still ours")
		}
	}
}
