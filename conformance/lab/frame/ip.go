package frame

import (
	"encoding/binary"
	"net/netip"
)

// ipEnds are the addresses that a transport checksum covers.
type ipEnds struct{ src, dst netip.Addr }

// ipBefore finds the innermost IP header of the layers, with the final
// destination of a routing header, as RFC 8200 8.1 sums it.
func ipBefore(ls []Layer) ipEnds {
	var e ipEnds
	for _, l := range ls {
		switch l := l.(type) {
		case IPv4:
			e = ipEnds{l.Src, l.Dst}
		case IPv6:
			e = ipEnds{l.Src, l.Dst}
		case Routing:
			if n := len(l.Addresses); n > 0 && l.SegmentsLeft > 0 {
				e.dst = l.Addresses[n-1]
			}
		}
	}
	return e
}

// IPv4 header. Zero Protocol is that of the next layer; name it when the layer
// is a Payload. FragmentOffset counts bytes and must be a multiple of 8.
type IPv4 struct {
	Src, Dst       netip.Addr
	Protocol       uint8
	TTL            uint8 // 0: 64
	TOS            uint8
	ID             uint16
	DontFragment   bool
	MoreFragments  bool
	FragmentOffset int
	Options        []byte // padded to a multiple of 4 with end-of-options
}

func (h IPv4) encode(payload []byte, c *encoding) []byte {
	if h.Protocol == 0 {
		h.Protocol = c.nextProtocol()
	}
	if h.TTL == 0 {
		h.TTL = orDefault(c.hops, 64)
	}
	options := pad(h.Options, 4)
	flags := uint16(h.FragmentOffset / 8)
	if h.DontFragment {
		flags |= 0x4000
	}
	if h.MoreFragments {
		flags |= 0x2000
	}
	n := 20 + len(options)
	b := make([]byte, 20, n+len(payload))
	b[0], b[1] = 0x40|byte(n/4), h.TOS
	binary.BigEndian.PutUint16(b[2:], uint16(n+len(payload)))
	binary.BigEndian.PutUint16(b[4:], h.ID)
	binary.BigEndian.PutUint16(b[6:], flags)
	b[8], b[9] = h.TTL, h.Protocol
	src, dst := h.Src.As4(), h.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], checksum(0, b))
	return append(b, payload...)
}
func (h IPv4) id() identity { return identity{etherType: TypeIPv4, protocol: 4} }

// IPv6 header. Zero NextHeader is that of the next layer.
type IPv6 struct {
	Src, Dst     netip.Addr
	NextHeader   uint8
	HopLimit     uint8 // 0: 64, or what the message behind demands (255 for ND)
	TrafficClass uint8
	FlowLabel    uint32
}

func (h IPv6) encode(payload []byte, c *encoding) []byte {
	if h.NextHeader == 0 {
		h.NextHeader = c.nextProtocol()
	}
	if h.HopLimit == 0 {
		h.HopLimit = orDefault(c.hops, 64)
	}
	b := make([]byte, 0, 40+len(payload))
	b = binary.BigEndian.AppendUint32(b, 6<<28|uint32(h.TrafficClass)<<20|h.FlowLabel&0xfffff)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, h.NextHeader, h.HopLimit)
	src, dst := h.Src.As16(), h.Dst.As16()
	return append(append(append(b, src[:]...), dst[:]...), payload...)
}
func (h IPv6) id() identity { return identity{etherType: TypeIPv6, protocol: 41} }

// HopByHop, DestinationOptions and Routing are IPv6 extension headers. Options
// are padded to what the header needs.
type (
	HopByHop           struct{ Options []byte }
	DestinationOptions struct{ Options []byte }
	Routing            struct {
		Type         uint8
		SegmentsLeft uint8
		Addresses    []netip.Addr
	}
)

func (h HopByHop) encode(p []byte, c *encoding) []byte { return optionsHeader(h.Options, p, c) }
func (h HopByHop) id() identity                        { return identity{protocol: 0, isIP: true} }

func (h DestinationOptions) encode(p []byte, c *encoding) []byte {
	return optionsHeader(h.Options, p, c)
}
func (h DestinationOptions) id() identity { return identity{protocol: 60} }

func optionsHeader(options, payload []byte, c *encoding) []byte {
	n := (2 + len(options) + 7) / 8 * 8
	b := append([]byte{c.nextProtocol(), byte(n/8 - 1)}, options...)
	switch gap := n - len(b); gap {
	case 0:
	case 1:
		b = append(b, 0) // Pad1
	default:
		b = append(append(b, 1, byte(gap-2)), make([]byte, gap-2)...) // PadN
	}
	return append(b, payload...)
}

func (h Routing) encode(payload []byte, c *encoding) []byte {
	b := []byte{c.nextProtocol(), byte(2 * len(h.Addresses)), h.Type, h.SegmentsLeft, 0, 0, 0, 0}
	for _, a := range h.Addresses {
		x := a.As16()
		b = append(b, x[:]...)
	}
	return append(b, payload...)
}
func (h Routing) id() identity { return identity{protocol: 43} }

// Fragment is the IPv6 fragment header. Offset counts bytes, a multiple of 8.
// Name NextHeader when a Payload follows.
type Fragment struct {
	NextHeader uint8
	Offset     int
	More       bool
	ID         uint32
}

func (h Fragment) encode(payload []byte, c *encoding) []byte {
	if h.NextHeader == 0 {
		h.NextHeader = c.nextProtocol()
	}
	off := uint16(h.Offset) &^ 7
	if h.More {
		off |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{h.NextHeader, 0}, off)
	return append(binary.BigEndian.AppendUint32(b, h.ID), payload...)
}
func (h Fragment) id() identity { return identity{protocol: 44} }

// checksum is the Internet checksum (RFC 1071) over start and b.
func checksum(start uint32, b []byte) uint16 {
	sum := start
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// pseudoSum starts a transport checksum; without IP in front it is zero.
func (e ipEnds) pseudoSum(protocol uint8, n int) uint32 {
	if !e.src.IsValid() || !e.dst.IsValid() {
		return 0
	}
	sum := uint32(protocol) + uint32(n)
	for _, a := range []netip.Addr{e.src, e.dst} {
		s := a.AsSlice()
		for i := 0; i < len(s); i += 2 {
			sum += uint32(s[i])<<8 | uint32(s[i+1])
		}
	}
	return sum
}

func pad(b []byte, to int) []byte {
	for len(b)%to != 0 {
		b = append(b[:len(b):len(b)], 0)
	}
	return b
}

func orDefault(v, d uint8) uint8 {
	if v == 0 {
		return d
	}
	return v
}
