package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Found holds what generated tests once found: cases in which packets and
// evaluator disagreed, cut down to what it took.
func Found() []Scenario {
	var out []Scenario
	synack := policy.SYN | policy.ACK
	for _, e := range families() {
		n := e.family.String()
		web := allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)
		itself := func(mac, to core.MAC, a netip.Addr) policy.Path {
			return policy.Path{SrcMAC: mac, DstMAC: to, Src: a, Dst: a}
		}
		out = append(out,
			Scenario{
				// Backends deleted the flow to give it back, and took the
				// server's next packet for a new one.
				Name: "given back, the server speaks first/" + n, Rows: []string{"Flows 1"}, World: pair(web), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "syn", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1000, 80), Want: true},
					{Name: "synack", From: "vnet1", To: "vnet0", Frame: e.ba.TCP(80, 1000, synack), Want: true},
					{Name: "ack", From: "vnet0", To: "vnet1", Frame: e.ab.TCP(1000, 80, policy.ACK), Want: true},
					{Name: "the rule goes", Change: func(w *World) { w.Groups[1].Rules = nil }},
					{Name: "cut", From: "vnet1", To: "vnet0", Frame: e.ba.TCP(80, 1000, policy.ACK), Reason: core.ReasonRevoked},
					{Name: "the rule comes back", Change: func(w *World) { w.Groups[1].Rules = []core.Rule{web} }},
					{Name: "the server", From: "vnet1", To: "vnet0", Frame: e.ba.TCP(80, 1000, policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "the client", From: "vnet0", To: "vnet1", Frame: e.ab.TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				// The first packet of a flow may be all that there was of it.
				Name: "revoked before any answer/" + n, Rows: []string{"sender 14", "receiver 9", "Flows 1"}, World: pair(web), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "syn", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 80), Want: true},
					{Name: "the rule goes", Change: func(w *World) { w.Groups[1].Rules = nil }},
					{Name: "syn again", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 80), Reason: core.ReasonRevoked},
					{Name: "an answer", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, synack), Reason: core.ReasonRevoked},
				},
			},
			Scenario{
				// A refusal ends a flow at once: the ports are free both ways.
				Name: "refused/" + n, Rows: []string{"Flows 1"}, World: pair(web),
				Steps: []Step{
					{Name: "syn", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 80), Want: true},
					{Name: "rst", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.RST|policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "and once more", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.RST|policy.ACK), Reason: core.ReasonInvalid},
					{Name: "the server opens", From: "vnet1", To: "uplink", Frame: e.bu.SYN(80, 1000), Want: true, Reason: core.ReasonDefault},
					{Name: "the client answers", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 80, synack), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				// Of a flow from an address to itself both directions are one.
				Name: "to oneself/" + n, Rows: []string{"Flows 1"}, World: pair(),
				Steps: []Step{
					{Name: "unasked", From: "uplink", To: "vnet0", Frame: itself(macU, macA, e.a).Raw(47), Reason: core.ReasonIngressRules},
					{Name: "out", From: "vnet0", To: "uplink", Frame: itself(macA, macU, e.a).Raw(47), Want: true, Reason: core.ReasonDefault},
					{Name: "and back", From: "uplink", To: "vnet0", Frame: itself(macU, macA, e.a).Raw(47), Want: true, Reason: core.ReasonEstablished},
				},
			},
			sameVirtualMAC(e),
			Scenario{
				// Tagged packets are not looked into, and begin no flow.
				Name: "a tagged packet begins no flow/" + n, Rows: []string{"sender 3", "receiver 17"},
				World: with(pair(), func(w *World) {
					router := vm("router", nic(macC, "vnet2", nil, c4, c6))
					router.Kind = core.SystemVM
					w.VMs = append(w.VMs, router)
				}),
				Steps: []Step{
					{Name: "tagged, as if from a", From: "vnet2", To: "uplink", Frame: e.au.UDP(1000, 53).Tagged(5), Want: true, Reason: core.ReasonSystem},
					{Name: "the bridge learns where a is", From: "vnet0", To: "uplink", Frame: policy.GratuitousARP(macA, a4), Want: true},
					{Name: "no answer to a", From: "uplink", To: "vnet0", Frame: e.ua.UDP(53, 1000), Reason: core.ReasonIngressRules},
				},
			},
		)
	}
	for _, f := range fars() {
		out = append(out, priorityTags(f))
	}
	return append(out, virtualMACs(), virtualMACWithoutIPv6())
}

// sameVirtualMAC: routers on two bridges use the same virtual MAC, as VRRP has
// them; whether one may spoof is not for the other's bridge to say.
func sameVirtualMAC(e ends) Scenario {
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	vip := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.100"), core.IPv6: netip.MustParseAddr("fd00::100")}[e.family]
	w := twoBridges()
	w.VMs[0].NICs[0].SpoofingAllowed = true
	w.VMs[2].NICs[0].Pairs = []core.AddressPair{{Prefix: netip.PrefixFrom(vip, vip.BitLen()), MAC: virtual}}
	p := policy.Path{SrcMAC: virtual, DstMAC: macU, Src: vip, Dst: e.u}
	return Scenario{
		Name: "a virtual mac of two bridges/" + e.family.String(), Rows: []string{"sender 16"}, World: w,
		Steps: []Step{
			{Name: "query", From: "vnet0", To: "uplink", Frame: p.UDP(1000, 53), Want: true},
			{Name: "answer", From: "uplink", To: "vnet0", Frame: p.Reverse().UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
			{Name: "an error about it", From: "vnet0", To: "uplink", Frame: p.Unreachable(p.Reverse().UDP(53, 1000)), Want: true, Reason: core.ReasonRelated},
		},
	}
}

// priorityTags: the host takes them off what it routes, which then is a packet as
// any other. The tags of a VLAN make it nobody's.
func priorityTags(f far) Scenario {
	router := core.MAC{2, 0, 0, 0, 0, 0x0d}
	addr := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.5"), core.IPv6: netip.MustParseAddr("fd00::5")}
	w := with(routedWorld(allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)), func(w *World) {
		s := vm("router", nic(router, "vnet3", nil, addr[core.IPv4], addr[core.IPv6]))
		s.Kind = core.SystemVM
		w.VMs = append(w.VMs, s)
	})
	to := func(dst netip.Addr) policy.Path {
		return policy.Path{SrcMAC: router, DstMAC: Router(0), Src: addr[f.family], Dst: dst}
	}
	back := policy.Path{SrcMAC: macC, DstMAC: Router(1), Src: f.r, Dst: addr[f.family]}
	return Scenario{
		Name: "priority tags are routed/" + f.family.String(), Rows: []string{"Ports routed", "sender 3", "sender 5", "receiver 16", "receiver 17"}, World: w,
		Steps: []Step{
			{Name: "to a vm", From: "vnet3", To: "vnet2", Frame: to(f.r).SYN(1000, 80).Tagged(0), Want: true, Reason: core.ReasonRule},
			{Name: "its answer", From: "vnet2", To: "vnet3", Frame: back.TCP(80, 1000, policy.SYN|policy.ACK), Want: true, Reason: core.ReasonSystem},
			{Name: "and on, without a tag", From: "vnet3", To: "vnet2", Frame: to(f.r).TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
			{Name: "and with it", From: "vnet3", To: "vnet2", Frame: to(f.r).TCP(1000, 80, policy.ACK).Tagged(0), Want: true, Reason: core.ReasonEstablished},
			{Name: "by no rule", From: "vnet3", To: "vnet2", Frame: to(f.r).SYN(1001, 81).Tagged(0), Reason: core.ReasonIngressRules},
			{Name: "to behind the host", From: "vnet3", To: "x", Frame: to(f.x).UDP(1, 2).Tagged(0), Want: true, Reason: core.ReasonSystem},
			{Name: "a VLAN's", From: "vnet3", To: "vnet2", Frame: to(f.r).SYN(1002, 80).Tagged(5), Uncounted: true},
			{Name: "from a user VM", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(1003, 80).Tagged(0), Reason: core.ReasonVLAN},
		},
	}
}

// virtualMACWithoutIPv6: the virtual MAC of an IPv4 address speaks ND from its
// link-local address, as the NIC's own does, though the NIC has no IPv6.
func virtualMACWithoutIPv6() Scenario {
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	ll := virtual.LinkLocal()
	w := bare()
	w.VMs[0].NICs[0].Pairs = []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.100/32"), MAC: virtual}}
	return Scenario{
		Name: "a virtual mac on a nic without ipv6", Rows: []string{"sender 21", "sender 22", "receiver 13", "receiver 14"}, World: w,
		Steps: []Step{
			{Name: "solicits", From: "vnet0", To: "uplink", Frame: policy.Solicitation(virtual, ll, u6), Want: true, Reason: core.ReasonAlways},
			{Name: "dhcpv6", From: "vnet0", To: "uplink", Frame: policy.DHCPv6Solicit(virtual, ll), Want: true, Reason: core.ReasonAlways},
			{Name: "data", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: virtual, DstMAC: macU, Src: ll, Dst: macU.LinkLocal()}.UDP(1, 2), Reason: core.ReasonIPSpoof},
			{Name: "with the own mac", From: "vnet0", To: "uplink", Frame: policy.Solicitation(macA, ll, u6), Reason: core.ReasonIPSpoof},
			{Name: "is solicited", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: virtual, Src: macU.LinkLocal(), Dst: ll}.Packet(policy.ICMPv6{Type: policy.ICMPv6NeighbourSolicitation, Target: ll}), Want: true, Reason: core.ReasonAlways},
			{Name: "advertises", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: virtual, DstMAC: macU, Src: ll, Dst: macU.LinkLocal()}.Advertisement(ll), Want: true, Reason: core.ReasonAlways},
			{Name: "hears data", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: virtual, Src: macU.LinkLocal(), Dst: ll}.UDP(1, 2), Reason: core.ReasonDestination},
		},
	}
}

// virtualMACs: a NIC speaks for its own addresses with any of its MACs before it
// has them, and only reports.
func virtualMACs() Scenario {
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	unspecified := netip.IPv6Unspecified()
	w := locked()
	w.VMs[0].NICs[0].Pairs = []core.AddressPair{{Prefix: netip.MustParsePrefix("fd00::100/128"), MAC: virtual}}
	done := policy.Multicast(macA, unspecified, policy.AllRouters).Packet(policy.ICMPv6{Type: policy.ICMPv6MLDDone})
	return Scenario{
		Name: "a virtual mac without an address", Rows: []string{"sender 11", "sender 20", "sender 21", "receiver 11"}, World: w,
		Steps: []Step{
			{Name: "own address", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, a6), Want: true, Reason: core.ReasonAlways},
			{Name: "the pair's address", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, netip.MustParseAddr("fd00::100")), Reason: core.ReasonIPSpoof},
			{Name: "another's", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, b6), Reason: core.ReasonIPSpoof},
			{Name: "dhcpv6", From: "vnet0", To: "uplink", Frame: policy.DHCPv6Solicit(virtual, virtual.LinkLocal()), Want: true, Reason: core.ReasonAlways},
			{Name: "dhcpv6 answer", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: virtual, Src: macU.LinkLocal(), Dst: virtual.LinkLocal()}.UDP(547, 546), Want: true, Reason: core.ReasonAlways},
			{Name: "report", From: "vnet0", To: "uplink", Frame: policy.MLDReport(virtual, unspecified), Want: true, Reason: core.ReasonAlways},
			{Name: "report with a foreign mac", From: "vnet0", To: "uplink", Frame: policy.MLDReport(macC, unspecified), Reason: core.ReasonMACSpoof},
			{Name: "done", From: "vnet0", To: "uplink", Frame: done, Reason: core.ReasonIPSpoof},
		},
	}
}
