package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// FlowEnds shows whose word begins a flow. A bridge floods what it does not know
// the port of; conntrack takes a flow for begun when any port lets its first
// packet out, though its receiver's may not.
func FlowEnds() []Scenario {
	var out []Scenario
	ends := []core.Feature{core.FeatureFlowEnds}
	shut := allow(core.Egress, core.ProtocolTCP, ports(1, 1), cidrs("192.0.2.1/32", "2001:db8::1/128"))
	for _, e := range families() {
		n := e.family.String()
		dns := allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)
		announce := Step{Name: "b is heard of", From: "vnet1", To: "uplink", Frame: policy.GratuitousARP(macB, b4), Want: true}
		group := core.BroadcastMAC
		toAll := policy.Path{SrcMAC: macA, DstMAC: group, Src: e.a, Dst: e.b}
		out = append(out,
			Scenario{
				// What answers in b's name is no answer of b's.
				Name: "let out elsewhere, denied by its receiver/" + n, Rows: []string{"Flows 4", "sender 15", "receiver 10"}, Needs: ends, World: pair(shut),
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Flooded: true, Reason: core.ReasonIngressRules},
					{Name: "b answers all the same", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonEgressRules},
					{Name: "an answer in b's name", From: "uplink", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					announce,
					{Name: "b is asked again", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Reason: core.ReasonIngressRules},
					{Name: "and so is its egress", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonEgressRules},
				},
			},
			Scenario{
				Name: "let out elsewhere and by its receiver/" + n, Rows: []string{"Flows 4"}, Needs: ends, World: pair(shut, dns),
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Flooded: true, Want: true, Reason: core.ReasonRule},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					{Name: "on", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				// From the day that its receiver takes a packet the flow is as any other.
				Name: "let in later/" + n, Rows: []string{"Flows 4"}, Needs: ends, World: pair(shut),
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Flooded: true, Reason: core.ReasonIngressRules},
					{Name: "an answer in b's name", From: "uplink", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true},
					announce,
					{Name: "b may be asked", Change: func(w *World) { w.Groups[1].Rules = []core.Rule{shut, dns} }},
					{Name: "its answer is none", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonEgressRules},
					{Name: "taken", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true, Reason: core.ReasonRule},
					{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					{Name: "on", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				// A NIC that may spoof hears what is flooded, and lets it in for itself.
				Name: "taken by a listener/" + n, Rows: []string{"Flows 4"}, Needs: ends,
				World: with(pair(shut), func(w *World) {
					w.Groups = append(w.Groups, core.Group{Name: "gc", Rules: []core.Rule{dns}})
					c := nic(macC, "vnet2", []string{"gc"}, c4, c6)
					c.SpoofingAllowed = true
					w.VMs = append(w.VMs, vm("c", c))
				}),
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet2", Frame: e.ab.UDP(1000, 53), Flooded: true, Want: true, Reason: core.ReasonRule},
					{Name: "it answers in b's name", From: "vnet2", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					announce,
					{Name: "b is asked", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				// The uplink's neighbour is as good as any to open it with.
				Name: "past its end, by address/" + n, Rows: []string{"Flows 4"}, Needs: ends, World: pair(shut),
				Steps: []Step{
					{Name: "to u's mac", From: "vnet0", To: "uplink", Frame: e.ab.UDP(1000, 53).To(macU), Want: true, Reason: core.ReasonDefault},
					{Name: "b answers all the same", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonEgressRules},
					{Name: "and is asked", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Reason: core.ReasonIngressRules},
				},
			},
			Scenario{
				// Of what many hear nobody is the receiver.
				Name: "to a group mac/" + n, Rows: []string{"Flows 4"}, Needs: ends, World: pair(shut),
				Steps: []Step{
					{Name: "to all", From: "vnet0", To: "vnet1", Frame: toAll.UDP(1000, 53), Flooded: true, Reason: core.ReasonIngressRules},
					{Name: "b answers all the same", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Reason: core.ReasonEgressRules},
					{Name: "somebody else answers", From: "uplink", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
				},
			},
		)
	}
	return append(out, FlowOwners()...)
}

// FlowOwners shows whose a flow is where its addresses do not tell.
func FlowOwners() []Scenario {
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		dns := allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)
		shut := allow(core.Egress, core.ProtocolTCP, ports(1, 1), cidrs("192.0.2.1/32", "2001:db8::1/128"))
		vip := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.100"), core.IPv6: netip.MustParseAddr("fd00::100")}[e.family]
		lan := map[core.Family]string{core.IPv4: "10.0.0.0/24", core.IPv6: "fd00::/64"}[e.family]
		foreign := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("198.51.100.7"), core.IPv6: netip.MustParseAddr("2001:db8:7::7")}[e.family]
		// c is a third VM on br0, with a group of its own.
		third := func(w World, alter func(*core.NIC), rules ...core.Rule) World {
			w.Groups = append(w.Groups, core.Group{Name: "gc", Rules: rules})
			c := nic(macC, "vnet2", []string{"gc"}, c4, c6)
			alter(&c)
			w.VMs = append(w.VMs, vm("c", c))
			return w
		}
		shared := []core.AddressPair{{Prefix: netip.PrefixFrom(vip, vip.BitLen())}}
		toVIP := policy.Path{SrcMAC: macU, DstMAC: macB, Src: e.u, Dst: vip}
		asForeign := policy.Path{SrcMAC: macC, DstMAC: macU, Src: foreign, Dst: e.u}
		asA := policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.a, Dst: e.u}
		out = append(out,
			Scenario{
				// The other holder's rules go on allowing what was not its.
				Name: "a shared pair's flow is its taker's/" + n, Rows: []string{"Flows 2"}, Needs: []core.Feature{core.FeatureFlows, core.FeatureFlowEnds},
				World: third(with(pair(dns), func(w *World) { w.VMs[1].NICs[0].Pairs = shared }), func(c *core.NIC) { c.Pairs = shared }, dns),
				Steps: []Step{
					{Name: "query", From: "uplink", To: "vnet1", Frame: toVIP.UDP(1000, 53), Want: true, Reason: core.ReasonRule},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: toVIP.Reverse().UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					{Name: "b's rule goes", Change: func(w *World) { w.Groups[1].Rules = nil }},
					{Name: "answer", From: "vnet1", To: "uplink", Frame: toVIP.Reverse().UDP(53, 1000), Reason: core.ReasonRevoked},
					{Name: "query", From: "uplink", To: "vnet1", Frame: toVIP.UDP(1000, 53), Reason: core.ReasonRevoked},
				},
			},
			Scenario{
				// An address that no NIC has is a spoofer's.
				Name: "a spoofer's flow is its own/" + n, Rows: []string{"Flows 2"}, Needs: []core.Feature{core.FeatureFlows, core.FeatureFlowEnds},
				World: third(pair(), func(c *core.NIC) { c.SpoofingAllowed = true }),
				Steps: []Step{
					{Name: "query", From: "vnet2", To: "uplink", Frame: asForeign.UDP(1000, 53), Want: true, Reason: core.ReasonDefault},
					{Name: "answer", From: "uplink", To: "vnet2", Frame: asForeign.Reverse().UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					{Name: "c may send no more", Change: func(w *World) { w.Groups[2].Rules = []core.Rule{shut} }},
					{Name: "query", From: "vnet2", To: "uplink", Frame: asForeign.UDP(1000, 53), Reason: core.ReasonRevoked},
					{Name: "answer", From: "uplink", To: "vnet2", Frame: asForeign.Reverse().UDP(53, 1000), Reason: core.ReasonRevoked},
					{Name: "c may send again", Change: func(w *World) { w.Groups[2].Rules = nil }},
					{Name: "answer", From: "uplink", To: "vnet2", Frame: asForeign.Reverse().UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				// c may speak with all addresses of the net; what a may not send is
				// no reason to cut c's.
				Name: "a pair that is a prefix has flows of its own/" + n, Rows: []string{"Flows 2"}, Needs: []core.Feature{core.FeatureFlows, core.FeatureFlowEnds},
				World: third(pair(), func(c *core.NIC) { c.Pairs = []core.AddressPair{{Prefix: netip.MustParsePrefix(lan)}} }),
				Steps: []Step{
					{Name: "query", From: "vnet2", To: "uplink", Frame: asA.UDP(1000, 53), Want: true, Reason: core.ReasonDefault},
					{Name: "answer", From: "uplink", To: "vnet2", Frame: asA.Reverse().UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
					{Name: "a may send no more", Change: func(w *World) { w.Groups[0].Rules = []core.Rule{shut} }},
					{Name: "query", From: "vnet2", To: "uplink", Frame: asA.UDP(1000, 53), Want: true, Reason: core.ReasonEstablished},
					{Name: "c may send no more", Change: func(w *World) { w.Groups[2].Rules = []core.Rule{shut} }},
					{Name: "query", From: "vnet2", To: "uplink", Frame: asA.UDP(1000, 53), Reason: core.ReasonRevoked},
				},
			},
		)
	}
	return out
}
