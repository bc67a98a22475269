package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func u8(v uint8) *uint8 { return &v }

// EgressAndPeers shows egress rules, remote groups, ICMP, other protocols, and
// that families are judged apart.
func EgressAndPeers() []Scenario {
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		echo, icmp := uint8(8), core.ProtocolICMP
		if e.family == core.IPv6 {
			echo, icmp = 128, core.ProtocolICMPv6
		}
		out = append(out,
			Scenario{
				Name: "egress rules/" + n, Rows: []string{"sender 24", "sender 25", "sender 26"},
				World: egress(allow(core.Egress, core.ProtocolTCP, ports(443, 443), cidrs("10.0.0.0/29", "fd00::/125"))),
				Steps: []Step{
					{Name: "allowed", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1, 443), Want: true, Reason: core.ReasonRule},
					{Name: "other port", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(2, 444), Reason: core.ReasonEgressRules},
					{Name: "outside the prefix", From: "vnet0", To: "uplink", Frame: e.au.SYN(3, 443), Reason: core.ReasonEgressRules},
					{Name: "to the host too", From: "vnet0", To: "host", Frame: toHost(e, 4, 80), Reason: core.ReasonEgressRules},
					{Name: "no dns", From: "vnet0", To: "uplink", Frame: e.au.UDP(5, 53), Reason: core.ReasonEgressRules},
				},
			},
			Scenario{
				Name: "dns always/" + n, Rows: []string{"sender 23"}, World: dns(),
				Steps: []Step{
					{Name: "udp", From: "vnet0", To: "uplink", Frame: e.au.UDP(5, 53), Want: true, Reason: core.ReasonAlways},
					{Name: "tcp", From: "vnet0", To: "uplink", Frame: e.au.SYN(6, 53), Want: true},
					{Name: "not 54", From: "vnet0", To: "uplink", Frame: e.au.UDP(7, 54), Reason: core.ReasonEgressRules},
					{Name: "not into a vm", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(8, 53), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				Name: "egress explicit/" + n, Rows: []string{"sender 26"}, World: explicit(),
				Steps: []Step{{Name: "nothing", From: "vnet0", To: "uplink", Frame: e.au.UDP(5, 99), Reason: core.ReasonEgressRules}},
			},
			Scenario{
				Name: "icmp/" + n, Rows: []string{"receiver 16"},
				World: pair(core.Rule{Direction: core.Ingress, Protocol: icmp, ICMP: &core.ICMPMatch{Type: u8(echo), Code: u8(0)}}),
				Steps: []Step{
					{Name: "echo", From: "vnet0", To: "vnet1", Frame: e.ab.Echo(7), Want: true},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.EchoReply(7), Want: true},
					{Name: "answer unasked", From: "uplink", To: "vnet0", Frame: e.ua.EchoReply(9), Reason: core.ReasonInvalid},
					{Name: "udp", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 2), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				Name: "icmp any/" + n, Rows: []string{"receiver 16"},
				World: pair(core.Rule{Direction: core.Ingress, Protocol: icmp}),
				Steps: []Step{
					{Name: "echo", From: "vnet0", To: "vnet1", Frame: e.ab.Echo(7), Want: true},
					{Name: "error for nobody", From: "uplink", To: "vnet1", Frame: e.ub.Unreachable(e.ba.UDP(5, 6)), Reason: core.ReasonInvalid},
				},
			},
			Scenario{
				Name: "remote group/" + n, Rows: []string{"receiver 16", "Rules and families 1", "Rules and families 4"}, World: remote(),
				Steps: []Step{
					{Name: "member", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1, 22), Want: true, Reason: core.ReasonRule},
					{Name: "other port", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(2, 23), Reason: core.ReasonIngressRules},
					{Name: "no member", From: "uplink", To: "vnet1", Frame: e.ub.SYN(3, 22), Reason: core.ReasonIngressRules},
					{Name: "empty group allows nobody", From: "vnet1", To: "vnet0", Frame: e.ba.SYN(4, 22), Reason: core.ReasonIngressRules},
					{Name: "member leaves", Change: func(w *World) { w.VMs[0].NICs[0].Groups = []string{"empty-user"} }},
					{Name: "no more", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(5, 22), Reason: core.ReasonIngressRules},
					{Name: "a remote member joins", Change: func(w *World) {
						w.VMs = append(w.VMs, core.VM{Key: "elsewhere", Name: "elsewhere", NICs: []core.NIC{{MAC: macC, Addresses: []netip.Addr{u4, u6}, Groups: []string{"ga"},
							Binding: core.Binding{Point: "another-host"}}}})
					}},
					{Name: "from another host", From: "uplink", To: "vnet1", Frame: e.ub.SYN(6, 22), Want: true},
				},
			},
			Scenario{
				Name: "protocols/" + n, Rows: []string{"receiver 16"},
				World: pair(allow(core.Ingress, 47, nil, nil), allow(core.Ingress, core.ProtocolSCTP, ports(5000, 5001), nil), allow(core.Ingress, 112, nil, cidrs("10.0.0.1/32", "fd00::1/128"))),
				Steps: []Step{
					{Name: "gre", From: "uplink", To: "vnet1", Frame: e.ub.Raw(47), Want: true},
					{Name: "esp", From: "uplink", To: "vnet1", Frame: e.ub.Raw(50), Reason: core.ReasonIngressRules},
					{Name: "vrrp from a", From: "vnet0", To: "vnet1", Frame: e.ab.Raw(112), Want: true},
					{Name: "vrrp from u", From: "uplink", To: "vnet1", Frame: e.ub.Raw(112), Reason: core.ReasonIngressRules},
					{Name: "sctp", From: "uplink", To: "vnet1", Frame: e.ub.SCTP(1, 5001), Want: true},
					{Name: "sctp other", From: "uplink", To: "vnet1", Frame: e.ub.SCTP(1, 5002), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				Name: "nested prefixes/" + n, Rows: []string{"receiver 16"},
				World: pair(
					allow(core.Ingress, core.ProtocolTCP, ports(100, 200), cidrs("10.0.0.0/8", "fd00::/16")),
					allow(core.Ingress, core.ProtocolTCP, ports(150, 300), cidrs("10.0.0.8/29", "fd00::8/125")),
					allow(core.Ingress, core.ProtocolTCP, ports(50, 120), cidrs("10.0.0.9/32", "fd00::9/128")),
					allow(core.Ingress, core.ProtocolUDP, nil, cidrs("10.0.0.9/32", "fd00::9/128")),
					allow(core.Ingress, core.ProtocolUDP, ports(7, 7), cidrs("0.0.0.0/0", "::/0"))),
				Steps: []Step{
					{Name: "wide", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1, 200), Want: true},
					{Name: "not the narrow's", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(2, 201)},
					{Name: "narrow", From: "uplink", To: "vnet1", Frame: e.ub.SYN(3, 300), Want: true},
					{Name: "narrowest", From: "uplink", To: "vnet1", Frame: e.ub.SYN(4, 50), Want: true},
					{Name: "wide from within", From: "uplink", To: "vnet1", Frame: e.ub.SYN(5, 130), Want: true},
					{Name: "none", From: "uplink", To: "vnet1", Frame: e.ub.SYN(6, 301)},
					{Name: "any udp", From: "uplink", To: "vnet1", Frame: e.ub.UDP(7, 9999), Want: true},
					{Name: "one udp", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(8, 7), Want: true},
					{Name: "no other udp", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(9, 8)},
				},
			},
			Scenario{
				Name: "synthetic group/" + n, Rows: []string{"Rules and families 1", "sender 23", "receiver 15"}, World: cloudstack(),
				Steps: []Step{
					{Name: "flat rule", From: "uplink", To: "vnet0", Frame: e.ua.SYN(1, 22), Want: true},
					{Name: "all else", From: "uplink", To: "vnet0", Frame: e.ua.SYN(2, 23), Reason: core.ReasonIngressRules},
					{Name: "dns", From: "vnet0", To: "uplink", Frame: e.au.UDP(3, 53), Want: true},
					{Name: "egress", From: "vnet0", To: "uplink", Frame: e.au.UDP(4, 99), Want: e.family == core.IPv6},
					{Name: "echo in", From: "uplink", To: "vnet0", Frame: e.ua.Echo(3), Want: e.family == core.IPv4},
				},
			},
		)
	}
	out = append(out, Scenario{
		Name: "families apart", Rows: []string{"Rules and families 1", "Rules and families 3"},
		World: pair(allow(core.Ingress, core.ProtocolTCP, ports(80, 80), cidrs("0.0.0.0/0")), allow(core.Ingress, core.ProtocolUDP, ports(80, 80), &core.Peers{})),
		Steps: []Step{
			{Name: "v4", From: "uplink", To: "vnet1", Frame: families()[0].ub.SYN(1, 80), Want: true},
			{Name: "v6 not", From: "uplink", To: "vnet1", Frame: families()[1].ub.SYN(1, 80), Reason: core.ReasonIngressRules},
			{Name: "no peers: nobody", From: "uplink", To: "vnet1", Frame: families()[0].ub.UDP(1, 80), Reason: core.ReasonIngressRules},
			{Name: "no peers: nobody v6", From: "uplink", To: "vnet1", Frame: families()[1].ub.UDP(1, 80), Reason: core.ReasonIngressRules},
		},
	}, Scenario{
		Name: "egress families apart", Rows: []string{"sender 25", "Rules and families 2"},
		World: egress(allow(core.Egress, core.AnyProtocol, nil, cidrs("10.0.0.2/32"))),
		Steps: []Step{
			{Name: "v4 denied", From: "vnet0", To: "uplink", Frame: families()[0].au.UDP(1, 2), Reason: core.ReasonEgressRules},
			{Name: "v6 open", From: "vnet0", To: "uplink", Frame: families()[1].au.UDP(1, 2), Want: true, Reason: core.ReasonDefault},
		},
	})
	return out
}

// egress gives a the rules; b takes everything in.
func egress(rules ...core.Rule) World {
	w := pair(allow(core.Ingress, core.AnyProtocol, nil, nil))
	w.Groups[0].Rules = rules
	w.Bridges = map[string][]netip.Prefix{"br0": prefixes("10.0.0.254/24", "fd00::fe/64")}
	return w
}

func toHost(e ends, src, dst uint16) policy.Frame {
	p := policy.Path{SrcMAC: macA, DstMAC: core.MAC{2, 0, 0, 0, 0xfe, 0}, Src: e.a, Dst: netip.MustParseAddr("10.0.0.254")}
	if e.family == core.IPv6 {
		p.Dst = netip.MustParseAddr("fd00::fe")
	}
	return p.UDP(src, dst)
}

func dns() World {
	w := locked()
	w.Options.AllowDNS = true
	return w
}

func explicit() World {
	w := pair()
	w.Options.EgressDefault = core.EgressExplicit
	return w
}

// remote lets b be reached on 22 by members of a's group, and a by those of a
// group without members.
func remote() World {
	w := pair(allow(core.Ingress, core.ProtocolTCP, ports(22, 22), &core.Peers{Groups: []string{"ga"}}))
	w.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, ports(22, 22), &core.Peers{Groups: []string{"empty"}})}
	w.Groups = append(w.Groups, core.Group{Name: "empty"}, core.Group{Name: "empty-user"})
	return w
}

// cloudstack is a VM with flat rules in a group of its own.
func cloudstack() World {
	w := pair()
	w.Options.AllowDNS, w.Options.Multicast = true, core.MulticastDrop
	name := core.ReservedGroupPrefix + "i-2-7-VM"
	w.Groups = append(w.Groups, core.Group{Name: name, Rules: []core.Rule{
		allow(core.Ingress, core.ProtocolTCP, ports(22, 22), cidrs("10.0.0.0/8", "fd00::/8")),
		{Direction: core.Ingress, Protocol: core.ProtocolICMP, Peers: cidrs("0.0.0.0/0")},
		allow(core.Egress, core.ProtocolTCP, ports(80, 80), cidrs("0.0.0.0/0")),
	}})
	w.VMs[0].NICs[0].Groups = []string{name}
	return w
}
