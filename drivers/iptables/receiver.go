package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// addReceiver makes the chain that judges what a VM is sent: docs/semantics.md,
// the receiver's rows 7 and 9 to 17. What passes leaves it with the marks that
// the NIC's port asks for.
func (v nicView) addReceiver(filter *xtables.Table, f core.Family) {
	d := v.ingress()
	m := v.marks
	out := append([]xtables.Rule{d.deny(core.ReasonDestination, marked(0, m.dest|m.routed))}, v.receiverRows(f)...)
	if homeless(v.policy, f) {
		out = append(out, d.deny(core.ReasonDestination))
	} else {
		if v.options.Multicast == core.MulticastDrop {
			out = append(out, d.deny(core.ReasonMulticast, toGroup()))
		}
		out = append(out,
			rule(jump(v.names.ingress())),
			rule(marked(m.pass, m.pass), giveBack()),
			d.deny(core.ReasonIngressRules))
	}
	v.set(filter, v.names.own(partReceive), out...)
	if v.shared && !homeless(v.policy, f) {
		// Another NIC may have the address too: that this one's rules say no
		// does not decide.
		v.set(filter, v.names.own(partShared), append(v.receiverRows(f), rule(jump(v.names.ingress())))...)
	}
}

// receiverRows are those before the rules.
func (v nicView) receiverRows(f core.Family) []xtables.Rule {
	d := v.ingress()
	ok := goTo(okChain(v.slotNumber))
	out := []xtables.Rule{
		d.deny(core.ReasonRevoked, v.marks.isRevoked()),
		d.deny(core.ReasonInvalid, state("INVALID")),
	}
	if !homeless(v.policy, f) {
		out = append(out, rule(toUnicast(), state("ESTABLISHED", "RELATED"), ok))
	}
	if f == core.IPv4 {
		return append(out, rule(udp(67, 68), ok), d.deny(core.ReasonDHCPGuard, udp(0, 67)))
	}
	out = append(out,
		rule(destination(prefix("fe80::/10")), udp(547, 546), ok),
		d.deny(core.ReasonDHCPGuard, udp(0, 547)))
	for _, t := range []uint8{mldQuery, mldReport, mldDone, mldReport2} {
		out = append(out, rule(icmp6(t), ok))
	}
	for _, t := range []uint8{ndRouterSolicitation, ndRouterAdvert, ndSolicitation, ndAdvertisement, ndRedirect} {
		out = append(out, rule(icmp6(t), hopLimit255(), ok))
	}
	return out
}
