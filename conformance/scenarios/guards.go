package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Guards shows DHCP, neighbour discovery, router advertisements and MLD.
func Guards() []Scenario {
	llA, llB, llU := macA.LinkLocal(), macB.LinkLocal(), macU.LinkLocal()
	unspecified := netip.IPv6Unspecified()
	e4, e6 := families()[0], families()[1]
	dad := func(target netip.Addr) policy.Frame { return policy.DAD(macA, target) }
	na := func(src, target netip.Addr) policy.Frame {
		return policy.Path{SrcMAC: macA, DstMAC: macU, Src: src, Dst: u6}.Advertisement(target)
	}
	return []Scenario{
		{
			Name: "dhcp", Rows: []string{"sender 10", "sender 19", "sender 20", "receiver 11", "receiver 12"}, World: locked(),
			Steps: []Step{
				{Name: "discover", From: "vnet0", To: "uplink", Frame: policy.DHCPDiscover(macA), Want: true, Reason: core.ReasonAlways},
				{Name: "discover to vm", From: "vnet0", To: "vnet1", Frame: policy.DHCPDiscover(macA), Reason: core.ReasonDHCPGuard},
				{Name: "discover with another's mac", From: "vnet0", To: "uplink", Frame: policy.DHCPDiscover(macB), Reason: core.ReasonMACSpoof},
				{Name: "from 0.0.0.0 elsewhere", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: netip.IPv4Unspecified(), Dst: u4}.UDP(68, 67), Reason: core.ReasonDHCPGuard},
				{Name: "from 0.0.0.0 other port", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: core.BroadcastMAC, Src: netip.IPv4Unspecified(), Dst: policy.Broadcast}.UDP(69, 67), Reason: core.ReasonIPSpoof},
				{Name: "renew", From: "vnet0", To: "uplink", Frame: e4.au.UDP(68, 67), Want: true},
				{Name: "offer", From: "uplink", To: "vnet0", Frame: e4.ua.UDP(67, 68), Want: true},
				{Name: "offer to all", From: "uplink", To: "vnet0", Frame: policy.Multicast(macU, u4, policy.Broadcast).UDP(67, 68), Want: true},
				{Name: "rogue offer", From: "vnet0", To: "uplink", Frame: e4.au.UDP(67, 68), Reason: core.ReasonDHCPGuard},
				{Name: "rogue offer to vm", From: "vnet0", To: "vnet1", Frame: policy.Multicast(macA, a4, policy.Broadcast).UDP(67, 68), Reason: core.ReasonDHCPGuard},
				{Name: "request towards a vm", From: "uplink", To: "vnet0", Frame: e4.ua.UDP(68, 67), Reason: core.ReasonDHCPGuard},
				{Name: "server port to any", From: "vnet0", To: "uplink", Frame: e4.au.UDP(67, 4000), Reason: core.ReasonDHCPGuard},
			},
		},
		{
			Name: "dhcpv6", Rows: []string{"sender 19", "sender 20", "receiver 11", "receiver 12"}, World: locked(),
			Steps: []Step{
				{Name: "solicit", From: "vnet0", To: "uplink", Frame: policy.DHCPv6Solicit(macA, llA), Want: true},
				{Name: "solicit from global", From: "vnet0", To: "uplink", Frame: policy.DHCPv6Solicit(macA, a6), Reason: core.ReasonDHCPGuard},
				{Name: "solicit to vm", From: "vnet0", To: "vnet1", Frame: policy.DHCPv6Solicit(macA, llA), Reason: core.ReasonDHCPGuard},
				{Name: "advertise", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: llU, Dst: llA}.UDP(547, 546), Want: true},
				{Name: "advertise to global", From: "uplink", To: "vnet0", Frame: e6.ua.UDP(547, 546), Reason: core.ReasonIngressRules},
				{Name: "rogue", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: llA, Dst: llU}.UDP(547, 546), Reason: core.ReasonDHCPGuard},
			},
		},
		{
			Name: "nd", Rows: []string{"sender 11", "sender 17", "sender 21", "receiver 13"}, World: locked(),
			Steps: []Step{
				{Name: "dad", From: "vnet0", To: "uplink", Frame: dad(a6), Want: true},
				{Name: "dad link-local", From: "vnet0", To: "uplink", Frame: dad(llA), Want: true},
				{Name: "dad of another's", From: "vnet0", To: "uplink", Frame: dad(b6), Reason: core.ReasonIPSpoof},
				{Name: "dad to the wrong group", From: "vnet0", To: "uplink", Frame: policy.Multicast(macA, unspecified, policy.AllNodes).Packet(policy.ICMPv6{Type: policy.ICMPv6NeighbourSolicitation, Target: a6})},
				{Name: "solicit", From: "vnet0", To: "vnet1", Frame: policy.Solicitation(macA, a6, b6), Want: true},
				{Name: "solicit from link-local", From: "vnet0", To: "vnet1", Frame: policy.Solicitation(macA, llA, b6), Want: true},
				{Name: "solicit from another's", From: "vnet0", To: "vnet1", Frame: policy.Solicitation(macA, c6, b6), Reason: core.ReasonIPSpoof},
				{Name: "advertise", From: "vnet0", To: "uplink", Frame: na(a6, a6), Want: true},
				{Name: "advertise link-local", From: "vnet0", To: "uplink", Frame: na(llA, llA), Want: true},
				{Name: "advertise another's", From: "vnet0", To: "uplink", Frame: na(a6, u6), Reason: core.ReasonNDSpoof},
				{Name: "advertise from another's", From: "vnet0", To: "uplink", Frame: na(b6, a6), Reason: core.ReasonIPSpoof},
				{Name: "solicit of low hop limit", From: "vnet0", To: "uplink", Frame: policy.Solicitation(macA, a6, u6).WithHopLimit(64), Reason: core.ReasonEgressRules},
				{Name: "hears advertisement", From: "uplink", To: "vnet0", Frame: e6.ua.Advertisement(u6), Want: true},
				{Name: "hears link-local solicitation", From: "uplink", To: "vnet0", Frame: policy.Solicitation(macU, llU, llA), Want: true},
				{Name: "routed-looking advertisement", From: "uplink", To: "vnet0", Frame: e6.ua.Advertisement(u6).WithHopLimit(64), Reason: core.ReasonIngressRules},
				{Name: "vm to vm advertisement", From: "vnet1", To: "vnet0", Frame: e6.ba.Advertisement(b6), Want: true},
				{Name: "link-local of vm b", From: "vnet1", To: "vnet0", Frame: policy.Path{SrcMAC: macB, DstMAC: macA, Src: llB, Dst: llA}.Advertisement(llB), Want: true},
			},
		},
		{
			Name: "ra and mld", Rows: []string{"sender 18", "sender 21", "receiver 13", "receiver note 1"}, World: locked(),
			Steps: []Step{
				{Name: "ra in", From: "uplink", To: "vnet0", Frame: policy.RouterAdvertisement(macU, llU), Want: true},
				{Name: "ra out", From: "vnet0", To: "uplink", Frame: policy.RouterAdvertisement(macA, llA), Reason: core.ReasonRAGuard},
				{Name: "ra to vm", From: "vnet0", To: "vnet1", Frame: policy.RouterAdvertisement(macA, llA), Reason: core.ReasonRAGuard},
				{Name: "redirect out", From: "vnet0", To: "vnet1", Frame: e6.ab.Redirect(u6), Reason: core.ReasonInvalid},
				{Name: "rs", From: "vnet0", To: "uplink", Frame: policy.RouterSolicitation(macA, llA), Want: true},
				{Name: "mld report", From: "vnet0", To: "uplink", Frame: policy.MLDReport(macA, llA), Want: true},
				{Name: "mld report from ::", From: "vnet0", To: "uplink", Frame: policy.MLDReport(macA, unspecified), Want: true},
				{Name: "mld query in", From: "uplink", To: "vnet0", Frame: policy.Multicast(macU, llU, policy.AllNodes).Packet(policy.ICMPv6{Type: policy.ICMPv6MLDQuery}), Want: true},
				{Name: "mld query out", From: "vnet0", To: "uplink", Frame: policy.Multicast(macA, llA, policy.AllNodes).Packet(policy.ICMPv6{Type: policy.ICMPv6MLDQuery}), Reason: core.ReasonEgressRules},
			},
		},
		{
			Name: "no addresses", Rows: []string{"sender 22", "receiver 14", "sender note 1"}, World: bare(),
			Steps: []Step{
				{Name: "dhcp", From: "vnet0", To: "uplink", Frame: policy.DHCPDiscover(macA), Want: true},
				{Name: "ipv4", From: "vnet0", To: "uplink", Frame: e4.au.UDP(1, 2), Reason: core.ReasonIPSpoof},
				{Name: "arp", From: "vnet0", To: "uplink", Frame: policy.ARPRequest(macA, a4, u4), Reason: core.ReasonARPSpoof},
				{Name: "ipv6", From: "vnet0", To: "uplink", Frame: e6.au.UDP(1, 2), Reason: core.ReasonIPSpoof},
				{Name: "link-local data", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: llA, Dst: llU}.UDP(1, 2), Reason: core.ReasonIPSpoof},
				{Name: "link-local ping", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: llA, Dst: llU}.Echo(1), Reason: core.ReasonIPSpoof},
				{Name: "dad", From: "vnet0", To: "uplink", Frame: dad(llA), Want: true},
				{Name: "rs", From: "vnet0", To: "uplink", Frame: policy.RouterSolicitation(macA, llA), Want: true},
				{Name: "dhcpv6", From: "vnet0", To: "uplink", Frame: policy.DHCPv6Solicit(macA, llA), Want: true},
				{Name: "dhcpv6 in pieces", From: "vnet0", To: "uplink", Fragments: policy.Path{SrcMAC: macA, DstMAC: macU, Src: llA, Dst: llU}.UDP(546, 547).Fragments(31, firstPiece, datagram), Want: true, Reason: core.ReasonAlways},
				{Name: "data in pieces", From: "vnet0", To: "uplink", Fragments: policy.Path{SrcMAC: macA, DstMAC: macU, Src: llA, Dst: llU}.UDP(1, 2).Fragments(32, firstPiece, datagram), Reason: core.ReasonIPSpoof},
				{Name: "dhcpv6 answer", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: llU, Dst: llA}.UDP(547, 546), Want: true},
				{Name: "link-local data in", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: llU, Dst: llA}.UDP(1, 2), Reason: core.ReasonDestination},
				{Name: "nd in", From: "uplink", To: "vnet0", Frame: policy.Solicitation(macU, llU, llA), Want: true},
				{Name: "ipv4 in", From: "uplink", To: "vnet0", Frame: e4.ua.UDP(1, 2), Reason: core.ReasonDestination},
				{Name: "dhcp answer to all", From: "uplink", To: "vnet0", Frame: policy.Multicast(macU, u4, policy.Broadcast).UDP(67, 68), Want: true},
				{Name: "broadcast in", From: "uplink", To: "vnet0", Frame: policy.Multicast(macU, u4, policy.Broadcast).UDP(1, 4000), Reason: core.ReasonDestination},
			},
		},
	}
}

// locked is a and b with no ingress rules and an egress rule that matches
// nothing here, so that only what always passes does.
func locked() World {
	w := pair()
	for i := range w.Groups {
		w.Groups[i].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, ports(1, 1), cidrs("192.0.2.1/32", "2001:db8::1/128"))}
	}
	return w
}

// bare is a with no address at all and every rule in its favour.
func bare() World {
	w := pair()
	w.VMs[0].NICs[0].Addresses = nil
	w.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.AnyProtocol, nil, nil)}
	return w
}
