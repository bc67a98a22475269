package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// denier makes the rule that denies for a reason.
type denier func(r core.Reason, match ...options) xtables.Rule

// addReceiver makes the chains that judge what a VM is sent: docs/semantics.md,
// the receiver's rows 7 and 9 to 17. What passes leaves them with the marks that
// the NIC's port asks for.
func (v nicView) addReceiver(filter *xtables.Table, f core.Family) {
	m := v.marks
	bridged := []xtables.Rule{v.ingress().deny(core.ReasonDestination, marked(0, m.dest|m.mine))}
	v.set(filter, v.names.own(partReceive), append(bridged, v.receiverRows(f, v.ingress().deny)...)...)
	if v.owners {
		v.set(filter, v.ok(),
			rule(state("NEW"), marked(m.mine, m.mine), flowMarked(0, m.receiver), markFlow(m.ownerOf(v.policy.Key.MAC, m.receiver), m.receiver)),
			rule(goTo(okChain(v.slotNumber))))
	}
	// Which ports a routed packet leaves by, the bridge decides later: what is
	// denied goes on without the NIC's mark, and its port drops it.
	v.set(filter, v.names.own(partRouted), v.receiverRows(f, func(r core.Reason, match ...options) xtables.Rule {
		denied := rule(append(match, giveBack())...)
		if v.shared {
			return denied // another NIC that has the address may allow it
		}
		return denied.Labelled(v.ingress().tally(r))
	})...)
}

// receiverRows are the rows from "revoked" on.
func (v nicView) receiverRows(f core.Family, deny denier) []xtables.Rule {
	ok, m := goTo(v.ok()), v.marks
	out := []xtables.Rule{deny(core.ReasonRevoked, m.isRevoked()), deny(core.ReasonInvalid, state("INVALID"))}
	if !homeless(v.policy, f) {
		out = append(out,
			rule(toUnicast(), state("ESTABLISHED", "RELATED"), m.isStraight(), ok),
			rule(toUnicast(), established("REPLY"), ok),
			rule(toUnicast(), state("RELATED"), ok))
	}
	if f == core.IPv4 {
		out = append(out, rule(udp(67, 68), ok), deny(core.ReasonDHCPGuard, udp(0, 67)))
	} else {
		out = append(out,
			rule(destination(prefix("fe80::/10")), udp(547, 546), ok),
			deny(core.ReasonDHCPGuard, udp(0, 547)))
		for _, t := range []uint8{mldQuery, mldReport, mldDone, mldReport2} {
			out = append(out, rule(icmp6(t), ok))
		}
		for _, t := range []uint8{ndRouterSolicitation, ndRouterAdvert, ndSolicitation, ndAdvertisement, ndRedirect} {
			out = append(out, rule(icmp6(t), hopLimit255(), ok))
		}
	}
	if homeless(v.policy, f) {
		return append(out, deny(core.ReasonDestination))
	}
	if v.options.Multicast == core.MulticastDrop {
		out = append(out, deny(core.ReasonMulticast, toGroup()))
	}
	return append(out,
		rule(jump(v.names.ingress())),
		rule(marked(m.pass|v.slot, m.pass|v.slot), giveBack()),
		deny(core.ReasonIngressRules))
}

// ok is the chain to go to with what is allowed.
func (v nicView) ok() string {
	if v.owners {
		return v.names.own(partTaken)
	}
	return okChain(v.slotNumber)
}
