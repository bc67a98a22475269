package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

const (
	partTo      = "to"
	partOut     = "out"
	partOutType = "out-type"
	partOutDst  = "out-dst"
	partOutARP  = "out-ips"
)

// addDestination makes the chain that marks what is addressed to the NIC. It
// stands in filter FORWARD and OUTPUT, before the ip hooks, which read the mark
// when the receiver's turn comes: docs/semantics.md, the receiver's row 7.
func (v nicView) addDestination(filter *xtables.Table) {
	n := v.policy
	mine := frameMark(v.marks.dest|v.marks.mine, "RETURN")
	forIt := frameMark(v.marks.dest, "RETURN")
	var to []xtables.Rule
	if n.SpoofingAllowed {
		// Whatever arrives at the port is for it; that of its own MAC and
		// another's address may be that other's all the same.
		for _, mac := range macsOf(n) {
			to = append(to, rule(frameTo(mac), frameMark(v.marks.mine, "CONTINUE")))
		}
	}
	for _, id := range identities(n, core.IPv4) {
		to = append(to, rule(frame(frameIPv4), frameTo(id.mac), framePrefix("--ip-dst", id.prefix), mine))
	}
	for _, id := range identities(n, core.IPv6) {
		to = append(to, rule(frame(frameIPv6), frameTo(id.mac), framePrefix("--ip6-dst", id.prefix), mine))
	}
	if n.SpoofingAllowed {
		to = append(to, rule(frameMarked(v.marks.mine, v.marks.mine), giveBack()), rule(forIt))
	} else {
		to = append(to, rule(opt("-d", groupMAC), forIt))
	}
	v.set(filter, v.names.frame(partTo), append([]xtables.Rule{rule(jump(chainMine))}, to...)...)
}

// addExit makes the chains at the port itself: what leaves by it was judged for
// this NIC, or is dropped. docs/semantics.md, the receiver's rows 4 to 8.
func (v nicView) addExit(nat *xtables.Table) {
	n, m, in := v.policy, v.marks, v.ingress()
	name := v.names.frame
	deny := func(r core.Reason, match ...options) xtables.Rule { return in.denyFrame(r, "ACCEPT", match...) }
	out := []xtables.Rule{
		rule(jump(chainMine)),
		rule(frameMarked(m.host, m.host), accept()),
		deny(core.ReasonVLAN, frame(frameVLAN)),
		deny(core.ReasonVLAN, frame(frameQinQ)),
	}
	// ARP was checked at its sender's port. CloudStack has it ask for an own
	// address, and so drops the probes by which others find out who is there.
	out = append(out, rule(frame(frameARP), opt("-d", groupMAC), accept()))
	for _, mac := range macsOf(n) {
		out = append(out, rule(frame(frameARP), frameTo(mac), accept()))
	}
	if n.SpoofingAllowed {
		out = append(out, rule(frame(frameARP), accept()))
	}
	out = append(out,
		deny(core.ReasonDestination, frame(frameARP)),
		rule(jump(name(partOutType))),
		deny(core.ReasonDestination, frameMarked(0, m.dest|m.mine)),
		rule(frameMarked(m.pass, m.pass|m.routed), accept()),
		rule(frameMarked(m.routed|v.slot, m.routed|v.slot), accept()),
		v.deniedRouted(),
		deny(core.ReasonUnfiltered),
	)
	v.set(nat, name(partOut), append(out, v.layout.frameRows(v)...)...)
	v.set(nat, name(partOutType), rule(frame(frameIPv4), giveBack()), rule(frame(frameIPv6), giveBack()), deny(core.ReasonEtherType))
	v.layout.addFrameChains(nat, v)
}

// deniedRouted drops what was routed to the NIC and not let in. Where no other
// NIC has the address, it was counted when it was denied.
func (v nicView) deniedRouted() xtables.Rule {
	r := v.ingress().denyFrame(core.ReasonIngressRules, "ACCEPT", frameMarked(v.marks.routed, v.marks.routed))
	if !v.shared {
		r.Label = nil
	}
	return r
}
