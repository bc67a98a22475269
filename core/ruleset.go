package core

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Ruleset is all that one enforcement point must enforce, in normal form.
// Group rules and members are held once; NICs refer to them by name.
//
// core/policy.Compile makes Rulesets; treat one as immutable afterwards.
type Ruleset struct {
	Options Options
	Groups  map[string]GroupPolicy // every group a NIC on this point refers to
	Sets    map[string]AddressSet  // members of every remote group that Groups refer to
	NICs    map[NICKey]NICPolicy   // NICs on this point
}

// GroupPolicy is a group's rules taken apart into entries, sorted by
// Entry.Compare, without duplicates.
type GroupPolicy struct{ Entries []Entry }

// Entry is the atom of a rule: one direction, family, protocol, selector range
// and peer. It is comparable, so that Delta works by entry.
//
// In normal form the spans of entries that differ in nothing else are disjoint
// and not adjacent.
type Entry struct {
	Direction Direction
	Family    Family
	Protocol  Protocol
	Span      Span // AnySpan unless Protocol has ports or is ICMP
	Peer      Peer
}

// Peer is the other end of an Entry: a prefix (masked, of the entry's family),
// or the members of a remote group.
type Peer struct {
	Prefix netip.Prefix // invalid when Group is set
	Group  string       // key of Ruleset.Sets
}

func (p Peer) String() string {
	if p.Group != "" {
		return "group " + p.Group
	}
	return p.Prefix.String()
}

func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(e.Direction.String() + " " + e.Family.String() + " " + e.Protocol.String())
	if e.Span != AnySpan {
		b.WriteString(" " + e.Span.String())
	}
	if e.Direction == Ingress {
		b.WriteString(" from ")
	} else {
		b.WriteString(" to ")
	}
	return b.String() + e.Peer.String()
}

// Compare orders entries for rendering and display.
func (e Entry) Compare(o Entry) int {
	return cmp.Or(
		cmp.Compare(e.Direction, o.Direction),
		cmp.Compare(e.Family, o.Family),
		cmp.Compare(e.Protocol, o.Protocol),
		cmp.Compare(e.Peer.Group, o.Peer.Group),
		e.Peer.Prefix.Addr().Compare(o.Peer.Prefix.Addr()),
		cmp.Compare(e.Peer.Prefix.Bits(), o.Peer.Prefix.Bits()),
		cmp.Compare(e.Span.First, o.Span.First),
		cmp.Compare(e.Span.Last, o.Span.Last),
	)
}

// AddressSet holds the members of a remote group, sorted, both families.
type AddressSet struct{ Members []netip.Addr }

// NICPolicy is what one NIC is held to.
type NICPolicy struct {
	Key             NICKey
	VM              string // the VM's name, for people
	Kind            VMKind
	Bridge          string
	Devices         []string // sorted; none = not plugged in here yet
	Addresses       []netip.Addr
	Pairs           []AddressPair
	SpoofingAllowed bool
	Groups          []string // sorted
	// EgressDeny says, per family, that egress is denied unless an entry
	// allows it. Compile derives it from Options and Groups.
	EgressDeny4, EgressDeny6 bool
}

// EgressDeny is the egress default of a family.
func (n NICPolicy) EgressDeny(f Family) bool {
	if f == IPv4 {
		return n.EgressDeny4
	}
	return n.EgressDeny6
}

// Equal says whether two policies demand the same.
func (n NICPolicy) Equal(o NICPolicy) bool {
	return n.Key == o.Key && n.VM == o.VM && n.Kind == o.Kind && n.Bridge == o.Bridge &&
		n.SpoofingAllowed == o.SpoofingAllowed && n.EgressDeny4 == o.EgressDeny4 && n.EgressDeny6 == o.EgressDeny6 &&
		slices.Equal(n.Devices, o.Devices) && slices.Equal(n.Addresses, o.Addresses) &&
		slices.Equal(n.Pairs, o.Pairs) && slices.Equal(n.Groups, o.Groups)
}

// Equal says whether two sets of options demand the same.
func (o Options) Equal(p Options) bool {
	return slices.Equal(o.Bridges, p.Bridges) && slices.Equal(o.Unmanaged, p.Unmanaged) &&
		slices.Equal(o.VMPorts, p.VMPorts) && slices.Equal(o.Uplinks, p.Uplinks) &&
		o.EgressDefault == p.EgressDefault && o.AllowDNS == p.AllowDNS &&
		o.Multicast == p.Multicast && o.CountOnly == p.CountOnly
}

// Compare orders pairs.
func (p AddressPair) Compare(o AddressPair) int {
	return cmp.Or(p.Prefix.Addr().Compare(o.Prefix.Addr()),
		cmp.Compare(p.Prefix.Bits(), o.Prefix.Bits()), slices.Compare(p.MAC[:], o.MAC[:]))
}
