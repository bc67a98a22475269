package cloudstack

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// groupName is the name of a VM's own group.
func groupName(vm string) string { return core.ReservedGroupPrefix + vm }

// Core gives the rules as a group has them: CIDRs apart by family, ICMP as
// ICMPv6 where they are IPv6.
func (r Rules) Core() []core.Rule {
	var out []core.Rule
	for _, rule := range r.Rules {
		for _, f := range core.Families {
			if c, ok := rule.in(f); ok {
				out = append(out, c)
			}
		}
	}
	return out
}

// in is what a rule says about a family, if anything.
func (r Rule) in(f core.Family) (core.Rule, bool) {
	cidrs := slices.DeleteFunc(slices.Clone(r.CIDRs), func(p netip.Prefix) bool { return core.FamilyOf(p.Addr()) != f })
	proto := r.Protocol
	if proto == core.ProtocolICMP && f == core.IPv6 {
		proto = core.ProtocolICMPv6
	}
	if len(cidrs) == 0 || proto == 0 || !proto.In(f) {
		// It allows nothing here. An egress rule that has a CIDR of the family
		// closes the rest of it all the same.
		if r.Direction == core.Egress && (len(cidrs) > 0 || slices.Contains(r.Unreadable, f)) {
			return nothing(f), true
		}
		return core.Rule{}, false
	}
	out := core.Rule{Direction: r.Direction, Protocol: proto, ICMP: r.ICMP, Peers: &core.Peers{CIDRs: cidrs}}
	if r.Ports != nil {
		out.Ports = []core.Span{*r.Ports}
	}
	return out, true
}

// nothing is an egress rule that no packet can match: it closes a family's
// egress and allows nothing in it. Nobody has the unspecified address.
func nothing(f core.Family) core.Rule {
	a := netip.IPv4Unspecified()
	if f == core.IPv6 {
		a = netip.IPv6Unspecified()
	}
	return core.Rule{
		Direction: core.Egress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 0, Last: 0}},
		Peers: &core.Peers{CIDRs: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}},
	}
}

// hold is the rules of a VM whose rules have not come yet: nothing in, and out
// only what always passes.
func hold() []core.Rule { return []core.Rule{nothing(core.IPv4), nothing(core.IPv6)} }
