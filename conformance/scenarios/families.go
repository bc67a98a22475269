package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Families shows what a rule means in each family, and who is a member of a
// group.
func Families() []Scenario {
	e4, e6 := families()[0], families()[1]
	echo := core.Rule{Direction: core.Ingress, Protocol: core.ProtocolICMP, Peers: &core.Peers{CIDRs: prefixes("0.0.0.0/0", "::/0")}}
	out := []Scenario{
		{
			Name: "icmp is ipv4, whatever the prefixes", Rows: []string{"Rules and families 1"}, World: pair(echo),
			Steps: []Step{
				{Name: "echo", From: "uplink", To: "vnet1", Frame: e4.ub.Echo(1), Want: true, Reason: core.ReasonRule},
				{Name: "echo v6", From: "uplink", To: "vnet1", Frame: e6.ub.Echo(1), Reason: core.ReasonIngressRules},
			},
		},
		{
			Name: "no peers are anybody of both families", Rows: []string{"Rules and families 1"}, World: pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)),
			Steps: []Step{
				{Name: "v4", From: "uplink", To: "vnet1", Frame: e4.ub.UDP(1, 53), Want: true},
				{Name: "v6", From: "uplink", To: "vnet1", Frame: e6.ub.UDP(1, 53), Want: true},
			},
		},
		{
			Name: "an empty remote group counts for both families", Rows: []string{"Rules and families 1"},
			World: with(pair(), func(w *World) {
				w.Groups[0].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, nil, &core.Peers{Groups: []string{"nobody"}})}
				w.Groups = append(w.Groups, core.Group{Name: "nobody"})
			}),
			Steps: []Step{
				{Name: "v4 is shut", From: "vnet0", To: "uplink", Frame: e4.au.SYN(1, 2), Reason: core.ReasonEgressRules},
				{Name: "v6 is shut", From: "vnet0", To: "uplink", Frame: e6.au.SYN(1, 2), Reason: core.ReasonEgressRules},
			},
		},
		{
			Name: "an egress rule to nobody is none", Rows: []string{"Rules and families 2", "sender 25"},
			World: with(pair(), func(w *World) {
				w.Groups[0].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, nil, &core.Peers{}), allow(core.Egress, core.ProtocolTCP, ports(80, 80), cidrs("::/0"))}
			}),
			Steps: []Step{
				{Name: "v4 is open", From: "vnet0", To: "uplink", Frame: e4.au.UDP(1, 2), Want: true, Reason: core.ReasonDefault},
				{Name: "v6 is shut", From: "vnet0", To: "uplink", Frame: e6.au.UDP(1, 2), Reason: core.ReasonEgressRules},
				{Name: "v6 by rule", From: "vnet0", To: "uplink", Frame: e6.au.SYN(1, 80), Want: true, Reason: core.ReasonRule},
			},
		},
		{
			Name: "everything of one family", Rows: []string{"Rules and families 3"},
			World: pair(allow(core.Ingress, core.ProtocolUDP, ports(4, 4), cidrs("0.0.0.0/0")), allow(core.Ingress, core.ProtocolUDP, ports(6, 6), cidrs("::/0"))),
			Steps: []Step{
				{Name: "v4", From: "uplink", To: "vnet1", Frame: e4.ub.UDP(1, 4), Want: true},
				{Name: "v4 not by ::/0", From: "uplink", To: "vnet1", Frame: e4.ub.UDP(1, 6), Reason: core.ReasonIngressRules},
				{Name: "v6", From: "uplink", To: "vnet1", Frame: e6.ub.UDP(1, 6), Want: true},
				{Name: "v6 not by 0.0.0.0/0", From: "uplink", To: "vnet1", Frame: e6.ub.UDP(1, 4), Reason: core.ReasonIngressRules},
			},
		},
		{
			Name: "malformed", Rows: []string{"sender note 1"},
			World: with(pair(), func(w *World) {
				spoofer := nic(macC, "vnet2", []string{"ga"}, c4, c6)
				spoofer.SpoofingAllowed = true
				w.VMs = append(w.VMs, vm("c", spoofer))
			}),
			Steps: []Step{
				{Name: "ipv4", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, policy.TypeIPv4), Reason: core.ReasonIPSpoof},
				{Name: "ipv6", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, policy.TypeIPv6), Reason: core.ReasonIPSpoof},
				{Name: "arp", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, policy.TypeARP), Reason: core.ReasonARPSpoof},
				{Name: "ipv4, spoofing allowed", From: "vnet2", To: "uplink", Frame: policy.Other(macC, macU, policy.TypeIPv4), Reason: core.ReasonInvalid, Uncounted: true},
				{Name: "ipv6, spoofing allowed", From: "vnet2", To: "uplink", Frame: policy.Other(macC, macU, policy.TypeIPv6), Reason: core.ReasonInvalid, Uncounted: true},
			},
		},
	}
	for _, e := range families() {
		out = append(out, hostBits(e), members(e), departed(e), sharedPair(e))
	}
	return out
}

func hostBits(e ends) Scenario {
	return Scenario{
		Name: "prefixes with host bits/" + e.family.String(), Rows: []string{"Rules and families 3", "receiver 16"},
		World: pair(allow(core.Ingress, core.ProtocolUDP, nil, cidrs("10.0.0.11/29", "fd00::b/125"))),
		Steps: []Step{
			{Name: "in it", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 2), Want: true},
			{Name: "below it", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 2), Reason: core.ReasonIngressRules},
		},
	}
}

// members: b hears the members of a's group.
func members(e ends) Scenario {
	secondary := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.50"), core.IPv6: netip.MustParseAddr("fd00::50")}[e.family]
	single := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.100"), core.IPv6: netip.MustParseAddr("fd00::100")}[e.family]
	within := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("172.16.5.5"), core.IPv6: netip.MustParseAddr("fd77::5")}[e.family]
	w := remoteUDP()
	a := &w.VMs[0].NICs[0]
	a.Addresses = append(a.Addresses, secondary)
	a.Pairs = []core.AddressPair{{Prefix: netip.PrefixFrom(single, single.BitLen())}}
	for _, p := range prefixes("172.16.0.0/12", "fd77::/16") {
		a.Pairs = append(a.Pairs, core.AddressPair{Prefix: p})
	}
	speak := func(src netip.Addr) policy.Frame {
		return policy.Path{SrcMAC: macA, DstMAC: macB, Src: src, Dst: e.b}.UDP(1, 53)
	}
	steps := []Step{
		{Name: "primary", From: "vnet0", To: "vnet1", Frame: speak(e.a), Want: true, Reason: core.ReasonRule},
		{Name: "secondary", From: "vnet0", To: "vnet1", Frame: speak(secondary), Want: true},
		{Name: "a pair's address", From: "vnet0", To: "vnet1", Frame: speak(single), Want: true},
		{Name: "within a pair's prefix", From: "vnet0", To: "vnet1", Frame: speak(within), Reason: core.ReasonIngressRules},
	}
	if e.family == core.IPv6 {
		steps = append(steps, Step{Name: "link-local", From: "vnet0", To: "vnet1", Frame: speak(macA.LinkLocal()), Reason: core.ReasonIngressRules})
	}
	return Scenario{Name: "members/" + e.family.String(), Rows: []string{"Rules and families 4"}, World: w, Steps: steps}
}

// departed: a VM that migrates away goes on talking, through the uplink.
func departed(e ends) Scenario {
	w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), &core.Peers{Groups: []string{"ga"}}))
	return Scenario{
		Name: "a migrated vm's flows/" + e.family.String(), Rows: []string{"Flows 2"}, World: w, Needs: []core.Feature{core.FeatureFlows},
		Steps: []Step{
			{Name: "query", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true},
			{Name: "answer", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(53, 1000), Want: true},
			{Name: "a goes to another host", Change: func(w *World) {
				w.VMs = append([]core.VM(nil), w.VMs...)
				gone := nic(macA, "", []string{"ga"}, a4, a6)
				gone.Binding = core.Binding{Point: "another-host"}
				w.VMs[0] = vm("a", gone)
			}},
			{Name: "it goes on there", From: "uplink", To: "vnet1", Frame: e.ab.UDP(1000, 53), Want: true, Reason: core.ReasonEstablished},
			{Name: "and is answered", From: "vnet1", To: "uplink", Frame: e.ba.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
			{Name: "its port here is closed", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1000, 53), Reason: core.ReasonClosedPort},
		},
	}
}

// sharedPair: two routers take turns with one address.
func sharedPair(e ends) Scenario {
	vip := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.100"), core.IPv6: netip.MustParseAddr("fd00::100")}[e.family]
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil))
	w.Groups[0].Rules = w.Groups[1].Rules
	for i := range w.VMs {
		w.VMs[i].NICs[0].Pairs = []core.AddressPair{{Prefix: netip.PrefixFrom(vip, vip.BitLen()), MAC: virtual}}
	}
	from := policy.Path{SrcMAC: virtual, DstMAC: macU, Src: vip, Dst: e.u}
	to := from.Reverse()
	return Scenario{
		Name: "a shared pair/" + e.family.String(), Rows: []string{"Flows 2"}, World: w, Needs: []core.Feature{core.FeatureFlows},
		Steps: []Step{
			{Name: "to a", From: "uplink", To: "vnet0", Frame: to.UDP(1000, 53), Want: true},
			{Name: "a answers", From: "vnet0", To: "uplink", Frame: from.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
			{Name: "b takes over", From: "vnet1", To: "uplink", Frame: from.UDP(53, 1000), Want: true, Reason: core.ReasonEstablished},
			{Name: "and hears", From: "uplink", To: "vnet1", Frame: to.UDP(1000, 53), Want: true, Reason: core.ReasonEstablished},
			{Name: "neither may", Change: func(w *World) { w.Groups[0].Rules, w.Groups[1].Rules = nil, nil }},
			{Name: "a is cut off", From: "vnet0", To: "uplink", Frame: from.UDP(53, 1000), Reason: core.ReasonRevoked},
			{Name: "b is cut off", From: "vnet1", To: "uplink", Frame: from.UDP(53, 1000), Reason: core.ReasonRevoked},
			{Name: "and the other end", From: "uplink", To: "vnet1", Frame: to.UDP(1000, 53), Reason: core.ReasonRevoked},
		},
	}
}
