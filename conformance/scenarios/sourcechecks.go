package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// SourceChecks shows what a VM may say it is: sender's rows 4 to 12.
func SourceChecks() []Scenario {
	out := []Scenario{
		{
			Name: "link layer", Rows: []string{"sender 4", "sender 5", "sender 6", "sender 7", "sender 8", "receiver 5"},
			World: pair(allow(core.Ingress, core.AnyProtocol, nil, nil)),
			Steps: []Step{
				{Name: "bpdu address", From: "vnet0", To: "host", Frame: policy.Path{SrcMAC: macA, DstMAC: core.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}, Src: a4, Dst: netip.MustParseAddr("10.0.0.254")}.UDP(1, 5000), Reason: core.ReasonLinkLocal},
				{Name: "vlan 5", From: "vnet0", To: "uplink", Frame: families()[0].au.UDP(1, 2).Tagged(5), Reason: core.ReasonVLAN},
				{Name: "vlan 0", From: "vnet0", To: "uplink", Frame: families()[0].au.UDP(1, 3).Tagged(0), Reason: core.ReasonVLAN},
				{Name: "qinq", From: "vnet0", To: "uplink", Frame: qinq(families()[1].au.UDP(1, 4)), Reason: core.ReasonVLAN},
				{Name: "vlan to vm", From: "vnet0", To: "vnet1", Frame: families()[0].ab.UDP(1, 5).Tagged(7), Reason: core.ReasonVLAN},
				{Name: "vlan from uplink", From: "uplink", To: "vnet1", Frame: families()[0].ub.UDP(1, 6).Tagged(7), Reason: core.ReasonVLAN},
				{Name: "announce", From: "vnet0", To: "uplink", Frame: policy.RARPAnnouncement(macA), Want: true},
				{Name: "announce to vm", From: "vnet0", To: "vnet1", Frame: policy.RARPAnnouncement(macA), Reason: core.ReasonEtherType},
				{Name: "announce another", From: "vnet0", To: "uplink", Frame: policy.RARPAnnouncement(macB).From(macA), Reason: core.ReasonEtherType},
				{Name: "other ethertype", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, 0x88b5), Reason: core.ReasonEtherType},
				{Name: "pppoe", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, 0x8864), Reason: core.ReasonEtherType},
				{Name: "llc", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, 0x0030), Reason: core.ReasonEtherType},
				{Name: "other ethertype in", From: "uplink", To: "vnet1", Frame: policy.Other(macU, macB, 0x88b5), Reason: core.ReasonEtherType},
				{Name: "foreign mac", From: "vnet0", To: "uplink", Frame: families()[0].au.UDP(1, 7).From(macC), Reason: core.ReasonMACSpoof},
				{Name: "neighbour's mac", From: "vnet0", To: "uplink", Frame: families()[1].au.UDP(1, 8).From(macB), Reason: core.ReasonMACSpoof},
				{Name: "neighbour's mac and address", From: "vnet0", To: "uplink", Frame: families()[0].bu.UDP(1, 9), Reason: core.ReasonMACSpoof},
			},
		},
		{
			Name: "arp", Rows: []string{"sender 9", "receiver 6"}, World: pair(),
			Steps: []Step{
				{Name: "request", From: "vnet0", To: "vnet1", Frame: policy.ARPRequest(macA, a4, b4), Want: true},
				{Name: "reply", From: "vnet1", To: "vnet0", Frame: families()[0].ba.ARPReply(), Want: true},
				{Name: "probe own", From: "vnet0", To: "uplink", Frame: policy.ARPProbe(macA, a4), Want: true},
				{Name: "probe other", From: "vnet0", To: "uplink", Frame: policy.ARPProbe(macA, b4), Reason: core.ReasonARPSpoof},
				{Name: "gratuitous", From: "vnet0", To: "uplink", Frame: policy.GratuitousARP(macA, a4), Want: true},
				{Name: "claim", From: "vnet0", To: "uplink", Frame: policy.GratuitousARP(macA, b4), Reason: core.ReasonARPSpoof},
				{Name: "claim the gateway", From: "vnet0", To: "vnet1", Frame: policy.Path{SrcMAC: macA, DstMAC: macB, Src: u4, Dst: b4}.ARPReply(), Reason: core.ReasonARPSpoof},
				{Name: "sender mac differs", From: "vnet0", To: "uplink", Frame: policy.ARPRequest(macB, a4, u4).From(macA), Reason: core.ReasonARPSpoof},
				{Name: "foreign frame mac", From: "vnet0", To: "uplink", Frame: policy.ARPRequest(macA, a4, u4).From(macC), Reason: core.ReasonMACSpoof},
				{Name: "to another mac", From: "uplink", To: "vnet1", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: u4, Dst: b4}.ARPReply(), Reason: core.ReasonDestination},
				{Name: "from outside", From: "uplink", To: "vnet1", Frame: policy.Path{SrcMAC: macU, DstMAC: macB, Src: u4, Dst: b4}.ARPReply(), Want: true},
			},
		},
		{
			Name: "one nic with another's", Rows: []string{"sender 8", "sender 10", "sender 11"},
			World: twoNICs(),
			Steps: []Step{
				{Name: "own", From: "vnet2", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: c4, Dst: u4}.UDP(1, 2), Want: true},
				{Name: "first's address", From: "vnet2", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: a4, Dst: u4}.UDP(1, 3), Reason: core.ReasonIPSpoof},
				{Name: "first's address v6", From: "vnet2", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: a6, Dst: u6}.UDP(1, 3), Reason: core.ReasonIPSpoof},
				{Name: "first's mac", From: "vnet2", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: a4, Dst: u4}.UDP(1, 4), Reason: core.ReasonMACSpoof},
				{Name: "second's address from first", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: c6, Dst: u6}.UDP(1, 5), Reason: core.ReasonIPSpoof},
			},
		},
	}
	for _, e := range families() {
		n := e.family.String()
		foreign := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("192.0.2.77"), core.IPv6: netip.MustParseAddr("2001:db8::77")}[e.family]
		out = append(out, Scenario{
			Name: "address/" + n, Rows: []string{"sender 10", "sender 11"}, World: pair(allow(core.Ingress, core.AnyProtocol, nil, nil)),
			Steps: []Step{
				{Name: "own", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 2), Want: true},
				{Name: "neighbour's", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: e.b, Dst: e.u}.UDP(1, 3), Reason: core.ReasonIPSpoof},
				{Name: "unheard of", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: foreign, Dst: e.u}.UDP(1, 4), Reason: core.ReasonIPSpoof},
				{Name: "to vm", From: "vnet0", To: "vnet1", Frame: policy.Path{SrcMAC: macA, DstMAC: macB, Src: foreign, Dst: e.b}.UDP(1, 5), Reason: core.ReasonIPSpoof},
				{Name: "own to vm", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 6), Want: true},
			},
		}, Scenario{
			Name: "spoofing allowed/" + n, Rows: []string{"sender note 2", "sender 8", "sender 10", "sender 11", "receiver 6", "receiver 7"}, World: spoofer(),
			Steps: []Step{
				{Name: "foreign address", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macA, DstMAC: macU, Src: foreign, Dst: e.u}.UDP(1, 4), Want: true},
				{Name: "foreign mac", From: "vnet0", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: foreign, Dst: e.u}.UDP(1, 5), Want: true},
				{Name: "still no vlan", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 6).Tagged(3), Reason: core.ReasonVLAN},
				{Name: "still no dhcp server", From: "vnet0", To: "uplink", Frame: dhcpServer(e.au, e.family), Reason: core.ReasonDHCPGuard},
				{Name: "still no ethertype", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, 0x88b5), Reason: core.ReasonEtherType},
				{Name: "hears others' addresses by rule", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: e.u, Dst: foreign}.UDP(9, 4000), Want: true},
				{Name: "rules stay", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: e.u, Dst: foreign}.UDP(9, 4001), Reason: core.ReasonIngressRules},
				{Name: "no ra", From: "vnet0", To: "uplink", Frame: policy.RouterAdvertisement(macA, macA.LinkLocal()), Reason: core.ReasonRAGuard},
				{Name: "hears arp for macs of its own making", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: u4, Dst: c4}.ARPReply(), Want: true},
			},
		})
	}
	return out
}

func qinq(f policy.Frame) policy.Frame {
	f = f.Tagged(5, 6)
	f.Tags[0].TPID = policy.TypeQinQ
	return f
}

func dhcpServer(p policy.Path, f core.Family) policy.Frame {
	if f == core.IPv4 {
		return p.UDP(67, 68)
	}
	return p.UDP(547, 546)
}

// twoNICs gives VM a a second NIC, c's, on vnet2.
func twoNICs() World {
	w := pair()
	w.VMs[0].NICs = append(w.VMs[0].NICs, nic(macC, "vnet2", []string{"ga"}, c4, c6))
	return w
}

// spoofer lets a send from anywhere, and lets UDP 4000 in.
func spoofer() World {
	w := pair()
	w.VMs[0].NICs[0].SpoofingAllowed = true
	w.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.ProtocolUDP, ports(4000, 4000), nil)}
	return w
}
