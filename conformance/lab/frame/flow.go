package frame

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// Flow is who speaks to whom; its methods build whole frames. The family is
// that of Src.
type Flow struct {
	SrcMAC, DstMAC core.MAC
	Src, Dst       netip.Addr
}

// Multicast is a flow to a group, or to broadcast, with the MAC address that
// goes with it.
func Multicast(mac core.MAC, src, group netip.Addr) Flow {
	return Flow{SrcMAC: mac, DstMAC: GroupMAC(group), Src: src, Dst: group}
}

// GroupMAC maps a multicast group (RFC 1112, RFC 2464) or 255.255.255.255 to
// its MAC address.
func GroupMAC(group netip.Addr) core.MAC {
	b := group.AsSlice()
	n := len(b)
	switch {
	case group.Is6():
		return core.MAC{0x33, 0x33, b[n-4], b[n-3], b[n-2], b[n-1]}
	case group.IsMulticast():
		return core.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	return core.BroadcastMAC
}

// Reverse is the flow of the answers.
func (f Flow) Reverse() Flow {
	return Flow{SrcMAC: f.DstMAC, DstMAC: f.SrcMAC, Src: f.Dst, Dst: f.Src}
}

// Packet puts Ethernet and IP headers in front of the layers.
func (f Flow) Packet(ls ...Layer) Frame {
	return Build(append([]Layer{f.Ethernet(), f.IP()}, ls...)...)
}

// Ethernet and IP are the headers of the flow, for Build.
func (f Flow) Ethernet() Ethernet { return Ethernet{Src: f.SrcMAC, Dst: f.DstMAC} }

// IP is an IPv4 or an IPv6.
func (f Flow) IP() Layer {
	if f.Src.Is4() {
		return IPv4{Src: f.Src, Dst: f.Dst}
	}
	return IPv6{Src: f.Src, Dst: f.Dst}
}

// UDP is one datagram.
func (f Flow) UDP(srcPort, dstPort uint16, payload string) Frame {
	return f.Packet(UDP{SrcPort: srcPort, DstPort: dstPort}, Payload(payload))
}

// TCP is one segment.
func (f Flow) TCP(h TCP, payload string) Frame { return f.Packet(h, Payload(payload)) }

// SYN opens a connection.
func (f Flow) SYN(srcPort, dstPort uint16) Frame {
	return f.Packet(TCP{SrcPort: srcPort, DstPort: dstPort, Seq: 1000, Flags: SYN})
}

// SCTP is an INIT.
func (f Flow) SCTP(srcPort, dstPort uint16) Frame {
	return f.Packet(SCTP{SrcPort: srcPort, DstPort: dstPort, Chunk: SCTPInit})
}

// Echo is an ICMP or ICMPv6 echo request.
func (f Flow) Echo(id, seq uint16, payload string) Frame {
	return f.Packet(f.icmp(ICMPEcho, ICMPv6Echo, uint32(id)<<16|uint32(seq)), Payload(payload))
}

// EchoReply answers a request with the same numbers.
func (f Flow) EchoReply(id, seq uint16, payload string) Frame {
	return f.Packet(f.icmp(ICMPEchoReply, ICMPv6EchoReply, uint32(id)<<16|uint32(seq)), Payload(payload))
}

func (f Flow) icmp(v4, v6 uint8, rest uint32) Layer {
	if f.Src.Is4() {
		return ICMP{Type: v4, Rest: rest}
	}
	return ICMPv6{Type: v6, Rest: rest}
}

// Error is an ICMP error (an ICMP or ICMPv6 layer) about the offending frame, of
// which it quotes the IP header and what RFC 792 and RFC 4443 ask for.
func (f Flow) Error(message Layer, offending Frame) Frame {
	inner := offending[offending.l3():]
	most := 1232 // fits the minimum IPv6 MTU
	if f.Src.Is4() {
		most = int(inner[0]&0xf)*4 + 8
	}
	return f.Packet(message, Payload(inner[:min(most, len(inner))]))
}

// IPProtocol is a packet of any other protocol (GRE 47, ESP 50, ...).
func (f Flow) IPProtocol(protocol uint8, payload string) Frame {
	if f.Src.Is4() {
		return Build(f.Ethernet(), IPv4{Src: f.Src, Dst: f.Dst, Protocol: protocol}, Payload(payload))
	}
	return Build(f.Ethernet(), IPv6{Src: f.Src, Dst: f.Dst, NextHeader: protocol}, Payload(payload))
}
