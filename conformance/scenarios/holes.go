package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Holes shows that known ways round a bridge firewall are closed: those that
// other scenarios do not pass by.
func Holes() []Scenario {
	out := []Scenario{routerAdvertisements(), untrackedNeighbours()}
	for _, e := range families() {
		out = append(out, crossBridgeFragments(e), neighbourFragments(e), reservedGroups(e), pollution(e), announcedTwice(e))
	}
	return out
}

// crossBridgeFragments: pieces of datagrams of two bridges, by equal addresses
// and the same identification, are never put together.
func crossBridgeFragments(e ends) Scenario {
	w := pair()
	c := nic(macC, "vnet2", []string{"ga"}, a4, a6)
	c.Binding.Bridge = "br1"
	w.VMs = append(w.VMs, vm("c", c))
	w.Bridges = map[string][]netip.Prefix{"br1": nil}
	head := e.au.UDP(9, 5000).Fragments(77, firstPiece, datagram)[:1]
	tail := policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.a, Dst: e.u}.UDP(9, 5000).Fragments(77, firstPiece, datagram)[1:]
	return Scenario{
		Name: "fragments of two bridges/" + e.family.String(), Rows: []string{"sender 12", "Flows 3"}, World: w, Needs: []core.Feature{core.FeatureZones},
		Steps: []Step{
			{Name: "a tail on br1", From: "vnet2", To: "uplink:br1", Fragments: tail, Reason: core.ReasonInvalid},
			{Name: "its head on br0", From: "vnet0", To: "uplink", Fragments: head, Raw: zeroChecksum(e.family), Reason: core.ReasonInvalid},
			{Name: "a head on br0, once more", From: "vnet0", To: "uplink:br1", Fragments: head, Raw: zeroChecksum(e.family), Reason: core.ReasonInvalid},
		},
	}
}

// zeroChecksum takes the checksum out of a UDP datagram's first fragment: it
// would betray that the rest does not belong to it.
func zeroChecksum(f core.Family) func([]byte) []byte {
	at := 14 + 20 + 6
	if f == core.IPv6 {
		at = 14 + 40 + 8 + 6
	}
	return func(b []byte) []byte {
		b[at], b[at+1] = 0, 0
		return b
	}
}

// neighbourFragments: a tail with a neighbour's address, sent ahead, does not
// become the end of what the neighbour says.
func neighbourFragments(e ends) Scenario {
	pieces := e.au.UDP(9, 5000).Fragments(78, firstPiece, datagram)
	answer := e.ua.UDP(5000, 9).Fragments(79, firstPiece, datagram)
	return Scenario{
		Name: "a neighbour's fragments/" + e.family.String(), Rows: []string{"sender 12", "sender 8", "sender 10", "sender 11"}, World: pair(),
		Steps: []Step{
			{Name: "a tail, with the own mac", From: "vnet1", To: "uplink", Fragments: []policy.Frame{pieces[1].From(macB)}, Reason: core.ReasonIPSpoof},
			{Name: "and with the neighbour's", From: "vnet1", To: "uplink", Fragments: pieces[1:], Reason: core.ReasonMACSpoof},
			{Name: "its head from the neighbour", From: "vnet0", To: "uplink", Fragments: pieces[:1], Raw: zeroChecksum(e.family), Reason: core.ReasonInvalid},
			{Name: "the neighbour's own, whole", From: "vnet0", To: "uplink", Fragments: e.au.UDP(9, 5001).Fragments(80, firstPiece, datagram), Want: true},
			{Name: "the tail of an answer from outside", From: "vnet1", To: "vnet0", Fragments: []policy.Frame{answer[1].From(macB)}, Reason: core.ReasonIPSpoof},
		},
	}
}

// reservedGroups: bridges hand frames to these addresses to their host on the
// port itself, past all hooks of the bridge, and the host's IP takes what is in
// them.
func reservedGroups(e ends) Scenario {
	w := withClosed()
	w.PortIPv6 = true
	w.Bridges = map[string][]netip.Prefix{"br0": prefixes("10.0.0.254/24", "fd00::fe/64")}
	frame := func(src core.MAC, from netip.Addr, last byte) policy.Frame {
		return policy.Path{SrcMAC: src, DstMAC: core.MAC{1, 0x80, 0xc2, 0, 0, last}, Src: from, Dst: map[core.Family]netip.Addr{core.IPv4: host4, core.IPv6: host6}[e.family]}.UDP(uint16(last), 5000)
	}
	s := Scenario{Name: "ip in frames to reserved groups/" + e.family.String(), Rows: []string{"sender 2", "sender 4"}, World: w}
	for _, last := range []byte{0x00, 0x01, 0x03, 0x0e, 0x0f} {
		s.Steps = append(s.Steps,
			Step{Name: "as itself", From: "vnet0", To: "host", Frame: frame(macA, e.a, last), Reason: core.ReasonLinkLocal},
			Step{Name: "as another", From: "vnet0", To: "host", Frame: frame(macA, e.u, last), Reason: core.ReasonLinkLocal},
			Step{Name: "from a closed port", From: "vnet7", To: "host", Frame: frame(macC, e.c, last), Reason: core.ReasonClosedPort,
				Uncounted: true}) // backends drop these before they ask whose port it is
	}
	// The fabric may: it shows that such frames do come to the host's IP.
	s.Steps = append(s.Steps, Step{Name: "from the fabric", From: "uplink", To: "host", Frame: frame(macU, e.u, 0x0e), Want: true})
	return s
}

// pollution: what anti-spoofing drops never comes near the flows of others.
func pollution(e ends) Scenario {
	forged := func(f policy.Frame) policy.Frame { return f.From(macB) }
	return Scenario{
		Name: "a forger cannot touch flows/" + e.family.String(), Rows: []string{"sender 8", "sender 10", "sender 11"}, World: pair(),
		Steps: []Step{
			{Name: "syn", From: "vnet0", To: "uplink", Frame: e.au.SYN(1000, 80), Want: true},
			{Name: "synack", From: "uplink", To: "vnet0", Frame: e.ua.TCP(80, 1000, policy.SYN|policy.ACK), Want: true},
			{Name: "a forged reset", From: "vnet1", To: "uplink", Frame: forged(e.au.TCP(1000, 80, policy.RST)), Reason: core.ReasonIPSpoof},
			{Name: "with the mac", From: "vnet1", To: "uplink", Frame: e.au.TCP(1000, 80, policy.RST), Reason: core.ReasonMACSpoof},
			{Name: "a forged answer", From: "vnet1", To: "vnet0", Frame: forged(e.ua.TCP(80, 1000, policy.FIN|policy.ACK)), Reason: core.ReasonIPSpoof},
			{Name: "a forged syn", From: "vnet1", To: "uplink", Frame: forged(e.au.SYN(1000, 80)), Reason: core.ReasonIPSpoof},
			{Name: "the flow goes on", From: "vnet0", To: "uplink", Frame: e.au.TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
			{Name: "both ways", From: "uplink", To: "vnet0", Frame: e.ua.TCP(80, 1000, policy.ACK), Want: true, Reason: core.ReasonEstablished},
			{Name: "a forged query", From: "vnet1", To: "uplink", Frame: forged(e.au.UDP(7, 53)), Reason: core.ReasonIPSpoof},
			{Name: "opens nothing for answers", From: "uplink", To: "vnet0", Frame: e.ua.UDP(53, 7), Reason: core.ReasonIngressRules},
		},
	}
}

// announcedTwice: the destination is checked for established packets too, so
// that a neighbour who lies to the switch hears nothing.
func announcedTwice(e ends) Scenario {
	return Scenario{
		Name: "established, but not his/" + e.family.String(), Rows: []string{"receiver 7"}, World: pair(allow(core.Ingress, core.AnyProtocol, nil, nil)),
		Steps: []Step{
			{Name: "query", From: "vnet0", To: "uplink", Frame: e.au.UDP(7, 53), Want: true},
			{Name: "answer", From: "uplink", To: "vnet0", Frame: e.ua.UDP(53, 7), Want: true, Reason: core.ReasonEstablished},
			{Name: "answer to a neighbour's mac", From: "uplink", To: "vnet1", Frame: e.ua.UDP(53, 7).To(macB), Reason: core.ReasonDestination},
			{Name: "to a neighbour's address at the own mac", From: "uplink", To: "vnet0", Frame: policy.Path{SrcMAC: macU, DstMAC: macA, Src: e.u, Dst: e.b}.UDP(53, 7), Reason: core.ReasonDestination},
		},
	}
}

// routerAdvertisements: the guard looks behind extension headers, and at what
// fragments make up.
func routerAdvertisements() Scenario {
	llA := macA.LinkLocal()
	ra := policy.RouterAdvertisement(macA, llA)
	w := pair(allow(core.Ingress, core.AnyProtocol, nil, nil))
	w.Groups[0].Rules = []core.Rule{allow(core.Egress, core.AnyProtocol, nil, nil)}
	return Scenario{
		Name: "disguised router advertisements", Rows: []string{"sender 12", "sender 18"}, World: w,
		Steps: []Step{
			{Name: "plain", From: "vnet0", To: "vnet1", Frame: ra, Reason: core.ReasonRAGuard},
			{Name: "behind destination options", From: "vnet0", To: "vnet1", Frame: ra, Raw: destinationOptions, Reason: core.ReasonRAGuard},
			{Name: "to one node", From: "vnet0", To: "vnet1", Frame: policy.Path{SrcMAC: macA, DstMAC: macB, Src: llA, Dst: b6}.Packet(policy.ICMPv6{Type: policy.ICMPv6RouterAdvertisement}), Reason: core.ReasonRAGuard},
			{Name: "of a low hop limit", From: "vnet0", To: "vnet1", Frame: ra.WithHopLimit(64), Reason: core.ReasonRAGuard},
			{Name: "in pieces", From: "vnet0", To: "vnet1", Fragments: ra.Fragments(5, 8, 16), Reason: core.ReasonRAGuard},
			{Name: "in pieces, with options in the first", From: "vnet0", To: "vnet1", Frame: ra, Pieces: optionsFirst, Reason: core.ReasonRAGuard},
			{Name: "something else behind options passes", From: "vnet0", To: "vnet1", Frame: families()[1].ab.UDP(1, 2), Raw: destinationOptions, Want: true},
		},
	}
}

// destinationOptions puts an empty destination options header (RFC 8200 4.6)
// behind the IPv6 header.
func destinationOptions(b []byte) []byte {
	const ipv6, next = 14 + 40, 14 + 6
	options := []byte{b[next], 0, 1, 4, 0, 0, 0, 0}
	out := append(append(append([]byte(nil), b[:ipv6]...), options...), b[ipv6:]...)
	out[next] = 60
	size := uint16(len(out) - ipv6)
	out[18], out[19] = byte(size>>8), byte(size)
	return out
}

// optionsFirst has the first fragment hold options alone, so that nothing of
// the message is to be seen in it.
func optionsFirst(f frame.Frame) []frame.Frame {
	return frame.Frame(destinationOptions(f)).Fragments(8, 77)
}

// untrackedNeighbours: neighbour discovery is outside connection tracking, so
// that the rules are asked each time it does not always pass.
func untrackedNeighbours() Scenario {
	w := locked()
	w.Groups[0].Rules = append(w.Groups[0].Rules, core.Rule{Direction: core.Egress, Protocol: core.ProtocolICMPv6, ICMP: &core.ICMPMatch{Type: u8(policy.ICMPv6NeighbourSolicitation)}})
	w.Groups[1].Rules = append(w.Groups[1].Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolICMPv6, ICMP: &core.ICMPMatch{Type: u8(policy.ICMPv6NeighbourSolicitation)}})
	e := families()[1]
	return Scenario{
		Name: "untracked packets are asked each time", Rows: []string{"sender note 2", "sender 24", "receiver 16"}, World: w,
		Steps: []Step{
			{Name: "from far, by rule", From: "vnet0", To: "vnet1", Frame: policy.Solicitation(macA, a6, b6).WithHopLimit(64), Want: true, Reason: core.ReasonRule},
			{Name: "and again", From: "vnet0", To: "vnet1", Frame: policy.Solicitation(macA, a6, b6).WithHopLimit(64), Want: true, Reason: core.ReasonRule},
			{Name: "no answer by it", From: "vnet1", To: "vnet0", Frame: e.ba.Advertisement(b6).WithHopLimit(64), Reason: core.ReasonEgressRules},
			{Name: "nor from outside", From: "uplink", To: "vnet0", Frame: e.ua.Advertisement(u6).WithHopLimit(64), Reason: core.ReasonIngressRules},
		},
	}
}
