package policy

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// EtherType of what a frame carries. Below 0x600 it is a length, and LLC
// follows.
type EtherType uint16

const (
	TypeIPv4 EtherType = 0x0800
	TypeARP  EtherType = 0x0806
	TypeRARP EtherType = 0x8035
	TypeVLAN EtherType = 0x8100 // 802.1Q
	TypeIPv6 EtherType = 0x86dd
	TypeQinQ EtherType = 0x88a8 // 802.1ad
	TypeLLDP EtherType = 0x88cc
)

// Frame is an Ethernet frame as far as a verdict depends on it. With the
// EtherType of IP or ARP and neither IP nor ARP set it is malformed.
type Frame struct {
	Src, Dst  core.MAC
	Tags      []Tag     // outermost first
	EtherType EtherType // behind the tags
	ARP       *ARP      // TypeARP, TypeRARP
	IP        *IP       // TypeIPv4, TypeIPv6
}

// Tag is a VLAN tag.
type Tag struct {
	TPID EtherType // TypeVLAN or TypeQinQ
	VID  uint16    // 0 is a priority tag
}

// ARPOp is an operation of ARP and RARP.
type ARPOp uint16

const (
	ARPRequestOp  ARPOp = 1
	ARPReplyOp    ARPOp = 2
	RARPRequestOp ARPOp = 3
	RARPReplyOp   ARPOp = 4
)

// ARP is an ARP or RARP message for Ethernet and IPv4.
type ARP struct {
	Op                   ARPOp
	SenderMAC, TargetMAC core.MAC
	SenderIP, TargetIP   netip.Addr
}

// IP is an IPv4 or IPv6 packet; the family is that of Src and Dst.
type IP struct {
	Src, Dst netip.Addr
	HopLimit uint8 // TTL in IPv4
	Fragment Fragment
	// Transport is what the packet carries, behind any extension headers. Of
	// a fragment that is not the first only its protocol can be seen.
	Transport Transport
}

// Fragment is the part of a datagram that a packet carries; the zero value is
// all of it.
type Fragment struct {
	ID     uint32
	Offset uint16 // bytes
	Length uint16 // bytes of the datagram's payload in this packet
	More   bool   // fragments follow
}

// Whole says that the packet is no fragment.
func (f Fragment) Whole() bool { return f.Offset == 0 && !f.More }

// Transport is a TCP, UDP, SCTP, ICMP, ICMPv6 or Raw.
type Transport interface {
	Protocol() core.Protocol
	// Selector is what rules match beside the protocol: the destination port,
	// or type<<8|code.
	Selector() uint16
	String() string
}

// TCPFlags are the control bits of a segment.
type TCPFlags uint8

const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Has says whether all bits of g are set.
func (f TCPFlags) Has(g TCPFlags) bool { return f&g == g }

// TCP is a segment. Sequence numbers have no say here.
type TCP struct {
	SrcPort, DstPort uint16
	Flags            TCPFlags
}

// UDP is a datagram.
type UDP struct{ SrcPort, DstPort uint16 }

// SCTP is a packet.
type SCTP struct{ SrcPort, DstPort uint16 }

// ICMP is an IPv4 message.
type ICMP struct {
	Type, Code uint8
	ID         uint16 // of echo and the other queries
	Quote      *IP    // the packet that an error is about
}

// ICMPv6 is an IPv6 message, of ND and MLD too.
type ICMPv6 struct {
	Type, Code uint8
	ID         uint16
	Target     netip.Addr // of neighbour solicitation, advertisement and redirect
	Quote      *IP
}

// Raw is any other protocol.
type Raw core.Protocol

// ICMP types.
const (
	ICMPEchoReply      = 0
	ICMPUnreachable    = 3
	ICMPSourceQuench   = 4
	ICMPRedirect       = 5
	ICMPEcho           = 8
	ICMPTimeExceeded   = 11
	ICMPParameter      = 12
	ICMPTimestamp      = 13
	ICMPTimestampReply = 14
	ICMPInfo           = 15
	ICMPInfoReply      = 16
	ICMPMask           = 17
	ICMPMaskReply      = 18
)

// ICMPv6 types.
const (
	ICMPv6Unreachable            = 1
	ICMPv6TooBig                 = 2
	ICMPv6TimeExceeded           = 3
	ICMPv6Parameter              = 4
	ICMPv6Echo                   = 128
	ICMPv6EchoReply              = 129
	ICMPv6MLDQuery               = 130
	ICMPv6MLDReport              = 131
	ICMPv6MLDDone                = 132
	ICMPv6RouterSolicitation     = 133
	ICMPv6RouterAdvertisement    = 134
	ICMPv6NeighbourSolicitation  = 135
	ICMPv6NeighbourAdvertisement = 136
	ICMPv6Redirect               = 137
	ICMPv6NodeQuery              = 139
	ICMPv6NodeReply              = 140
	ICMPv6MLDv2Report            = 143
)

func (TCP) Protocol() core.Protocol    { return core.ProtocolTCP }
func (UDP) Protocol() core.Protocol    { return core.ProtocolUDP }
func (SCTP) Protocol() core.Protocol   { return core.ProtocolSCTP }
func (ICMP) Protocol() core.Protocol   { return core.ProtocolICMP }
func (ICMPv6) Protocol() core.Protocol { return core.ProtocolICMPv6 }
func (r Raw) Protocol() core.Protocol  { return core.Protocol(r) }

func (t TCP) Selector() uint16    { return t.DstPort }
func (t UDP) Selector() uint16    { return t.DstPort }
func (t SCTP) Selector() uint16   { return t.DstPort }
func (t ICMP) Selector() uint16   { return uint16(t.Type)<<8 | uint16(t.Code) }
func (t ICMPv6) Selector() uint16 { return uint16(t.Type)<<8 | uint16(t.Code) }
func (Raw) Selector() uint16      { return 0 }

// Family is that of the packet's EtherType; 0 when the frame carries no IP, or
// something malformed in its place.
func (f Frame) Family() core.Family {
	switch {
	case f.IP == nil:
	case f.EtherType == TypeIPv4 && f.IP.Src.Is4() && f.IP.Dst.Is4():
		return core.IPv4
	case f.EtherType == TypeIPv6 && f.IP.Src.Is6() && f.IP.Dst.Is6():
		return core.IPv6
	}
	return 0
}

// To and From return a copy with another address in the Ethernet header alone.
func (f Frame) To(m core.MAC) Frame   { f.Dst = m; return f }
func (f Frame) From(m core.MAC) Frame { f.Src = m; return f }

// Tagged returns a copy with 802.1Q tags, the outermost first.
func (f Frame) Tagged(vids ...uint16) Frame {
	f.Tags = slices.Clone(f.Tags)
	for i, v := range vids {
		f.Tags = slices.Insert(f.Tags, i, Tag{TypeVLAN, v})
	}
	return f
}

// Untagged returns a copy without any tags.
func (f Frame) Untagged() Frame { f.Tags = nil; return f }

// PriorityTagged says that the frame has no tags but priority tags (VID 0),
// which name no VLAN: who receives it takes them off (IEEE 802.1Q).
func (f Frame) PriorityTagged() bool {
	return !slices.ContainsFunc(f.Tags, func(t Tag) bool { return t.VID != 0 })
}

// WithHopLimit returns a copy of an IP packet with another hop limit.
func (f Frame) WithHopLimit(n uint8) Frame {
	ip := *f.IP
	ip.HopLimit = n
	f.IP = &ip
	return f
}

// Fragments splits an IP packet of total payload bytes (its transport header
// included) after every size of them, a multiple of 8. The fragments carry id.
func (f Frame) Fragments(id uint32, size, total uint16) []Frame {
	var out []Frame
	for off := uint16(0); off < total; off += size {
		ip := *f.IP
		ip.Fragment = Fragment{ID: id, Offset: off, Length: min(size, total-off), More: off+size < total}
		if off > 0 {
			ip.Transport = Raw(f.IP.Transport.Protocol())
		}
		g := f
		g.IP = &ip
		out = append(out, g)
	}
	return out
}
