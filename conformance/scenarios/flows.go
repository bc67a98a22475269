package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// The first piece makes a packet of 1280 octets or more, as every honest sender
// of IPv6 does: nf_conntrack_bridge does not let smaller ones through
// (br_ip6_fragment).
const firstPiece, datagram = 1240, 1336

// Flows shows what connection tracking adds: established, related, revoked,
// zones, fragments.
func Flows() []Scenario {
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		tcp := allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)
		udp := allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)
		out = append(out,
			Scenario{
				Name: "revoke rule/" + n, Rows: []string{"sender 14", "receiver 9", "Flows 1"}, World: pair(tcp, udp), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "syn", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 80), Want: true},
					{Name: "synack", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.SYN|policy.ACK), Want: true},
					{Name: "ack", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "query", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Want: true},
					{Name: "take the rules away", Change: func(w *World) { w.Groups[1].Rules = nil }},
					{Name: "server first", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.ACK|policy.PSH), Reason: core.ReasonRevoked},
					{Name: "client", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 80, policy.ACK|policy.PSH), Reason: core.ReasonRevoked},
					{Name: "udp server first", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Reason: core.ReasonRevoked},
					{Name: "udp client", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Reason: core.ReasonRevoked},
					{Name: "give one back", Change: func(w *World) { w.Groups[1].Rules = []core.Rule{udp} }},
					{Name: "udp again", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Want: true},
					{Name: "udp answer again", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Want: true},
					{Name: "tcp still dead", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.ACK), Reason: core.ReasonRevoked},
				},
			},
			Scenario{
				Name: "revoke member/" + n, Rows: []string{"Flows 1"}, World: remoteUDP(), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true},
					{Name: "a leaves the group", Change: func(w *World) { w.VMs[0].NICs[0].Groups = nil }},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonRevoked},
					{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Reason: core.ReasonRevoked},
				},
			},
			Scenario{
				Name: "revoke egress/" + n, Rows: []string{"Flows 1"}, World: pair(), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "uplink", Frame: e.au.UDP(1000, 53), Want: true},
					{Name: "answer", From: "uplink", To: "vnet0", Frame: e.ua.UDP(53, 1000), Want: true},
					{Name: "egress is shut", Change: func(w *World) {
						w.Groups[0].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, ports(1, 1), cidrs("192.0.2.1/32", "2001:db8::1/128"))}
					}},
					{Name: "answer", From: "uplink", To: "vnet0", Frame: e.ua.UDP(53, 1000), Reason: core.ReasonRevoked},
					{Name: "query", From: "vnet0", To: "uplink", Frame: e.au.UDP(1000, 53), Reason: core.ReasonRevoked},
				},
			},
			Scenario{
				Name: "revoke address/" + n, Rows: []string{"Flows 1"}, World: pair(udp), Needs: []core.Feature{core.FeatureFlows},
				Steps: []Step{
					{Name: "query", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Want: true},
					{Name: "the address goes", Change: func(w *World) {
						w.VMs[1].NICs[0].Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("fd00::77")}
					}},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Reason: core.ReasonIPSpoof},
					{Name: "query", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Reason: core.ReasonDestination},
				},
			},
			Scenario{
				Name: "related/" + n, Rows: []string{"sender 16", "receiver 10", "Rules and families 5"}, World: threeVMs(udp),
				Steps: []Step{
					{Name: "query", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Want: true},
					{Name: "too big from the fabric", From: "uplink", To: "vnet1", Frame: e.ub.TooBig(e.bu.UDP(53, 1000)), Want: true, Reason: core.ReasonRelated},
					{Name: "unreachable from the end", From: "vnet1", To: "uplink", Frame: e.bu.Unreachable(e.ub.UDP(1000, 53)), Want: true},
					{Name: "forged by a stranger", From: "vnet0", To: "vnet1", Frame: e.ab.TooBig(e.bu.UDP(53, 1000)), Reason: core.ReasonNotOwner},
					{Name: "for no flow", From: "uplink", To: "vnet1", Frame: e.ub.TooBig(e.bu.UDP(54, 1001)), Reason: core.ReasonInvalid},
				},
			},
			Scenario{
				Name: "midstream/" + n, Rows: []string{"Flows 1"}, World: pair(tcp),
				Steps: []Step{
					{Name: "ack of an unknown flow by the rules", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 80, policy.ACK), Want: true},
					{Name: "not without", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 81, policy.ACK), Reason: core.ReasonIngressRules},
					{Name: "synack out of nothing", From: "uplink", To: "vnet1", Frame: e.ub.TCP(80, 80, policy.SYN|policy.ACK), Reason: core.ReasonInvalid},
				},
			},
			Scenario{
				Name: "fragments/" + n, Rows: []string{"sender 12", "sender note 1", "Rules and families 6"}, World: pair(udp),
				Steps: []Step{
					{Name: "honest", From: "uplink", To: "vnet1", Fragments: e.ub.UDP(1, 53).Fragments(11, firstPiece, datagram), Want: true},
					{Name: "denied port", From: "uplink", To: "vnet1", Fragments: e.ub.UDP(2, 54).Fragments(12, firstPiece, datagram)},
					{Name: "out", From: "vnet0", To: "uplink", Fragments: e.au.UDP(3, 99).Fragments(13, firstPiece, datagram), Want: true},
					{Name: "forged tail", From: "vnet0", To: "uplink", Fragments: forgedTail(e.au.UDP(4, 99).Fragments(14, firstPiece, datagram), e.b)},
					{Name: "forged head", From: "vnet0", To: "uplink", Fragments: forgedHead(e.au.UDP(5, 99).Fragments(15, firstPiece, datagram), e.b)},
					{Name: "dhcp server in pieces", From: "vnet0", To: "uplink", Fragments: dhcpServer(e.au, e.family).Fragments(16, firstPiece, datagram)},
				},
			},
			Scenario{
				Name: "zones/" + n, Rows: []string{"Flows 3"}, World: twoBridges(), Needs: []core.Feature{core.FeatureZones},
				Steps: []Step{
					{Name: "flow on one bridge", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: e.bu.UDP(53, 1000), Want: true},
					{Name: "the same on the other", From: "uplink:br1", To: "vnet2", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.b}.UDP(1000, 53), Reason: core.ReasonIngressRules},
				},
			},
		)
	}
	return out
}

func forgedTail(fs []policy.Frame, src netip.Addr) []policy.Frame {
	ip := *fs[len(fs)-1].IP
	ip.Src = src
	fs[len(fs)-1].IP = &ip
	return fs
}

func forgedHead(fs []policy.Frame, src netip.Addr) []policy.Frame {
	ip := *fs[0].IP
	ip.Src = src
	fs[0].IP = &ip
	return fs
}

func remoteUDP() World {
	return pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), &core.Peers{Groups: []string{"ga"}}))
}

func threeVMs(rules ...core.Rule) World {
	w := pair(rules...)
	w.VMs = append(w.VMs, vm("c", nic(macC, "vnet2", []string{"ga"}, c4, c6)))
	return w
}

// twoBridges has a VM on br1 with b's addresses and no rules.
func twoBridges() World {
	w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil))
	c := nic(macC, "vnet2", []string{"ga"}, b4, b6)
	c.Binding.Bridge = "br1"
	w.VMs = append(w.VMs, vm("c", c))
	w.Bridges = map[string][]netip.Prefix{"br1": nil}
	return w
}
