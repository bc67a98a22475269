package policy

import (
	"github.com/ringwall/ringwall/core"
)

var receiverRows = []row{
	{1, receiverOutside},
	{2, receiverClosed},
	{3, receiverSystem},
	{4, receiverFromHost},
	{5, receiverForm},
	{6, receiverARP},
	{7, receiverDestination},
	{8, receiverUnfiltered},
	{9, receiverDead},
	{10, receiverFlow},
	{11, receiverDHCPAnswer},
	{12, receiverDHCPRequest},
	{13, receiverNDAndMLD},
	{14, receiverHomeless},
	{15, receiverMulticast},
	{16, receiverRules},
	{17, receiverDenied},
}

func judgeReceiver(rs *core.Ruleset, f Frame, from, to Port, state State) Opinion {
	q := ask(AtReceiver, rs, f, from, to, state)
	return *firstOf(receiverRows, q) // the last row always has an opinion
}

func receiverOutside(q *question) *Opinion {
	switch q.to.Kind {
	case PortHost, PortRouted, PortUplink:
		return pass(core.ReasonUplink)
	}
	return nil
}

func receiverClosed(q *question) *Opinion {
	if q.to.Kind != PortNIC {
		return drop(core.ReasonClosedPort)
	}
	return nil
}

func receiverSystem(q *question) *Opinion {
	if q.nic.Kind == core.SystemVM {
		return pass(core.ReasonSystem)
	}
	return nil
}

func receiverFromHost(q *question) *Opinion {
	if q.from.Kind == PortHost {
		return pass(core.ReasonHost)
	}
	return nil
}

func receiverForm(q *question) *Opinion {
	switch {
	case len(q.frame.Tags) > 0:
		return drop(core.ReasonVLAN)
	case q.frame.EtherType != TypeARP && !isIP(q.frame):
		return drop(core.ReasonEtherType)
	}
	return nil
}

func receiverARP(q *question) *Opinion {
	switch {
	case q.frame.EtherType != TypeARP:
		return nil
	case q.frame.Dst.IsGroup(), q.nic.hasMAC(q.frame.Dst), !q.nic.checked():
		return pass(core.ReasonAlways)
	}
	return drop(core.ReasonDestination)
}

func receiverDestination(q *question) *Opinion {
	if q.frame.Dst.IsGroup() || !q.nic.checked() {
		return nil
	}
	if q.family == 0 || !q.nic.hasEnd(q.frame.Dst, q.frame.IP.Dst) {
		return drop(core.ReasonDestination)
	}
	return nil
}

func receiverUnfiltered(q *question) *Opinion { return senderUnfiltered(q) }

func receiverDead(q *question) *Opinion { return senderDead(q) }

func receiverFlow(q *question) *Opinion {
	switch {
	case q.frame.Dst.IsGroup() || q.homeless():
	case q.state == StateEstablished, q.state == StateAstrayReply:
		return pass(core.ReasonEstablished)
	case q.state == StateRelated:
		return pass(core.ReasonRelated)
	}
	return nil
}

func receiverDHCPAnswer(q *question) *Opinion {
	server, client := dhcpPorts(q.family)
	if u, ok := q.udp(); !ok || u != (UDP{server, client}) {
		return nil
	}
	if q.family == core.IPv4 || q.frame.IP.Dst.IsLinkLocalUnicast() {
		return pass(core.ReasonAlways)
	}
	return nil
}

func receiverDHCPRequest(q *question) *Opinion {
	server, _ := dhcpPorts(q.family)
	if u, ok := q.udp(); ok && u.DstPort == server {
		return drop(core.ReasonDHCPGuard)
	}
	return nil
}

func receiverNDAndMLD(q *question) *Opinion {
	m, _ := q.icmpv6()
	switch m.Type {
	case ICMPv6MLDQuery, ICMPv6MLDReport, ICMPv6MLDDone, ICMPv6MLDv2Report:
		return pass(core.ReasonAlways)
	case ICMPv6RouterSolicitation, ICMPv6RouterAdvertisement, ICMPv6NeighbourSolicitation,
		ICMPv6NeighbourAdvertisement, ICMPv6Redirect:
		if q.frame.IP.HopLimit == 255 {
			return pass(core.ReasonAlways)
		}
	}
	return nil
}

func receiverHomeless(q *question) *Opinion {
	if q.homeless() {
		return drop(core.ReasonDestination)
	}
	return nil
}

func receiverMulticast(q *question) *Opinion {
	if q.frame.Dst.IsGroup() && q.rs.Options.Multicast == core.MulticastDrop {
		return drop(core.ReasonMulticast)
	}
	return nil
}

func receiverRules(q *question) *Opinion {
	return byRule(match(q.rs, q.nic.NICPolicy, core.Ingress, q.frame.IP, q.frame.IP.Src))
}

func receiverDenied(*question) *Opinion { return drop(core.ReasonIngressRules) }
