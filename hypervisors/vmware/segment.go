package vmware

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Kind is a place in a primary VLAN.
type Kind string

const (
	// Closed ports are blocked: nothing in, nothing out.
	Closed Kind = "closed"
	// Isolated ports meet promiscuous ports only.
	Isolated Kind = "isolated"
	// Community ports meet each other and promiscuous ports.
	Community Kind = "community"
	// Promiscuous ports meet every port that is not blocked.
	Promiscuous Kind = "promiscuous"
)

// Segment is where a NIC belongs: all that a private VLAN knows of it.
type Segment struct {
	VLAN  int // the primary VLAN
	Kind  Kind
	Group string // of a community
}

func (s Segment) String() string {
	text := fmt.Sprintf("vlan %d %s", s.VLAN, s.Kind)
	if s.Group != "" {
		text += " " + s.Group
	}
	return text
}

// Compare orders segments from the most closed to the most open.
func (s Segment) Compare(o Segment) int {
	rank := func(k Kind) int { return slices.Index([]Kind{Closed, Isolated, Community, Promiscuous}, k) }
	return cmp.Or(cmp.Compare(s.VLAN, o.VLAN), cmp.Compare(rank(s.Kind), rank(o.Kind)), cmp.Compare(s.Group, o.Group))
}

// bridgeOf names a primary VLAN where core wants a bridge, and vlanOf reads it.
func bridgeOf(vlan int) string { return "vlan" + strconv.Itoa(vlan) }

func vlanOf(bridge string) (int, bool) {
	id, err := strconv.Atoi(strings.TrimPrefix(bridge, "vlan"))
	return id, err == nil && bridge == bridgeOf(id)
}

// translation turns a ruleset into segments, or refuses it.
type translation struct {
	core.Ruleset
	managed func(vlan int) bool
	// macOnly: anti-spoofing may mean that only MACs are checked.
	macOnly bool
	faults  map[string]error // of groups
}

// segments gives every NIC its place. The error joins an *core.ObjectError for
// each group and each NIC that a private VLAN cannot hold to its policy.
func (t translation) segments() (map[core.NICKey]Segment, error) {
	if err := checkOptions(t.Options); err != nil {
		return nil, err
	}
	t.faults = map[string]error{}
	for name, g := range t.Groups {
		if err := checkGroup(name, g); err != nil {
			t.faults[name] = err
		}
	}
	out := map[core.NICKey]Segment{}
	refused := map[string]bool{}
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(t.NICs), compareNICs) {
		n := t.NICs[k]
		if n.Kind == core.UserVM {
			for _, g := range n.Groups {
				if err := t.faults[g]; err != nil && !refused[g] {
					refused[g] = true
					errs = append(errs, &core.ObjectError{Groups: []string{g}, Err: err})
				}
			}
		}
		s, err := t.segment(n)
		if err != nil {
			errs = append(errs, &core.ObjectError{NICs: []core.NICKey{k}, Err: err})
		}
		out[k] = s
	}
	return out, errors.Join(errs...)
}

// checkOptions refuses what no port group can be told.
func checkOptions(o core.Options) error {
	switch {
	case o.CountOnly:
		return fmt.Errorf("enforce: false: private VLANs cannot count what they would drop; set enforce: true: %w", core.ErrUnsupported)
	case o.Multicast == core.MulticastDrop:
		return fmt.Errorf("multicast: drop: private VLANs do not tell multicast apart; set multicast: by-rules: %w", core.ErrUnsupported)
	}
	return nil
}

// checkGroup takes a group that allows nothing in, or everything from its own
// members.
func checkGroup(name string, g core.GroupPolicy) error {
	families := map[core.Family]bool{}
	for _, e := range g.Entries {
		reason := ""
		switch {
		case e.Direction == core.Egress:
			reason = "egress is not filtered"
		case e.Protocol != core.AnyProtocol || e.Span != core.AnySpan:
			reason = "protocols and ports are not told apart"
		case e.Peer.Group == "":
			reason = "addresses are not told apart"
		case e.Peer.Group != name:
			reason = "only members of one group can share a community"
		}
		if reason != "" {
			return fmt.Errorf("group %s: %s: %s by private VLANs; a group may allow any protocol from itself, or nothing: %w", name, e, reason, core.ErrUnsupported)
		}
		families[e.Family] = true
	}
	if len(families) == 1 {
		return fmt.Errorf("group %s: %s: families are not told apart by private VLANs; allow both: %w", name, g.Entries[0], core.ErrUnsupported)
	}
	return nil
}

// segment is a NIC's place, taking its groups to be good.
func (t translation) segment(n core.NICPolicy) (Segment, error) {
	vlan, ok := vlanOf(n.Bridge)
	if !ok || !t.managed(vlan) {
		return Segment{}, fmt.Errorf("%s is not a primary VLAN that the setting networks names: %w", n.Bridge, core.ErrUnsupported)
	}
	s := Segment{VLAN: vlan, Kind: Isolated}
	if n.Kind == core.SystemVM {
		s.Kind = Promiscuous
		return s, nil
	}
	var communities []string
	for _, g := range n.Groups {
		if len(t.Groups[g].Entries) > 0 {
			communities = append(communities, g)
		}
	}
	for _, p := range n.Pairs {
		if p.MAC != (core.MAC{}) {
			return s, fmt.Errorf("allowed pair %s: port groups let a NIC send from its own MAC only; leave the pair's MAC out: %w", p, core.ErrUnsupported)
		}
	}
	switch {
	case len(communities) > 1:
		return s, fmt.Errorf("it is in the groups %s, each of which is a community, and a port is in one; take it out of all but one: %w",
			strings.Join(communities, ", "), core.ErrUnsupported)
	case len(communities) == 1:
		s.Kind, s.Group = Community, communities[0]
	}
	switch {
	case n.EgressDeny4 && n.EgressDeny6 && s.Kind == Isolated:
		s.Kind = Closed // the policy that may do nothing
	case n.EgressDeny4 || n.EgressDeny6:
		return s, fmt.Errorf("its egress is denied, and private VLANs do not filter egress; set egress_default: until-rules: %w", core.ErrUnsupported)
	case !n.SpoofingAllowed && !t.macOnly:
		return s, fmt.Errorf("anti-spoofing is on, and a port group checks MACs alone; turn it off for the NIC, or set anti_spoofing: mac-only: %w", core.ErrUnsupported)
	}
	return s, nil
}

func compareNICs(a, b core.NICKey) int {
	return cmp.Or(cmp.Compare(a.VM, b.VM), slices.Compare(a.MAC[:], b.MAC[:]))
}
