package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

const (
	partSend    = "o" // what the VM sends
	partOwner   = "x" // errors about its flows
	partNA      = "n" // whom its advertisements speak for
	partDAD     = "d" // whose address it tries
	partReceive = "i" // what it is sent
	partRouted  = "y" // what the host routes to it
	partTaken   = "k" // whose the flow is
)

// addSender makes the chain that judges what a VM sends, once its frames have
// passed ebtables: docs/semantics.md, the sender's rows 14 to 26. It is asked in
// mangle PREROUTING, once for bridged packets, for those to the host, and for
// those that the host routes, and before anybody on the host can hear them.
// RETURN passes the packet on.
func (v nicView) addSender(mangle *xtables.Table, f core.Family) {
	n, d := v.policy, v.egress()
	out := []xtables.Rule{
		d.deny(core.ReasonRevoked, v.marks.isRevoked()),
		d.deny(core.ReasonInvalid, state("INVALID")),
	}
	if !homeless(n, f) {
		if !n.SpoofingAllowed {
			out = append(out, rule(state("RELATED"), jump(v.names.own(partOwner))))
			v.set(mangle, v.names.own(partOwner), append(ownerRules(identities(n, f)), d.deny(core.ReasonNotOwner))...)
		}
		out = append(out,
			rule(toUnicast(), state("ESTABLISHED", "RELATED"), v.marks.isStraight(), giveBack()),
			rule(toUnicast(), established("ORIGINAL"), giveBack()),
			rule(toUnicast(), state("RELATED"), giveBack()))
	}
	if v.owners {
		// Who is first to begin a flow has it.
		out = append(out, rule(state("NEW"), flowMarked(0, v.marks.sender), markFlow(v.marks.ownerOf(v.policy.Key.MAC, v.marks.sender), v.marks.sender)))
	}
	if f == core.IPv4 {
		out = append(out,
			d.deny(core.ReasonDHCPGuard, udp(67, 0)),
			d.deny(core.ReasonDHCPGuard, udp(0, 68)),
			rule(udp(68, 67), giveBack()))
	} else {
		out = append(out, v.neighbourRules(mangle)...)
		out = append(out,
			d.deny(core.ReasonDHCPGuard, udp(547, 0)),
			d.deny(core.ReasonDHCPGuard, udp(0, 546)))
		if n.SpoofingAllowed {
			out = append(out, rule(udp(546, 547), giveBack()))
		} else {
			out = append(out, rule(source(prefix("fe80::/10")), udp(546, 547), giveBack()), d.deny(core.ReasonDHCPGuard, udp(546, 547)))
		}
		for _, t := range []uint8{ndRouterSolicitation, ndSolicitation, ndAdvertisement} {
			out = append(out, rule(icmp6(t), hopLimit255(), giveBack()))
		}
		for _, t := range []uint8{mldReport, mldDone, mldReport2} {
			out = append(out, rule(icmp6(t), giveBack()))
		}
	}
	if homeless(n, f) {
		out = append(out, d.deny(core.ReasonIPSpoof))
	} else {
		if v.options.AllowDNS {
			dns := core.Span{First: 53, Last: 53}
			out = append(out, rule(ports(core.ProtocolUDP, nil, &dns), giveBack()), rule(ports(core.ProtocolTCP, nil, &dns), giveBack()))
		}
		out = append(out, rule(goTo(v.names.egress())))
	}
	v.set(mangle, v.names.own(partSend), out...)
}

// ownerRules give back errors about flows that the NIC has an end of.
func ownerRules(ids []identity) []xtables.Rule {
	var out []xtables.Rule
	for _, p := range prefixes(ids) {
		if p.Bits() == 0 {
			return []xtables.Rule{rule(giveBack())}
		}
		for _, end := range []string{"--ctorigsrc", "--ctorigdst"} {
			out = append(out, rule(module("conntrack", xtables.Opt(end, addressText(p))), giveBack()))
		}
	}
	return out
}

// neighbourRules are about ND: whose addresses the NIC may speak for, and that
// it is no router.
func (v nicView) neighbourRules(mangle *xtables.Table) []xtables.Rule {
	n, d := v.policy, v.egress()
	var out []xtables.Rule
	if !n.SpoofingAllowed {
		ids := identities(n, core.IPv6)
		var dad, na []xtables.Rule
		for _, id := range ids {
			if id.own {
				group := core.SolicitedNode(id.prefix.Addr())
				dad = append(dad, rule(destination(single(group)), ndTarget(id.prefix), giveBack()))
			}
		}
		for _, p := range prefixes(ids) {
			na = append(na, rule(ndTarget(p), giveBack()))
		}
		v.set(mangle, v.names.own(partDAD), append(dad, d.deny(core.ReasonIPSpoof))...)
		v.set(mangle, v.names.own(partNA), append(na, d.deny(core.ReasonNDSpoof))...)
		out = append(out,
			rule(source(prefix("::/128")), icmp6(ndSolicitation), jump(v.names.own(partDAD))),
			rule(icmp6(ndAdvertisement), jump(v.names.own(partNA))))
	}
	return append(out,
		d.deny(core.ReasonRAGuard, icmp6(ndRouterAdvert)),
		d.deny(core.ReasonRAGuard, icmp6(ndRedirect)))
}
