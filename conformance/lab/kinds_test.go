package lab_test

import (
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
)

// kind is one frame of every kind that design section 4 speaks of, with the
// layers that a parser must find in it.
type kind struct {
	name   string
	frame  frame.Frame
	layers []gopacket.LayerType
}

func kinds(a, b *lab.Port) []kind {
	v4, v6 := lab.FlowBetween(a, b, core.IPv4), lab.FlowBetween(a, b, core.IPv6)
	local := v6
	local.Src, local.Dst = a.MAC().LinkLocal(), b.MAC().LinkLocal()
	bcast := frame.Multicast(a.MAC(), v4.Src, netip.MustParseAddr("255.255.255.255"))
	E, Q, V4, V6 := layers.LayerTypeEthernet, layers.LayerTypeDot1Q, layers.LayerTypeIPv4, layers.LayerTypeIPv6
	U, T, S, A := layers.LayerTypeUDP, layers.LayerTypeTCP, layers.LayerTypeSCTP, layers.LayerTypeARP
	I4, I6, P := layers.LayerTypeICMPv4, layers.LayerTypeICMPv6, gopacket.LayerTypePayload
	unknown := gopacket.LayerTypeDecodeFailure // an EtherType that the parser does not know
	is := func(ls ...gopacket.LayerType) []gopacket.LayerType { return ls }

	udp4, udp6 := v4.UDP(4001, 4002, "x"), v6.UDP(4001, 4002, "x")
	long4, long6 := v4.UDP(1, 2, strings.Repeat("l", 64)), v6.UDP(1, 2, strings.Repeat("l", 64))
	return []kind{
		{"udp4", udp4, is(E, V4, U)},
		{"udp6", udp6, is(E, V6, U)},
		{"udp4 without checksum", v4.Packet(frame.UDP{SrcPort: 1, DstPort: 2, NoChecksum: true}, frame.Payload("x")), is(E, V4, U)},
		{"tcp4 syn", v4.SYN(1000, 80), is(E, V4, T)},
		{"tcp6 rst", v6.TCP(frame.TCP{SrcPort: 1000, DstPort: 80, Flags: frame.RST | frame.ACK, Ack: 7}, ""), is(E, V6, T)},
		{"tcp4 xmas with options", v4.TCP(frame.TCP{SrcPort: 1, DstPort: 2, Flags: frame.FIN | frame.URG | frame.PSH, Options: []byte{2, 4, 5, 0xb4}}, "data"), is(E, V4, T, P)},
		{"sctp4", v4.SCTP(1000, 80), is(E, V4, S, layers.LayerTypeSCTPInit)},
		{"sctp6 data", v6.Packet(frame.SCTP{SrcPort: 1, DstPort: 2, Tag: 9, Chunk: frame.SCTPData}, frame.Payload("x")), is(E, V6, S, layers.LayerTypeSCTPData)},
		{"echo4", v4.Echo(1, 2, "x"), is(E, V4, I4, P)},
		{"echo6", v6.Echo(1, 2, "x"), is(E, V6, I6, layers.LayerTypeICMPv6Echo)},
		{"echo reply4", v4.EchoReply(1, 2, "x"), is(E, V4, I4, P)},
		{"echo reply6", v6.EchoReply(1, 2, "x"), is(E, V6, I6, layers.LayerTypeICMPv6Echo)},
		{"gre4", v4.IPProtocol(47, "\x00\x00\x88\xb5x"), is(E, V4, layers.LayerTypeGRE)},
		{"esp6", v6.IPProtocol(50, "\x00\x00\x00\x01\x00\x00\x00\x01x"), is(E, V6, layers.LayerTypeIPSecESP)},
		{"frag needed4", v4.Error(frame.ICMP{Type: frame.ICMPUnreachable, Code: frame.CodeFragNeeded, Rest: 600}, v4.Reverse().UDP(2, 1, "x")), is(E, V4, I4, P)},
		{"port unreachable6", v6.Error(frame.ICMPv6{Type: frame.ICMPv6Unreachable, Code: 4}, v6.Reverse().UDP(2, 1, "x")), is(E, V6, I6, P)},
		{"too big6", v6.Error(frame.ICMPv6{Type: frame.ICMPv6TooBig, Rest: 1280}, v6.Reverse().UDP(2, 1, "x")), is(E, V6, I6, P)},

		{"802.1q", udp4.Tagged(frame.VLAN{ID: 5}), is(E, Q, V4, U)},
		{"priority tag", udp6.Tagged(frame.VLAN{ID: 0, Priority: 7}), is(E, Q, V6, U)},
		{"802.1ad", udp4.Tagged(frame.VLAN{TPID: frame.TypeQinQ, ID: 5}), is(E, Q, V4, U)},
		{"qinq", udp4.Tagged(frame.VLAN{TPID: frame.TypeQinQ, ID: 5}, frame.VLAN{ID: 6}), is(E, Q, Q, V4, U)},
		{"tag by layers", frame.Build(v4.Ethernet(), frame.VLAN{ID: 9}, v4.IP(), frame.UDP{SrcPort: 1, DstPort: 9}, frame.Payload("x")), is(E, Q, V4, U)},
		{"pppoe4", frame.Build(v4.Ethernet(), frame.PPPoE{Session: 1}, v4.IP(), frame.UDP{SrcPort: 1, DstPort: 2}), is(E, layers.LayerTypePPPoE, layers.LayerTypePPP, V4, U)},
		{"pppoe6", frame.Build(v6.Ethernet(), frame.PPPoE{Session: 1}, v6.IP(), frame.UDP{SrcPort: 1, DstPort: 2}), is(E, layers.LayerTypePPPoE, layers.LayerTypePPP, V6, U)},
		{"other ethertype", frame.Build(frame.Ethernet{Src: a.MAC(), Dst: b.MAC(), Type: 0x88b6}, frame.Payload("x")), is(E, unknown)},
		{"llc", frame.Build(v4.Ethernet(), frame.LLC{DSAP: 0xaa, SSAP: 0xaa, Control: 3}, frame.Payload("\x00\x00\x00\x88\xb5abc")), is(E, layers.LayerTypeLLC, layers.LayerTypeSNAP, unknown)},
		{"bpdu", frame.BPDU(a.MAC()), is(E, layers.LayerTypeLLC, layers.LayerTypeSTP)},
		{"lldp", frame.LLDP(a.MAC()), is(E, layers.LayerTypeLinkLayerDiscovery, layers.LayerTypeLinkLayerDiscoveryInfo)},

		{"arp request", frame.ARPRequest(a.MAC(), v4.Src, v4.Dst), is(E, A)},
		{"arp reply", v4.ARPReply(), is(E, A)},
		{"arp probe", frame.ARPProbe(a.MAC(), v4.Src), is(E, A)},
		{"gratuitous arp", frame.GratuitousARP(a.MAC(), v4.Src), is(E, A)},
		{"gratuitous arp reply", frame.GratuitousARPReply(a.MAC(), v4.Src), is(E, A)},
		{"rarp announcement", frame.RARPAnnouncement(a.MAC()), is(E, unknown)},

		{"ip options", frame.Build(v4.Ethernet(), frame.IPv4{Src: v4.Src, Dst: v4.Dst, Options: []byte{0x94, 4, 0, 0}}, frame.UDP{SrcPort: 1, DstPort: 3}, frame.Payload("x")), is(E, V4, U)},
		{"first fragment4", long4.Fragments(40, 9)[0], is(E, V4, gopacket.LayerTypeFragment)},
		{"last fragment4", long4.Fragments(40, 9)[1], is(E, V4, gopacket.LayerTypeFragment)},
		{"overlapping fragment4", long4.Fragment(32, 40, false, 9), is(E, V4, gopacket.LayerTypeFragment)},
		{"first fragment6", long6.Fragments(40, 9)[0], is(E, V6, layers.LayerTypeIPv6Fragment, gopacket.LayerTypeFragment)},
		{"last fragment6", long6.Fragments(40, 9)[1], is(E, V6, layers.LayerTypeIPv6Fragment, gopacket.LayerTypeFragment)},
		{"hop-by-hop", v6.Packet(frame.HopByHop{}, frame.UDP{SrcPort: 1, DstPort: 4}, frame.Payload("x")), is(E, V6, layers.LayerTypeIPv6HopByHop, U)},
		{"destination options", v6.Packet(frame.DestinationOptions{}, frame.UDP{SrcPort: 1, DstPort: 5}), is(E, V6, layers.LayerTypeIPv6Destination, U)},
		{"routing header", v6.Packet(frame.Routing{Type: 4, Addresses: []netip.Addr{v6.Dst}}, frame.UDP{SrcPort: 1, DstPort: 6}), is(E, V6, layers.LayerTypeIPv6Routing, U)},
		{"fragment header by layers", v6.Packet(frame.DestinationOptions{}, frame.Fragment{ID: 3}, frame.UDP{SrcPort: 1, DstPort: 7}), is(E, V6, layers.LayerTypeIPv6Destination, layers.LayerTypeIPv6Fragment, gopacket.LayerTypeFragment)},

		{"ns", frame.Solicit(a.MAC(), v6.Src, v6.Dst), is(E, V6, I6, layers.LayerTypeICMPv6NeighborSolicitation)},
		{"dad", frame.DADSolicitation(a.MAC(), v6.Src), is(E, V6, I6, layers.LayerTypeICMPv6NeighborSolicitation)},
		{"na", v6.Advertise(), is(E, V6, I6, layers.LayerTypeICMPv6NeighborAdvertisement)},
		{"unsolicited na", frame.UnsolicitedNA(a.MAC(), v6.Src), is(E, V6, I6, layers.LayerTypeICMPv6NeighborAdvertisement)},
		{"rs", frame.Multicast(a.MAC(), local.Src, frame.AllRouters).Packet(frame.RS{LinkLayer: a.MAC()}), is(E, V6, I6, layers.LayerTypeICMPv6RouterSolicitation)},
		{"ra", frame.Multicast(a.MAC(), local.Src, frame.AllNodes).Packet(ra(a)), is(E, V6, I6, layers.LayerTypeICMPv6RouterAdvertisement)},
		{"ra behind options", frame.Multicast(a.MAC(), local.Src, frame.AllNodes).Packet(frame.DestinationOptions{}, ra(a)), is(E, V6, layers.LayerTypeIPv6Destination, I6, layers.LayerTypeICMPv6RouterAdvertisement)},
		{"ra, last fragment", frame.Multicast(a.MAC(), local.Src, frame.AllNodes).Packet(frame.DestinationOptions{}, ra(a)).Fragments(8, 4)[1], is(E, V6, layers.LayerTypeIPv6Fragment, gopacket.LayerTypeFragment)},
		{"redirect", local.Packet(frame.Redirect{Target: local.Src, Destination: v6.Src, LinkLayer: a.MAC()}), is(E, V6, I6, layers.LayerTypeICMPv6Redirect)},
		{"mldv2 report", frame.JoinGroup(a.MAC(), local.Src, netip.MustParseAddr("ff05::5")), is(E, V6, layers.LayerTypeIPv6HopByHop, I6, layers.LayerTypeMLDv2MulticastListenerReport)},
		{"mldv1 report", frame.Multicast(a.MAC(), local.Src, netip.MustParseAddr("ff05::6")).Packet(frame.RouterAlert, frame.MLDv1{Type: 131, Group: netip.MustParseAddr("ff05::6")}), is(E, V6, layers.LayerTypeIPv6HopByHop, I6, layers.LayerTypeMLDv1MulticastListenerReport)},
		{"mld query", frame.QueryGroups(a.MAC(), local.Src), is(E, V6, layers.LayerTypeIPv6HopByHop, I6, layers.LayerTypeMLDv1MulticastListenerQuery)},

		{"dhcp discover", frame.DHCPDiscover(a.MAC()), is(E, V4, U, layers.LayerTypeDHCPv4)},
		{"dhcp request", frame.DHCPRequest(a.MAC(), v4.Src, v4.Dst), is(E, V4, U, layers.LayerTypeDHCPv4)},
		{"dhcp renew", v4.DHCPRenew(), is(E, V4, U, layers.LayerTypeDHCPv4)},
		{"dhcp offer", v4.DHCPOffer(b.MAC(), v4.Dst), is(E, V4, U, layers.LayerTypeDHCPv4)},
		{"dhcp ack, broadcast", bcast.DHCPAck(b.MAC(), v4.Dst), is(E, V4, U, layers.LayerTypeDHCPv4)},
		{"dhcpv6 solicit", frame.DHCPv6Solicit(a.MAC(), local.Src), is(E, V6, U, layers.LayerTypeDHCPv6)},
		{"dhcpv6 request", frame.DHCPv6Request(a.MAC(), local.Src, b.MAC(), v6.Src), is(E, V6, U, layers.LayerTypeDHCPv6)},
		{"dhcpv6 advertise", local.DHCPv6Advertise(v6.Dst), is(E, V6, U, layers.LayerTypeDHCPv6)},
		{"dhcpv6 reply", local.DHCPv6Reply(v6.Dst), is(E, V6, U, layers.LayerTypeDHCPv6)},
		{"multicast4", frame.Multicast(a.MAC(), v4.Src, netip.MustParseAddr("239.1.2.3")).UDP(1, 8, "x"), is(E, V4, U)},
		{"multicast6", frame.Multicast(a.MAC(), v6.Src, netip.MustParseAddr("ff05::7")).UDP(1, 8, "x"), is(E, V6, U)},
	}
}

func ra(a *lab.Port) frame.RA {
	return frame.RA{Lifetime: 1800, LinkLayer: a.MAC(), MTU: 1400,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("fd66::/64")}, DNS: []netip.Addr{netip.MustParseAddr("fd66::53")}}
}
