package policy

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// Path is who speaks to whom; its methods build frames. The family is that of
// Src.
type Path struct {
	SrcMAC, DstMAC core.MAC
	Src, Dst       netip.Addr
}

// Reverse is the path of the answers.
func (p Path) Reverse() Path { return Path{p.DstMAC, p.SrcMAC, p.Dst, p.Src} }

// Multicast is the path from an address to a group or to 255.255.255.255.
func Multicast(mac core.MAC, src, group netip.Addr) Path {
	return Path{mac, GroupMAC(group), src, group}
}

// GroupMAC is the Ethernet address that goes with a multicast group (RFC 1112,
// RFC 2464), and broadcast for every other address.
func GroupMAC(group netip.Addr) core.MAC {
	b := group.As16()
	switch {
	case !group.IsMulticast():
		return core.BroadcastMAC
	case group.Is6():
		return core.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	return core.MAC{0x01, 0x00, 0x5e, b[13] & 0x7f, b[14], b[15]}
}

// Packet is an IP packet with the hop limit that its message needs: 255 for ND
// (RFC 4861), 1 for MLD (RFC 3810), else 64.
func (p Path) Packet(t Transport) Frame {
	f := Frame{Src: p.SrcMAC, Dst: p.DstMAC, EtherType: TypeIPv6,
		IP: &IP{Src: p.Src, Dst: p.Dst, HopLimit: 64, Transport: t}}
	if p.Src.Is4() {
		f.EtherType = TypeIPv4
	}
	if m, ok := t.(ICMPv6); ok {
		switch {
		case m.Type >= ICMPv6RouterSolicitation && m.Type <= ICMPv6Redirect:
			f.IP.HopLimit = 255
		case m.Type >= ICMPv6MLDQuery && m.Type <= ICMPv6MLDDone, m.Type == ICMPv6MLDv2Report:
			f.IP.HopLimit = 1
		}
	}
	return f
}

// TCP is a segment with these flags.
func (p Path) TCP(srcPort, dstPort uint16, flags TCPFlags) Frame {
	return p.Packet(TCP{srcPort, dstPort, flags})
}

// SYN opens a connection.
func (p Path) SYN(srcPort, dstPort uint16) Frame { return p.TCP(srcPort, dstPort, SYN) }

// UDP is a datagram.
func (p Path) UDP(srcPort, dstPort uint16) Frame { return p.Packet(UDP{srcPort, dstPort}) }

// SCTP opens an association.
func (p Path) SCTP(srcPort, dstPort uint16) Frame { return p.Packet(SCTP{srcPort, dstPort}) }

// Raw is a packet of any other protocol.
func (p Path) Raw(protocol core.Protocol) Frame { return p.Packet(Raw(protocol)) }

// Echo is a ping of the path's family.
func (p Path) Echo(id uint16) Frame {
	if p.Src.Is4() {
		return p.Packet(ICMP{Type: ICMPEcho, ID: id})
	}
	return p.Packet(ICMPv6{Type: ICMPv6Echo, ID: id})
}

// EchoReply answers one.
func (p Path) EchoReply(id uint16) Frame {
	if p.Src.Is4() {
		return p.Packet(ICMP{Type: ICMPEchoReply, ID: id})
	}
	return p.Packet(ICMPv6{Type: ICMPv6EchoReply, ID: id})
}

// Error is an ICMP or ICMPv6 error, as the path's family wants it, about the
// packet in offending.
func (p Path) Error(typ, code uint8, offending Frame) Frame {
	if p.Src.Is4() {
		return p.Packet(ICMP{Type: typ, Code: code, Quote: offending.IP})
	}
	return p.Packet(ICMPv6{Type: typ, Code: code, Quote: offending.IP})
}

// Unreachable says that the offending packet's port is closed.
func (p Path) Unreachable(offending Frame) Frame {
	if p.Src.Is4() {
		return p.Error(ICMPUnreachable, 3, offending)
	}
	return p.Error(ICMPv6Unreachable, 4, offending)
}

// TooBig asks for smaller packets: "fragmentation needed" in IPv4.
func (p Path) TooBig(offending Frame) Frame {
	if p.Src.Is4() {
		return p.Error(ICMPUnreachable, 4, offending)
	}
	return p.Error(ICMPv6TooBig, 0, offending)
}

func arp(src, dst core.MAC, a ARP) Frame {
	return Frame{Src: src, Dst: dst, EtherType: TypeARP, ARP: &a}
}

// ARPRequest asks everybody who has target.
func ARPRequest(mac core.MAC, ip, target netip.Addr) Frame {
	return arp(mac, core.BroadcastMAC, ARP{Op: ARPRequestOp, SenderMAC: mac, SenderIP: ip, TargetIP: target})
}

// ARPProbe asks whether ip is free (RFC 5227).
func ARPProbe(mac core.MAC, ip netip.Addr) Frame {
	return ARPRequest(mac, netip.IPv4Unspecified(), ip)
}

// GratuitousARP announces ip.
func GratuitousARP(mac core.MAC, ip netip.Addr) Frame { return ARPRequest(mac, ip, ip) }

// ARPReply tells the path's other end where Src is.
func (p Path) ARPReply() Frame {
	return arp(p.SrcMAC, p.DstMAC, ARP{Op: ARPReplyOp, SenderMAC: p.SrcMAC, SenderIP: p.Src, TargetMAC: p.DstMAC, TargetIP: p.Dst})
}

// RARPAnnouncement is what QEMU broadcasts after a live migration.
func RARPAnnouncement(mac core.MAC) Frame {
	none := netip.IPv4Unspecified()
	f := arp(mac, core.BroadcastMAC, ARP{Op: RARPRequestOp, SenderMAC: mac, TargetMAC: mac, SenderIP: none, TargetIP: none})
	f.EtherType = TypeRARP
	return f
}

// Other is a frame of another EtherType, or LLC below 0x600.
func Other(src, dst core.MAC, t EtherType) Frame {
	return Frame{Src: src, Dst: dst, EtherType: t}
}

// Groups that ND, MLD and DHCPv6 speak to.
var (
	AllNodes         = netip.MustParseAddr("ff02::1")
	AllRouters       = netip.MustParseAddr("ff02::2")
	AllMLDv2Routers  = netip.MustParseAddr("ff02::16")
	AllDHCPv6Servers = netip.MustParseAddr("ff02::1:2")
	Broadcast        = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// DHCPDiscover is a client without an address.
func DHCPDiscover(mac core.MAC) Frame {
	return Multicast(mac, netip.IPv4Unspecified(), Broadcast).UDP(68, 67)
}

// DHCPv6Solicit is a client looking for a server.
func DHCPv6Solicit(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllDHCPv6Servers).UDP(546, 547)
}

// DAD asks from :: whether target is free (RFC 4862).
func DAD(mac core.MAC, target netip.Addr) Frame {
	return Solicitation(mac, netip.IPv6Unspecified(), target)
}

// Solicitation asks target's solicited-node group where target is.
func Solicitation(mac core.MAC, src, target netip.Addr) Frame {
	return Multicast(mac, src, core.SolicitedNode(target)).
		Packet(ICMPv6{Type: ICMPv6NeighbourSolicitation, Target: target})
}

// Advertisement says that target is at the path's source.
func (p Path) Advertisement(target netip.Addr) Frame {
	return p.Packet(ICMPv6{Type: ICMPv6NeighbourAdvertisement, Target: target})
}

// RouterSolicitation looks for routers.
func RouterSolicitation(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllRouters).Packet(ICMPv6{Type: ICMPv6RouterSolicitation})
}

// RouterAdvertisement says to all nodes that src is a router.
func RouterAdvertisement(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllNodes).Packet(ICMPv6{Type: ICMPv6RouterAdvertisement})
}

// Redirect tells the path's other end of a better way to target.
func (p Path) Redirect(target netip.Addr) Frame {
	return p.Packet(ICMPv6{Type: ICMPv6Redirect, Target: target})
}

// MLDReport joins groups (MLDv2).
func MLDReport(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllMLDv2Routers).Packet(ICMPv6{Type: ICMPv6MLDv2Report})
}
