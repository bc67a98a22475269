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
	return append(out, virtualMACs())
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
		Name: "duplicate address detection with a virtual mac", Rows: []string{"sender 11", "sender 21"}, World: w,
		Steps: []Step{
			{Name: "own address", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, a6), Want: true, Reason: core.ReasonAlways},
			{Name: "the pair's address", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, netip.MustParseAddr("fd00::100")), Reason: core.ReasonIPSpoof},
			{Name: "another's", From: "vnet0", To: "uplink", Frame: policy.DAD(virtual, b6), Reason: core.ReasonIPSpoof},
			{Name: "report", From: "vnet0", To: "uplink", Frame: policy.MLDReport(virtual, unspecified), Want: true, Reason: core.ReasonAlways},
			{Name: "report with a foreign mac", From: "vnet0", To: "uplink", Frame: policy.MLDReport(macC, unspecified), Reason: core.ReasonMACSpoof},
			{Name: "done", From: "vnet0", To: "uplink", Frame: done, Reason: core.ReasonIPSpoof},
		},
	}
}
