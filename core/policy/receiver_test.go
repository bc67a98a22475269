package policy_test

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func TestReceiver(t *testing.T) {
	// Everything comes from the uplink, unless said otherwise, and goes to a.
	to := func(m core.MAC, dst netip.Addr) policy.Path {
		if dst.Is4() {
			return policy.Path{SrcMAC: macX, DstMAC: m, Src: x4, Dst: dst}
		}
		return policy.Path{SrcMAC: macX, DstMAC: m, Src: x6, Dst: dst}
	}
	nd := func(typ uint8) policy.Frame { return to(macA, a6).Packet(policy.ICMPv6{Type: typ, Target: a6}) }
	ll := macA.LinkLocal()
	syn80, syn81 := to(macA, a4).SYN(1000, 80), to(macA, a4).SYN(1000, 81)
	est, rel := policy.StateEstablished, policy.StateRelated
	anybody := rule(allow(core.Ingress, core.ProtocolUDP, nil))

	for _, c := range []struct {
		name   string
		change []func(*policy.Input)
		frame  policy.Frame
		from   policy.Port // default uplink
		to     policy.Port // default nicA
		state  policy.State
		off    bool
		want   want
	}{
		{name: "1 host", frame: syn81, to: policy.Host, want: passIn(1, core.ReasonUplink)},
		{name: "1 routed", frame: syn81, to: policy.Routed, want: passIn(1, core.ReasonUplink)},
		{name: "2 closed", frame: syn80, from: policy.Uplink, to: policy.Closed, want: dropIn(2, core.ReasonClosedPort)},
		{name: "2 closed to the host", frame: syn80, from: policy.Host, to: policy.Closed, want: dropIn(2, core.ReasonClosedPort)},
		{name: "2 a NIC nobody knows", frame: syn80, to: policy.AtNIC(core.NICKey{VM: "z", MAC: macA}), want: dropIn(2, core.ReasonClosedPort)},
		{name: "3 system VM", change: with(system), frame: to(macB, b4).Raw(99).Tagged(7), want: passIn(3, core.ReasonSystem)},
		{name: "3 an announcement", change: with(system), frame: policy.RARPAnnouncement(macB), from: nicB, want: passIn(3, core.ReasonSystem)},
		{name: "4 from the host", frame: to(macB, b4).SYN(1, 81).Tagged(1), from: policy.Host, want: passIn(4, core.ReasonHost)},
		{name: "17 routed is not from the host", frame: syn81, from: policy.Routed, want: dropIn(17, core.ReasonIngressRules)},
		{name: "5 tagged", frame: syn80.Tagged(0), want: dropIn(5, core.ReasonVLAN)},
		{name: "5 tagged, spoofing allowed", change: with(unchecked), frame: qinq(syn80), want: dropIn(5, core.ReasonVLAN)},
		{name: "5 EtherType", frame: policy.Other(macX, macA, 0x88b5), want: dropIn(5, core.ReasonEtherType)},
		{name: "5 an announcement from a VM", frame: policy.RARPAnnouncement(macB), from: nicB, want: dropIn(5, core.ReasonEtherType)},

		{name: "6 ARP", frame: policy.ARPRequest(macX, x4, a4), want: passIn(6, core.ReasonAlways)},
		{name: "6 ARP about another", frame: policy.ARPRequest(macX, x4, b4), want: passIn(6, core.ReasonAlways)},
		{name: "6 ARP to its MAC", frame: to(macA, a4).ARPReply(), want: passIn(6, core.ReasonAlways)},
		{name: "6 ARP to a pair's MAC", frame: to(vrrpMAC, vrrp4).ARPReply(), want: passIn(6, core.ReasonAlways)},
		{name: "6 ARP to another MAC", frame: to(macB, a4).ARPReply(), want: dropIn(6, core.ReasonDestination)},
		{name: "6 ARP to another MAC, spoofing allowed", change: with(unchecked), frame: to(macB, a4).ARPReply(), want: passIn(6, core.ReasonAlways)},

		{name: "7 another MAC", frame: to(macB, a4).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 another address", frame: to(macA, b4).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 multicast address to a unicast MAC", frame: to(macA, ip("224.0.0.1")).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 IPv6 multicast address to a unicast MAC", frame: to(macA, policy.AllNodes).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 VRRP address at own MAC", frame: to(macA, vrrp4).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 own address at VRRP MAC", frame: to(vrrpMAC, a4).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 own link-local at VRRP MAC", frame: to(vrrpMAC, ll).SYN(1, 80), want: dropIn(7, core.ReasonDestination)},
		{name: "7 before 10", frame: to(macA, b4).SYN(1, 80), state: est, want: dropIn(7, core.ReasonDestination)},
		{name: "7 malformed", frame: policy.Other(macX, macA, policy.TypeIPv4), want: dropIn(7, core.ReasonDestination)},
		{name: "9 malformed to a group", frame: policy.Other(macX, core.BroadcastMAC, policy.TypeIPv6), want: dropIn(9, core.ReasonInvalid)},
		{name: "16 VRRP", frame: to(vrrpMAC, vrrp4).SYN(1, 80), want: passIn(16, core.ReasonRule)},
		{name: "16 prefix pair", frame: to(macA, route4).SYN(1, 80), want: passIn(16, core.ReasonRule)},
		{name: "16 link-local", frame: to(macA, ll).SYN(1, 80), want: passIn(16, core.ReasonRule)},
		{name: "16 a pair MAC's link-local", frame: to(vrrpMAC, vrrpMAC.LinkLocal()).SYN(1, 80), want: passIn(16, core.ReasonRule)},
		{name: "16 another MAC, spoofing allowed", change: with(unchecked), frame: to(macB, b4).SYN(1, 80), want: passIn(16, core.ReasonRule)},

		{name: "8 netfilter off", frame: syn80, off: true, want: dropIn(8, core.ReasonUnfiltered)},
		{name: "6 not ARP", frame: policy.ARPRequest(macX, x4, a4), off: true, want: passIn(6, core.ReasonAlways)},
		{name: "9 revoked", frame: syn80, state: policy.StateRevoked, want: dropIn(9, core.ReasonRevoked)},
		{name: "9 invalid", frame: syn80, state: policy.StateInvalid, want: dropIn(9, core.ReasonInvalid)},
		{name: "10 established", frame: syn81, state: est, want: passIn(10, core.ReasonEstablished)},
		{name: "10 related", frame: to(macA, a4).Unreachable(toX.UDP(1, 2)), state: rel, want: passIn(10, core.ReasonRelated)},
		{name: "17 established to a group MAC", frame: syn81.To(core.BroadcastMAC), state: est, want: dropIn(17, core.ReasonIngressRules)},
		{name: "14 before 10", change: with(homeless(core.IPv6)), frame: to(macA, ll).SYN(1, 80), state: est, want: dropIn(14, core.ReasonDestination)},
		{name: "11 DHCP answer", frame: to(macA, a4).UDP(67, 68), want: passIn(11, core.ReasonAlways)},
		{name: "11 DHCP answer to everybody", frame: to(core.BroadcastMAC, policy.Broadcast).UDP(67, 68), want: passIn(11, core.ReasonAlways)},
		{name: "11 DHCP answer to a NIC without address", change: with(homeless(core.IPv4), dropGroups), frame: to(core.BroadcastMAC, policy.Broadcast).UDP(67, 68), want: passIn(11, core.ReasonAlways)},
		{name: "7 DHCP answer to an address it has not", change: with(homeless(core.IPv4)), frame: to(macA, a4).UDP(67, 68), want: dropIn(7, core.ReasonDestination)},
		{name: "17 DHCP answer over TCP", frame: to(macA, a4).SYN(67, 68), want: dropIn(17, core.ReasonIngressRules)},
		{name: "11 DHCPv6 answer", frame: to(macA, ll).UDP(547, 546), want: passIn(11, core.ReasonAlways)},
		{name: "11 DHCPv6 answer without address", change: with(homeless(core.IPv6)), frame: to(macA, ll).UDP(547, 546), want: passIn(11, core.ReasonAlways)},
		{name: "11 DHCPv6 answer to any link-local, spoofing allowed", change: with(unchecked), frame: to(macA, macB.LinkLocal()).UDP(547, 546), want: passIn(11, core.ReasonAlways)},
		{name: "17 DHCPv6 answer to a global address, spoofing allowed", change: with(unchecked), frame: to(macA, a6).UDP(547, 546), want: dropIn(17, core.ReasonIngressRules)},
		{name: "17 DHCPv6 answer elsewhere", frame: to(macA, a6).UDP(547, 546), want: dropIn(17, core.ReasonIngressRules)},
		{name: "12 DHCP request", change: with(anybody), frame: policy.DHCPDiscover(macB), from: nicB, want: dropIn(12, core.ReasonDHCPGuard)},
		{name: "12 DHCP request in unicast", change: with(anybody), frame: to(macA, a4).UDP(68, 67), want: dropIn(12, core.ReasonDHCPGuard)},
		{name: "12 DHCPv6 request", change: with(anybody), frame: to(macA, a6).UDP(546, 547), want: dropIn(12, core.ReasonDHCPGuard)},
		{name: "16 port 547 in IPv4", change: with(anybody), frame: to(macA, a4).UDP(546, 547), want: passIn(16, core.ReasonRule)},
		{name: "12 spoofing allowed", change: with(anybody, unchecked), frame: to(macA, a4).UDP(9, 67), want: dropIn(12, core.ReasonDHCPGuard)},
		{name: "13 RA", change: with(dropGroups), frame: policy.RouterAdvertisement(macX, macX.LinkLocal()), state: policy.StateUntracked, want: passIn(13, core.ReasonAlways)},
		{name: "17 RA from afar", frame: policy.RouterAdvertisement(macX, macX.LinkLocal()).WithHopLimit(64), want: dropIn(17, core.ReasonIngressRules)},
		{name: "13 NS", frame: policy.Solicitation(macX, x6, a6), want: passIn(13, core.ReasonAlways)},
		{name: "13 NA", frame: nd(136), want: passIn(13, core.ReasonAlways)},
		{name: "13 RS", frame: nd(133), want: passIn(13, core.ReasonAlways)},
		{name: "13 redirect", frame: nd(137), want: passIn(13, core.ReasonAlways)},
		{name: "13 NS without address", change: with(homeless(core.IPv6)), frame: policy.Solicitation(macX, x6, ll), want: passIn(13, core.ReasonAlways)},
		{name: "13 MLD query", frame: to(policy.GroupMAC(policy.AllNodes), policy.AllNodes).Packet(policy.ICMPv6{Type: 130}), want: passIn(13, core.ReasonAlways)},
		{name: "13 MLD done", frame: nd(132), want: passIn(13, core.ReasonAlways)},
		{name: "13 MLDv2 report", frame: policy.MLDReport(macX, x6), want: passIn(13, core.ReasonAlways)},
		{name: "17 message 138", frame: nd(138), want: dropIn(17, core.ReasonIngressRules)},
		{name: "14 multicast without address", change: with(homeless(core.IPv4), anybody), frame: to(core.BroadcastMAC, policy.Broadcast).UDP(1, 1), want: dropIn(14, core.ReasonDestination)},
		{name: "16 multicast without address, spoofing allowed", change: with(homeless(core.IPv4), anybody, unchecked), frame: to(core.BroadcastMAC, policy.Broadcast).UDP(1, 1), want: passIn(16, core.ReasonRule)},
		{name: "15 multicast dropped", change: with(anybody, dropGroups), frame: to(core.BroadcastMAC, policy.Broadcast).UDP(1, 1), want: dropIn(15, core.ReasonMulticast)},
		{name: "15 its own address to a group MAC", change: with(anybody, dropGroups), frame: to(core.BroadcastMAC, a4).UDP(1, 1), state: est, want: dropIn(15, core.ReasonMulticast)},
		{name: "16 multicast by rules", change: with(anybody), frame: to(policy.GroupMAC(ip("224.0.0.18")), ip("224.0.0.18")).UDP(1, 1), want: passIn(16, core.ReasonRule)},
		{name: "17 multicast that no rule wants", frame: to(core.BroadcastMAC, policy.Broadcast).UDP(1, 1), want: dropIn(17, core.ReasonIngressRules)},
		{name: "16 rule", frame: syn80, want: passIn(16, core.ReasonRule)},
		{name: "16 IPv6", frame: to(macA, a6).SYN(1, 80), want: passIn(16, core.ReasonRule)},
		{name: "17 another port", frame: syn81, want: dropIn(17, core.ReasonIngressRules)},
		{name: "17 another protocol", frame: to(macA, a4).SCTP(1, 80), want: dropIn(17, core.ReasonIngressRules)},
		{name: "17 another source", frame: policy.Path{SrcMAC: macX, DstMAC: macA, Src: ip("198.51.100.1"), Dst: a4}.SYN(1, 80), want: dropIn(17, core.ReasonIngressRules)},
		{name: "17 no groups", change: with(leaveGroups), frame: syn80, want: dropIn(17, core.ReasonIngressRules)},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkName(t, c.name, c.want)
			if c.from == policy.Closed {
				c.from = policy.Uplink
			}
			if c.to == policy.Closed && c.want.reason != core.ReasonClosedPort {
				c.to = nicA
			}
			if c.state == 0 && !c.off {
				c.state = policy.StateNew
			}
			if got := verdictOf(policy.Evaluate(compile(t, c.change...), c.frame, c.from, c.to, c.state)); got != c.want {
				t.Errorf("%s\n got %+v\nwant %+v", c.frame, got, c.want)
			}
		})
	}
}

// Both ports must agree, and the one that drops is named.
func TestBothSides(t *testing.T) {
	open := rule(allow(core.Egress, core.ProtocolTCP, nil, port(22)))
	hear := func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil, port(22), port(443))}
	}
	ab := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	for _, c := range []struct {
		name   string
		change []func(*policy.Input)
		frame  policy.Frame
		to     policy.Port
		want   want
	}{
		{"receiver denies", with(open), ab.SYN(1, 22), nicB, dropIn(17, core.ReasonIngressRules)},
		{"sender denies", with(hear), ab.SYN(1, 22), nicB, dropAt(26, core.ReasonEgressRules)},
		{"both allow", with(open, hear), ab.SYN(1, 22), nicB, passIn(16, core.ReasonRule)},
		{"to the host by egress rules", with(open), ab.SYN(1, 22), policy.Host, passAt(24, core.ReasonRule)},
		{"to the host without", nil, ab.SYN(1, 22), policy.Host, dropAt(26, core.ReasonEgressRules)},
		{"to a closed port", with(open), ab.SYN(1, 22), policy.Closed, dropIn(2, core.ReasonClosedPort)},
		{"DHCP reaches no other VM", nil, policy.DHCPDiscover(macA), nicB, dropIn(12, core.ReasonDHCPGuard)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(policy.Evaluate(compile(t, c.change...), c.frame, nicA, c.to, policy.StateNew)); got != c.want {
				t.Errorf("%s\n got %+v\nwant %+v", c.frame, got, c.want)
			}
		})
	}
}

func TestCountOnlyPassesAndCounts(t *testing.T) {
	ab := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	for _, c := range []struct {
		name  string
		frame policy.Frame
		from  policy.Port
		to    policy.Port
		want  want
		would bool
	}{
		{"both would drop", ab.SYN(1, 22), nicA, nicB, want{true, core.ReasonEgressRules, policy.AtSender, 26}, true},
		{"receiver would", ab.Reverse().SYN(1, 80), policy.Uplink, nicA, want{true, core.ReasonIngressRules, policy.AtReceiver, 17}, true},
		{"closed port", ab.SYN(1, 22), policy.Closed, policy.Uplink, want{true, core.ReasonClosedPort, policy.AtSender, 2}, true},
		{"nobody would", toX.SYN(1, 443), nicA, policy.Uplink, passAt(24, core.ReasonRule), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := policy.Evaluate(compile(t, countOnly), c.frame, c.from, c.to, policy.StateNew)
			if got := verdictOf(v); got != c.want || v.WouldDrop != c.would {
				t.Errorf("%s\n got %+v would drop %v\nwant %+v", c.frame, got, v.WouldDrop, c.want)
			}
		})
	}
}

// 12 fragments: rows 4 to 11 hold for every fragment; the rest sees the datagram.
func TestSender12Fragments(t *testing.T) {
	rs := compile(t, rule(allow(core.Egress, core.ProtocolUDP, nil, port(53))))
	good := toX.UDP(1000, 53)
	swap := func(fs []policy.Frame, i int, f policy.Frame) []policy.Frame { fs[i] = f; return fs }
	fragments := func(f policy.Frame) []policy.Frame { return f.Fragments(7, 8, 24) }
	spoofed := policy.Path{SrcMAC: macA, DstMAC: macX, Src: b4, Dst: x4}.UDP(1000, 53)
	for _, c := range []struct {
		name      string
		fragments []policy.Frame
		want      want
	}{
		{"whole", fragments(good), passAt(24, core.ReasonRule)},
		{"in any order", []policy.Frame{fragments(good)[2], fragments(good)[0], fragments(good)[1]}, passAt(24, core.ReasonRule)},
		{"the rules see the ports", fragments(toX.UDP(1000, 54)), dropAt(26, core.ReasonEgressRules)},
		{"a spoofed middle", swap(fragments(good), 1, fragments(spoofed)[1]), dropAt(10, core.ReasonIPSpoof)},
		{"a spoofed MAC at the end", swap(fragments(good), 2, fragments(good)[2].From(macB)), dropAt(8, core.ReasonMACSpoof)},
		{"a tagged one", swap(fragments(good), 1, fragments(good)[1].Tagged(1)), dropAt(5, core.ReasonVLAN)},
		{"one missing", fragments(good)[:2], dropAt(12, core.ReasonInvalid)},
		{"the first missing", fragments(good)[1:], dropAt(12, core.ReasonInvalid)},
		{"another's id", swap(fragments(good), 2, good.Fragments(8, 8, 24)[2]), dropAt(12, core.ReasonInvalid)},
		{"one alone", fragments(good)[:1], dropAt(12, core.ReasonInvalid)},
		{"none", nil, dropAt(12, core.ReasonInvalid)},
		{"a DHCP client's, whose ports are in the first only", fragments(policy.DHCPDiscover(macA)), dropAt(10, core.ReasonIPSpoof)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(policy.EvaluateDatagram(rs, c.fragments, nicA, policy.Uplink, policy.StateNew)); got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
	for name, other := range map[string]policy.Path{
		"source":      {SrcMAC: macA, DstMAC: macX, Src: vip4, Dst: x4},
		"destination": {SrcMAC: macA, DstMAC: macX, Src: a4, Dst: ip("192.0.2.2")},
	} {
		mixed := swap(fragments(good), 1, fragments(other.UDP(1000, 53))[1])
		if got := verdictOf(policy.EvaluateDatagram(rs, mixed, nicA, policy.Uplink, policy.StateNew)); got != dropAt(12, core.ReasonInvalid) {
			t.Errorf("a fragment of another %s: %+v", name, got)
		}
	}
	lax := rs
	lax.Options.CountOnly = true
	v := policy.EvaluateDatagram(lax, swap(fragments(good), 1, fragments(good)[1].From(macB)), nicA, policy.Uplink, policy.StateNew)
	if got := verdictOf(v); got != (want{true, core.ReasonMACSpoof, policy.AtSender, 8}) || !v.WouldDrop {
		t.Errorf("counted only: %+v, would drop %v", got, v.WouldDrop)
	}
	if got := verdictOf(policy.Evaluate(rs, fragments(good)[1], nicA, policy.Uplink, policy.StateNew)); got != dropAt(12, core.ReasonInvalid) {
		t.Errorf("Evaluate of one fragment: %+v", got)
	}
}
