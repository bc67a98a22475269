package policy_test

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// The tables of docs/semantics.md, row by row. A test's name starts with the
// row that decides.

func TestSender(t *testing.T) {
	at := func(m core.MAC, src netip.Addr) policy.Path {
		if src.Is4() {
			return policy.Path{SrcMAC: m, DstMAC: macX, Src: src, Dst: x4}
		}
		return policy.Path{SrcMAC: m, DstMAC: macX, Src: src, Dst: x6}
	}
	ll := macA.LinkLocal()
	garp := policy.GratuitousARP
	foreignARP := func(f policy.Frame) policy.Frame {
		arp := *f.ARP
		arp.SenderMAC = macB
		f.ARP = &arp
		return f
	}
	rarp := func(change func(*policy.Frame)) policy.Frame {
		f := policy.RARPAnnouncement(macA)
		change(&f)
		return f
	}
	nd := func(typ uint8, src, dst, target netip.Addr) policy.Frame {
		return policy.Path{SrcMAC: macA, DstMAC: policy.GroupMAC(dst), Src: src, Dst: dst}.Packet(policy.ICMPv6{Type: typ, Target: target})
	}
	syn443, syn80 := toX.SYN(1000, 443), toX.SYN(1000, 80)
	echo := policy.Path{SrcMAC: macX, DstMAC: macA, Src: x4, Dst: a4}.UDP(9, 9)
	alien := policy.Path{SrcMAC: macX, DstMAC: macB, Src: x4, Dst: b4}.UDP(9, 9)
	est, rel := policy.StateEstablished, policy.StateRelated

	for _, c := range []struct {
		name   string
		change []func(*policy.Input)
		frame  policy.Frame
		from   policy.Port  // default nicA
		state  policy.State // default new
		off    bool         // the bridge's netfilter
		want   want
	}{
		{name: "1 from an uplink to the host", frame: at(macX, x4).SYN(1, 1), from: policy.Uplink, want: passIn(1, core.ReasonUplink)},
		{name: "1 from the host", frame: at(macX, x4).SYN(1, 1), from: policy.Host, want: passIn(1, core.ReasonUplink)},
		{name: "1 routed", frame: at(macX, x4).SYN(1, 1), from: policy.Routed, want: passIn(1, core.ReasonUplink)},
		{name: "2 closed", frame: syn443, from: policy.Closed, want: dropAt(2, core.ReasonClosedPort)},
		{name: "2 a NIC nobody knows", frame: syn443, from: policy.AtNIC(core.NICKey{VM: "z", MAC: macA}), want: dropAt(2, core.ReasonClosedPort)},
		{name: "3 system VM", change: with(system), frame: at(macX, b4).Raw(99).Tagged(7), want: passAt(3, core.ReasonSystem)},
		{name: "3 before 14", change: with(system), frame: syn443, state: policy.StateRevoked, want: passAt(3, core.ReasonSystem)},

		{name: "4 STP", frame: policy.Other(macA, core.MAC{1, 0x80, 0xc2, 0, 0, 0}, 38), want: dropAt(4, core.ReasonLinkLocal)},
		{name: "4 the last of them, IPv4", frame: syn443.To(core.MAC{1, 0x80, 0xc2, 0, 0, 0x0f}), want: dropAt(4, core.ReasonLinkLocal)},
		{name: "4 spoofing allowed", change: with(unchecked), frame: syn443.To(core.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}), want: dropAt(4, core.ReasonLinkLocal)},
		{name: "7 one beyond row 4", frame: policy.Other(macA, core.MAC{1, 0x80, 0xc2, 0, 0, 0x10}, 38), want: dropAt(7, core.ReasonEtherType)},
		{name: "5 tagged", frame: syn443.Tagged(7), want: dropAt(5, core.ReasonVLAN)},
		{name: "5 VID 0", frame: syn443.Tagged(0), want: dropAt(5, core.ReasonVLAN)},
		{name: "5 802.1ad around 802.1Q", frame: qinq(syn443), want: dropAt(5, core.ReasonVLAN)},
		{name: "5 spoofing allowed", change: with(unchecked), frame: syn443.Tagged(7), want: dropAt(5, core.ReasonVLAN)},
		{name: "5 a tagged announcement", frame: policy.RARPAnnouncement(macA).Tagged(1), want: dropAt(5, core.ReasonVLAN)},
		{name: "6 self-announcement", frame: policy.RARPAnnouncement(macA), want: passAt(6, core.ReasonAlways)},
		{name: "7 another's announcement", frame: policy.RARPAnnouncement(macB), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 RARP reply", frame: rarp(func(f *policy.Frame) { f.ARP.Op = policy.RARPReplyOp }), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 RARP about another", frame: rarp(func(f *policy.Frame) { f.ARP.TargetMAC = macB }), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 RARP with an address", frame: rarp(func(f *policy.Frame) { f.ARP.SenderIP = a4 }), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 RARP in unicast", frame: rarp(func(f *policy.Frame) { f.Dst = macX }), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 RARP from another MAC", frame: rarp(func(f *policy.Frame) { f.Src = macB }), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 LLC", frame: policy.Other(macA, macX, 46), want: dropAt(7, core.ReasonEtherType)},
		{name: "7 PPPoE, spoofing allowed", change: with(unchecked), frame: policy.Other(macA, macX, 0x8864), want: dropAt(7, core.ReasonEtherType)},

		{name: "8 another MAC", frame: syn443.From(macB), want: dropAt(8, core.ReasonMACSpoof)},
		{name: "8 before 15", frame: syn443.From(macB), state: est, want: dropAt(8, core.ReasonMACSpoof)},
		{name: "8 ARP too", frame: garp(macB, a4), want: dropAt(8, core.ReasonMACSpoof)},
		{name: "24 another MAC, spoofing allowed", change: with(unchecked), frame: syn443.From(macB), want: passAt(24, core.ReasonRule)},

		{name: "9 own", frame: garp(macA, a4), want: passAt(9, core.ReasonAlways)},
		{name: "9 pair", frame: garp(macA, vip4), want: passAt(9, core.ReasonAlways)},
		{name: "9 prefix pair", frame: garp(macA, route4), want: passAt(9, core.ReasonAlways)},
		{name: "9 VRRP", frame: garp(vrrpMAC, vrrp4), want: passAt(9, core.ReasonAlways)},
		{name: "9 VRRP address at own MAC", frame: garp(macA, vrrp4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 own address at VRRP MAC", frame: garp(vrrpMAC, a4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 another's address", frame: garp(macA, b4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 another's address in a reply", frame: policy.Path{SrcMAC: macA, DstMAC: macX, Src: b4, Dst: x4}.ARPReply(), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 another's hardware address", frame: foreignARP(garp(macA, a4)), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 probe for own", frame: policy.ARPProbe(macA, a4), want: passAt(9, core.ReasonAlways)},
		{name: "9 probe for a pair's with another MAC", frame: policy.ARPProbe(macA, vrrp4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 probe for another's", frame: policy.ARPProbe(macA, b4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 reply from 0.0.0.0", frame: policy.Path{SrcMAC: macA, DstMAC: macX, Src: nobody4, Dst: a4}.ARPReply(), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 malformed", frame: policy.Other(macA, macX, policy.TypeARP), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 no IPv4 address", change: with(homeless(core.IPv4)), frame: garp(macA, a4), want: dropAt(9, core.ReasonARPSpoof)},
		{name: "9 spoofing allowed", change: with(unchecked), frame: foreignARP(garp(macA, b4)), want: passAt(9, core.ReasonAlways)},

		{name: "10 another's address", frame: at(macA, b4).SYN(1, 443), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 before 15", frame: at(macA, b4).SYN(1, 443), state: est, want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 own address at a pair's MAC", frame: at(vrrpMAC, a4).SYN(1, 443), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 a pair's address at own MAC", frame: at(macA, vrrp4).SYN(1, 443), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "24 pair", frame: at(macA, vip4).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "24 prefix pair", frame: at(macA, route4).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "24 VRRP", frame: at(vrrpMAC, vrrp4).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "20 DHCP discover", frame: policy.DHCPDiscover(macA), want: passAt(20, core.ReasonAlways)},
		{name: "20 DHCP discover without an address", change: with(homeless(core.IPv4)), frame: policy.DHCPDiscover(macA), want: passAt(20, core.ReasonAlways)},
		{name: "10 DHCP discover at a pair's MAC", frame: policy.DHCPDiscover(vrrpMAC), want: dropAt(10, core.ReasonDHCPGuard)},
		{name: "10 DHCP from nobody to one server", frame: at(macA, nobody4).UDP(68, 67), want: dropAt(10, core.ReasonDHCPGuard)},
		{name: "10 other UDP from nobody", frame: policy.Multicast(macA, nobody4, policy.Broadcast).UDP(68, 69), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 DHCP from another's address", frame: policy.Multicast(macA, b4, policy.Broadcast).UDP(68, 67), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 TCP 68 to 67 from nobody", frame: policy.Multicast(macA, nobody4, policy.Broadcast).TCP(68, 67, policy.SYN), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "10 malformed", frame: policy.Other(macA, macX, policy.TypeIPv4), want: dropAt(10, core.ReasonIPSpoof)},
		{name: "14 malformed, spoofing allowed", change: with(unchecked), frame: policy.Other(macA, macX, policy.TypeIPv4), want: dropAt(14, core.ReasonInvalid)},

		{name: "11 another's address", frame: at(macA, b6).SYN(1, 443), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "11 another's link-local", frame: at(macA, macB.LinkLocal()).SYN(1, 443), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "11 own link-local at a pair's MAC", frame: at(vrrpMAC, ll).SYN(1, 443), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "24 own link-local", frame: at(macA, ll).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "24 a pair MAC's link-local", frame: at(vrrpMAC, vrrpMAC.LinkLocal()).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "24 a pair", frame: at(vrrpMAC, vrrp6).SYN(1, 443), want: passAt(24, core.ReasonRule)},
		{name: "11 other packets from ::", frame: at(macA, nobody6).SYN(1, 443), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "21 DAD for own", frame: policy.DAD(macA, a6), want: passAt(21, core.ReasonAlways)},
		{name: "21 DAD for own link-local", frame: policy.DAD(macA, ll), want: passAt(21, core.ReasonAlways)},
		{name: "11 DAD for a pair's", frame: policy.DAD(macA, vrrp6), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "11 DAD for another's", frame: policy.DAD(macA, b6), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "11 DAD to another group", frame: nd(135, nobody6, core.SolicitedNode(b6), a6), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "21 MLD report from ::", frame: policy.MLDReport(macA, nobody6), want: passAt(21, core.ReasonAlways)},
		{name: "11 MLD done from ::", frame: nd(132, nobody6, policy.AllRouters, netip.Addr{}), want: dropAt(11, core.ReasonIPSpoof)},
		{name: "11 malformed", frame: policy.Other(macA, macX, policy.TypeIPv6), want: dropAt(11, core.ReasonIPSpoof)},

		{name: "13 netfilter off", frame: syn443, off: true, want: dropAt(13, core.ReasonUnfiltered)},
		{name: "9 not 13: ARP", frame: garp(macA, a4), off: true, want: passAt(9, core.ReasonAlways)},
		{name: "14 revoked", frame: syn443, state: policy.StateRevoked, want: dropAt(14, core.ReasonRevoked)},
		{name: "14 invalid", frame: syn443, state: policy.StateInvalid, want: dropAt(14, core.ReasonInvalid)},
		{name: "15 established", frame: syn80, state: est, want: passAt(15, core.ReasonEstablished)},
		{name: "22 before 15", change: with(homeless(core.IPv6)), frame: at(macA, ll).SYN(1, 443), state: est, want: dropAt(22, core.ReasonIPSpoof)},
		{name: "16 owner of the flow", frame: toX.Unreachable(echo), state: rel, want: passAt(16, core.ReasonRelated)},
		{name: "16 alien", frame: toX.Unreachable(alien), state: rel, want: dropAt(16, core.ReasonNotOwner)},
		{name: "16 alien, spoofing allowed", change: with(unchecked), frame: toX.Unreachable(alien), state: rel, want: passAt(16, core.ReasonRelated)},
		{name: "16 owner by a pair", frame: toX.TooBig(policy.Path{SrcMAC: macX, DstMAC: macA, Src: x4, Dst: route4}.UDP(9, 9)), state: rel, want: passAt(16, core.ReasonRelated)},
		{name: "16 owner by link-local", frame: to6.TooBig(policy.Path{SrcMAC: macX, DstMAC: macA, Src: x6, Dst: ll}.UDP(9, 9)), state: rel, want: passAt(16, core.ReasonRelated)},
		{name: "22 before 16", change: with(homeless(core.IPv6)), frame: at(macA, ll).Unreachable(policy.Path{Src: x6, Dst: ll}.UDP(9, 9)), state: rel, want: dropAt(22, core.ReasonIPSpoof)},

		{name: "17 NS from a pair :: for another's", change: with(pair("::/0")), frame: policy.DAD(macA, b6), want: dropAt(17, core.ReasonNDSpoof)},
		{name: "17 NA for another's", frame: to6.Advertisement(b6), want: dropAt(17, core.ReasonNDSpoof)},
		{name: "17 NA for nothing", frame: to6.Advertisement(netip.Addr{}), want: dropAt(17, core.ReasonNDSpoof)},
		{name: "21 NA for own", frame: to6.Advertisement(a6), want: passAt(21, core.ReasonAlways)},
		{name: "21 NA for a pair's", frame: to6.Advertisement(vrrp6), want: passAt(21, core.ReasonAlways)},
		{name: "21 NA for own link-local", frame: to6.Advertisement(ll), want: passAt(21, core.ReasonAlways)},
		{name: "21 NA for another's, spoofing allowed", change: with(unchecked), frame: to6.Advertisement(b6), want: passAt(21, core.ReasonAlways)},
		{name: "18 RA", frame: policy.RouterAdvertisement(macA, ll), state: policy.StateUntracked, want: dropAt(18, core.ReasonRAGuard)},
		{name: "18 RA, spoofing allowed", change: with(unchecked), frame: policy.RouterAdvertisement(macB, x6), want: dropAt(18, core.ReasonRAGuard)},
		{name: "18 redirect", frame: to6.Redirect(b6), want: dropAt(18, core.ReasonRAGuard)},
		{name: "19 DHCP server", frame: toX.UDP(67, 68), want: dropAt(19, core.ReasonDHCPGuard)},
		{name: "19 DHCPv6 server", frame: to6.UDP(547, 546), want: dropAt(19, core.ReasonDHCPGuard)},
		{name: "19 spoofing allowed", change: with(unchecked), frame: toX.UDP(67, 9), want: dropAt(19, core.ReasonDHCPGuard)},
		{name: "26 TCP from port 67 is no DHCP", frame: toX.SYN(67, 68), want: dropAt(26, core.ReasonEgressRules)},
		{name: "26 67 in IPv6 is no DHCP", frame: to6.UDP(67, 68), want: dropAt(26, core.ReasonEgressRules)},
		{name: "20 DHCP renewal", frame: toX.UDP(68, 67), want: passAt(20, core.ReasonAlways)},
		{name: "20 DHCPv6 from link-local", frame: policy.DHCPv6Solicit(macA, ll), want: passAt(20, core.ReasonAlways)},
		{name: "20 DHCPv6 from link-local without an address", change: with(homeless(core.IPv6)), frame: policy.DHCPv6Solicit(macA, ll), want: passAt(20, core.ReasonAlways)},
		{name: "20 DHCPv6 from another address", frame: policy.DHCPv6Solicit(macA, a6), want: dropAt(20, core.ReasonDHCPGuard)},
		{name: "20 DHCPv6 from another address, spoofing allowed", change: with(unchecked), frame: policy.DHCPv6Solicit(macA, x6), want: passAt(20, core.ReasonAlways)},
		{name: "20 DHCPv6 from a pair MAC's link-local", frame: policy.DHCPv6Solicit(vrrpMAC, vrrpMAC.LinkLocal()), want: passAt(20, core.ReasonAlways)},
		{name: "21 router solicitation", frame: policy.RouterSolicitation(macA, ll), want: passAt(21, core.ReasonAlways)},
		{name: "21 neighbour solicitation", frame: policy.Solicitation(macA, a6, x6), want: passAt(21, core.ReasonAlways)},
		{name: "26 neighbour solicitation from afar", frame: policy.Solicitation(macA, a6, x6).WithHopLimit(254), want: dropAt(26, core.ReasonEgressRules)},
		{name: "21 MLD report", frame: policy.MLDReport(macA, ll), want: passAt(21, core.ReasonAlways)},
		{name: "26 MLD query", frame: nd(130, ll, policy.AllNodes, netip.Addr{}), want: dropAt(26, core.ReasonEgressRules)},
		{name: "22 no IPv6 address", change: with(homeless(core.IPv6), untilRules, leaveGroups), frame: at(macA, ll).SYN(1, 443), want: dropAt(22, core.ReasonIPSpoof)},
		{name: "25 no IPv6 address, spoofing allowed", change: with(homeless(core.IPv6), untilRules, leaveGroups, unchecked), frame: at(macA, ll).SYN(1, 443), want: passAt(25, core.ReasonDefault)},
		{name: "23 DNS", change: with(allowDNS), frame: toX.UDP(1000, 53), want: passAt(23, core.ReasonAlways)},
		{name: "23 DNS over TCP", change: with(allowDNS), frame: to6.SYN(1000, 53), want: passAt(23, core.ReasonAlways)},
		{name: "26 SCTP to 53", change: with(allowDNS), frame: toX.SCTP(1000, 53), want: dropAt(26, core.ReasonEgressRules)},
		{name: "26 DNS not allowed", frame: toX.UDP(1000, 53), want: dropAt(26, core.ReasonEgressRules)},
		{name: "24 rule", frame: syn443, want: passAt(24, core.ReasonRule)},
		{name: "24 untracked is asked", frame: syn443, state: policy.StateUntracked, want: passAt(24, core.ReasonRule)},
		{name: "26 another port", frame: syn80, want: dropAt(26, core.ReasonEgressRules)},
		{name: "26 another protocol", frame: toX.UDP(1000, 443), want: dropAt(26, core.ReasonEgressRules)},
		{name: "26 another destination", frame: policy.Path{SrcMAC: macA, DstMAC: macX, Src: a4, Dst: b4}.SYN(1000, 443), want: dropAt(26, core.ReasonEgressRules)},
		{name: "25 until rules", change: with(untilRules, leaveGroups), frame: syn80, want: passAt(25, core.ReasonDefault)},
		{name: "26 until rules, with rules", change: with(untilRules), frame: syn80, want: dropAt(26, core.ReasonEgressRules)},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkName(t, c.name, c.want)
			if c.from == policy.Closed && c.want.reason != core.ReasonClosedPort {
				c.from = nicA
			}
			if c.state == 0 && !c.off {
				c.state = policy.StateNew
			}
			if got := verdictOf(policy.Evaluate(compile(t, c.change...), c.frame, c.from, policy.Uplink, c.state)); got != c.want {
				t.Errorf("%s\n got %+v\nwant %+v", c.frame, got, c.want)
			}
		})
	}
}

func with(change ...func(*policy.Input)) []func(*policy.Input) { return change }

func pair(s string) func(*policy.Input) {
	return func(in *policy.Input) {
		in.VMs[0].NICs[0].Pairs = append(in.VMs[0].NICs[0].Pairs, core.AddressPair{Prefix: cidr(s)})
	}
}

func qinq(f policy.Frame) policy.Frame {
	f.Tags = []policy.Tag{{TPID: policy.TypeQinQ, VID: 5}, {TPID: policy.TypeVLAN, VID: 6}}
	return f
}
