package policy

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// EvaluateFlow asks about a tracked flow's first packet as if it were new. For
// many flows use StaleFlows or a FlowJudge.
func EvaluateFlow(rs core.Ruleset, f core.Flow) Verdict { return NewFlowJudge(rs).Judge(f) }

// StaleFlows picks the flows to revoke, which no rule allows any more, and the
// revoked ones to give back.
func StaleFlows(rs core.Ruleset, flows []core.Flow) (revoke, restore []core.Flow) {
	j := NewFlowJudge(rs)
	for _, f := range flows {
		switch allowed := j.Judge(f).Allowed; {
		case !allowed && !f.Revoked:
			revoke = append(revoke, f)
		case allowed && f.Revoked:
			restore = append(restore, f)
		}
	}
	return revoke, restore
}

// FlowJudge evaluates flows by one ruleset. It finds their NICs by address.
type FlowJudge struct {
	rs      core.Ruleset
	sole    map[site][]core.NICKey // own and link-local addresses, single pairs
	ranges  []pairRange            // pairs that are prefixes
	bridges []string
}

// site is an address on a bridge.
type site struct {
	bridge string
	addr   netip.Addr
}

type pairRange struct {
	bridge string
	prefix netip.Prefix
	nic    core.NICKey
}

// NewFlowJudge indexes the NICs of a ruleset.
func NewFlowJudge(rs core.Ruleset) *FlowJudge {
	j := &FlowJudge{rs: rs, sole: map[site][]core.NICKey{}}
	for k, n := range rs.NICs {
		put := func(a netip.Addr) {
			if at := (site{n.Bridge, a}); !slices.Contains(j.sole[at], k) {
				j.sole[at] = append(j.sole[at], k)
			}
		}
		put(k.MAC.LinkLocal())
		for _, a := range n.Addresses {
			put(a)
		}
		for _, p := range n.Pairs {
			put(holder{n}.pairMAC(p).LinkLocal())
			if p.Prefix.IsSingleIP() {
				put(p.Prefix.Addr())
			} else {
				j.ranges = append(j.ranges, pairRange{n.Bridge, p.Prefix, k})
			}
		}
		if !slices.Contains(j.bridges, n.Bridge) {
			j.bridges = append(j.bridges, n.Bridge)
		}
	}
	return j
}

// Judge asks about the flow's first packet as new, at the NICs that the
// backend names, or else at those that have its addresses. Where an address
// may be that of several (shared pairs) or of an outsider too (pairs that are
// prefixes), a flow is allowed when any of them may have it.
func (j *FlowJudge) Judge(f core.Flow) Verdict {
	var worst Verdict
	for _, from := range j.senders(f) {
		for _, to := range j.ends(f.Bridge, f.Dst, f.To) {
			v := j.judge(f, from, to)
			if v.Allowed && !v.WouldDrop {
				return v
			}
			if worst.Reason == "" {
				worst = v
			}
		}
	}
	return worst
}

func (j *FlowJudge) senders(f core.Flow) []Port {
	if f.HostSrc {
		return []Port{Host}
	}
	return j.ends(f.Bridge, f.Src, f.From)
}

// ends are the ports that an address of a flow may be behind, NICs first.
func (j *FlowJudge) ends(bridge string, a netip.Addr, hint core.NICKey) []Port {
	// A NIC that went has left the flow to whoever has its address now, or to
	// the host it migrated to.
	if _, ok := j.rs.NICs[hint]; ok {
		return []Port{AtNIC(hint)}
	}
	outside, bridges := Uplink, []string{bridge}
	if bridge == "" {
		outside, bridges = Routed, j.bridges
	}
	var ps []Port
	for _, b := range bridges {
		for _, k := range j.sole[site{b, a}] {
			ps = append(ps, AtNIC(k))
		}
	}
	if len(ps) > 0 {
		return ps
	}
	for _, r := range j.ranges {
		if slices.Contains(bridges, r.bridge) && r.prefix.Contains(a) && !slices.Contains(ps, AtNIC(r.nic)) {
			ps = append(ps, AtNIC(r.nic))
		}
	}
	return append(ps, outside)
}

// judge asks both ports about one frame. Where the host routes it is two, whose
// other MACs neither port is asked about.
func (j *FlowJudge) judge(f core.Flow, from, to Port) Verdict {
	frame := Path{SrcMAC: j.macOf(from, f.Src), DstMAC: j.macOf(to, f.Dst), Src: f.Src, Dst: f.Dst}.Packet(firstTransport(f))
	return Evaluate(j.rs, frame, from, to, StateNew)
}

// outsiderMAC stands for any machine that is not a VM here.
var outsiderMAC = core.MAC{0x02, 0xff, 0xff, 0xff, 0xff, 0xff}

// macOf is the MAC that goes with an address at a port.
func (j *FlowJudge) macOf(p Port, a netip.Addr) core.MAC {
	if a.IsMulticast() || a == Broadcast {
		return GroupMAC(a)
	}
	n, ok := j.rs.NICs[p.NIC]
	if !ok {
		return outsiderMAC
	}
	h := holder{n}
	for _, pair := range n.Pairs {
		if m := h.pairMAC(pair); !h.hasEnd(n.Key.MAC, a) && h.hasEnd(m, a) {
			return m
		}
	}
	return n.Key.MAC
}

// firstTransport is what the flow's first packet carried.
func firstTransport(f core.Flow) Transport {
	switch f.Protocol {
	case core.ProtocolTCP:
		return TCP{f.SrcPort, f.DstPort, SYN}
	case core.ProtocolUDP:
		return UDP{f.SrcPort, f.DstPort}
	case core.ProtocolSCTP:
		return SCTP{f.SrcPort, f.DstPort}
	case core.ProtocolICMP:
		return ICMP{Type: uint8(f.DstPort >> 8), Code: uint8(f.DstPort), ID: f.SrcPort}
	case core.ProtocolICMPv6:
		return ICMPv6{Type: uint8(f.DstPort >> 8), Code: uint8(f.DstPort), ID: f.SrcPort}
	}
	return Raw(f.Protocol)
}
