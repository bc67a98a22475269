package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Receiving shows who is spoken to: destinations, group MACs, ports without
// policy, system VMs, the host, and what lies behind it.
func Receiving() []Scenario {
	var out []Scenario
	open := func() World { return pair(allow(core.Ingress, core.AnyProtocol, nil, nil)) }
	for _, e := range families() {
		n := e.family.String()
		group := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("239.1.1.1"), core.IPv6: netip.MustParseAddr("ff0e::77")}[e.family]
		linkGroup := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("224.0.0.251"), core.IPv6: netip.MustParseAddr("ff02::fb")}[e.family]
		out = append(out,
			Scenario{
				Name: "destination/" + n, Rows: []string{"receiver 7", "receiver note 1"}, World: open(),
				Steps: []Step{
					{Name: "own", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 2), Want: true},
					{Name: "another mac", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 3).To(macC), Reason: core.ReasonDestination},
					{Name: "another address", From: "uplink", To: "vnet1", Frame: policy.Path{SrcMAC: macU, DstMAC: macB, Src: e.u, Dst: e.c}.UDP(1, 4), Reason: core.ReasonDestination},
					{Name: "group address to own mac", From: "uplink", To: "vnet1", Frame: policy.Path{SrcMAC: macU, DstMAC: macB, Src: e.u, Dst: group}.UDP(1, 5), Reason: core.ReasonDestination},
					{Name: "neighbour's address from a vm", From: "vnet0", To: "vnet1", Frame: policy.Path{SrcMAC: macA, DstMAC: macB, Src: e.a, Dst: e.c}.UDP(1, 6), Reason: core.ReasonDestination},
				},
			},
			Scenario{
				Name: "multicast by rules/" + n, Rows: []string{"receiver 15", "receiver 16"},
				World: pair(allow(core.Ingress, core.ProtocolUDP, ports(5353, 5353), nil)),
				Steps: []Step{
					{Name: "allowed", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, e.u, linkGroup).UDP(5353, 5353), Want: true},
					{Name: "other port", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, e.u, linkGroup).UDP(5353, 5354)},
					{Name: "wide group", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, e.u, group).UDP(1, 5353), Want: true},
					{Name: "from a vm", From: "vnet0", To: "vnet1", Frame: policy.Multicast(macA, e.a, linkGroup).UDP(5353, 5353), Want: true},
					{Name: "unicast address in a broadcast frame", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 5353).To(core.BroadcastMAC), Want: true},
					{Name: "and not allowed", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 5355).To(core.BroadcastMAC)},
				},
			},
			Scenario{
				Name: "established in a group frame/" + n, Rows: []string{"receiver 10"}, World: open(),
				Steps: []Step{
					{Name: "opens", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(40, 50), Want: true},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(50, 40), Want: true},
					{Name: "answer to all", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(50, 40).To(core.BroadcastMAC), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				Name: "closed port/" + n, Rows: []string{"sender 2", "receiver 2"}, World: withClosed(),
				Steps: []Step{
					{Name: "out", From: "vnet7", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Reason: core.ReasonClosedPort},
					{Name: "out arp", From: "vnet7", To: "uplink", Frame: policy.GratuitousARP(macC, c4), Reason: core.ReasonClosedPort},
					{Name: "out tagged", From: "vnet7", To: "uplink", Frame: policy.GratuitousARP(macC, c4).Tagged(3), Reason: core.ReasonClosedPort},
					{Name: "with a neighbour's identity", From: "vnet7", To: "uplink", Frame: e.au.UDP(1, 9), Reason: core.ReasonClosedPort},
					{Name: "in", From: "uplink", To: "vnet7", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.c}.UDP(1, 3), Reason: core.ReasonClosedPort},
					{Name: "in from a vm", From: "vnet0", To: "vnet7", Frame: policy.Path{SrcMAC: macA, DstMAC: macC, Src: e.a, Dst: e.c}.UDP(1, 4), Reason: core.ReasonClosedPort},
					{Name: "arp to it", From: "uplink", To: "vnet7", Frame: policy.ARPRequest(macU, u4, c4), Reason: core.ReasonClosedPort},
				},
			},
			Scenario{
				Name: "system vm/" + n, Rows: []string{"sender 3", "receiver 3"}, World: withSystem(),
				Steps: []Step{
					{Name: "any source", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Want: true, Reason: core.ReasonSystem},
					{Name: "dhcp server", From: "vnet0", To: "uplink", Frame: dhcpServer(e.au, e.family), Want: true},
					{Name: "dhcp to a vm", From: "vnet0", To: "vnet1", Frame: dhcpAnswer(e), Want: true},
					{Name: "ra to a vm", From: "vnet0", To: "vnet1", Frame: policy.RouterAdvertisement(macA, macA.LinkLocal()), Want: true},
					{Name: "tagged", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 4).Tagged(9), Want: true},
					{Name: "anything in", From: "uplink", To: "vnet0", Frame: e.ua.UDP(1, 5), Want: true},
					{Name: "tagged in", From: "uplink", To: "vnet0", Frame: e.ua.UDP(1, 6).Tagged(9), Want: true},
					{Name: "the other vm's ingress holds", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 7), Reason: core.ReasonIngressRules},
					{Name: "from the other vm", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(1, 8), Want: true},
				},
			},
			Scenario{
				Name: "unmanaged bridge/" + n, Rows: []string{"Ports 2"}, World: withUnmanaged(),
				Steps: []Step{
					{Name: "passes", From: "vnet20", To: "vnet21", Frame: e.ab.UDP(1, 2), Want: true},
					{Name: "tagged", From: "vnet20", To: "vnet21", Frame: e.ab.UDP(1, 3).Tagged(4), Want: true},
					{Name: "spoofed arp", From: "vnet20", To: "vnet21", Frame: policy.GratuitousARP(macC, c4), Want: true},
				},
			},
		)
	}
	drop := open()
	drop.Options.Multicast = core.MulticastDrop
	out = append(out, Scenario{
		Name: "multicast drop", Rows: []string{"receiver 15"}, World: drop,
		Steps: []Step{
			{Name: "group", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, u4, netip.MustParseAddr("224.0.0.251")).UDP(1, 5353), Reason: core.ReasonMulticast},
			{Name: "broadcast", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, u4, policy.Broadcast).UDP(1, 9), Reason: core.ReasonMulticast},
			{Name: "group v6", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, u6, netip.MustParseAddr("ff02::fb")).UDP(1, 5353), Reason: core.ReasonMulticast},
			{Name: "dhcp answer", From: "uplink", To: "vnet1", Frame: policy.Multicast(macU, u4, policy.Broadcast).UDP(67, 68), Want: true},
			{Name: "nd", From: "uplink", To: "vnet1", Frame: policy.Solicitation(macU, u6, b6), Want: true},
			{Name: "arp", From: "uplink", To: "vnet1", Frame: policy.ARPRequest(macU, u4, b4), Want: true},
			{Name: "unicast", From: "uplink", To: "vnet1", Frame: families()[0].ub.UDP(1, 2), Want: true},
		},
	})
	return out
}

func withClosed() World {
	w := pair(allow(core.Ingress, core.AnyProtocol, nil, nil))
	w.Devices = map[string][]string{"br0": {"vnet7"}}
	return w
}

// withSystem makes a a system VM.
func withSystem() World {
	w := pair()
	w.VMs[0].Kind = core.SystemVM
	return w
}

func withUnmanaged() World {
	w := pair()
	w.Devices = map[string][]string{"other0": {"vnet20", "vnet21"}}
	return w
}

func dhcpAnswer(e ends) policy.Frame {
	if e.family == core.IPv4 {
		return e.ab.UDP(67, 68)
	}
	return policy.Path{SrcMAC: macA, DstMAC: macB, Src: macA.LinkLocal(), Dst: macB.LinkLocal()}.UDP(547, 546)
}
