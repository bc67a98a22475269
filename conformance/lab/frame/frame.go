// Package frame builds Ethernet frames, right or wrong on purpose, for sending
// through the packet lab.
//
// Build takes layers in the order of the wire and fills in what links them:
// EtherTypes, protocol numbers, lengths, checksums. A field that is not zero is
// taken as it is. Flow builds the usual ones in one call; methods of Frame tag,
// fragment and alter.
package frame

import (
	"encoding/binary"
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/ringwall/ringwall/core"
)

// EtherTypes.
const (
	TypeIPv4  uint16 = 0x0800
	TypeARP   uint16 = 0x0806
	TypeRARP  uint16 = 0x8035
	TypeVLAN  uint16 = 0x8100
	TypeIPv6  uint16 = 0x86dd
	TypePPPoE uint16 = 0x8864 // session stage
	TypeQinQ  uint16 = 0x88a8 // 802.1ad
	TypeLLDP  uint16 = 0x88cc
)

// Frame is an Ethernet frame from the destination address on, without the frame
// check sequence and without padding.
type Frame []byte

// Layer is a header (or a payload) that Build puts in front of what follows.
type Layer interface {
	// encode returns the header followed by payload.
	encode(payload []byte, c *encoding) []byte
	// id is what the layer in front calls this one.
	id() identity
}

// identity holds the names of a layer in the number spaces it is known in.
type identity struct {
	etherType uint16
	protocol  uint8 // IP protocol; 0 = none
	isIP      bool  // a protocol number is meant even if it is 0 (hop-by-hop)
	hopLimit  uint8 // what RFCs demand of the IP header; 0 = any
}

// encoding is what a layer may know of its surroundings.
type encoding struct {
	next Layer // nil behind the last
	ip   ipEnds
	hops uint8 // demanded by a layer further back
}

// Build renders the layers, first to last. It panics on layers that cannot
// follow each other only if their fields are out of range: a test frame is a
// constant, and a wrong one a mistake in the test.
func Build(ls ...Layer) Frame {
	var out []byte
	for i := len(ls) - 1; i >= 0; i-- {
		c := &encoding{ip: ipBefore(ls[:i])}
		if i+1 < len(ls) {
			c.next = ls[i+1]
		}
		for _, l := range ls[i+1:] {
			c.hops = max(c.hops, l.id().hopLimit)
		}
		out = ls[i].encode(out, c)
	}
	return out
}

// nextEtherType is the EtherType of the layer that follows, or fallback.
func (c *encoding) nextEtherType(fallback uint16) uint16 {
	if c.next != nil && c.next.id().etherType != 0 {
		return c.next.id().etherType
	}
	return fallback
}

// nextProtocol is the IP protocol of the layer that follows; 59 is "no next
// header".
func (c *encoding) nextProtocol() uint8 {
	if c.next == nil {
		return 59
	}
	if id := c.next.id(); id.protocol != 0 || id.isIP {
		return id.protocol
	}
	return 253 // RFC 3692: for experiments
}

// Payload is bytes without a header.
type Payload []byte

func (p Payload) encode(payload []byte, _ *encoding) []byte {
	return append(append([]byte(nil), p...), payload...)
}
func (p Payload) id() identity { return identity{} }

// Ethernet is the MAC header. Type 0 is that of the next layer, or the length
// when LLC follows.
type Ethernet struct {
	Src, Dst core.MAC
	Type     uint16
}

func (e Ethernet) encode(payload []byte, c *encoding) []byte {
	t := e.Type
	if _, llc := c.next.(LLC); llc && t == 0 {
		t = uint16(len(payload))
	}
	if t == 0 {
		t = c.nextEtherType(0x88b5) // IEEE: for local experiments
	}
	b := append(append(make([]byte, 0, 14+len(payload)), e.Dst[:]...), e.Src[:]...)
	return append(binary.BigEndian.AppendUint16(b, t), payload...)
}
func (e Ethernet) id() identity { return identity{} }

// VLAN is an 802.1Q or, with TPID TypeQinQ, an 802.1ad tag.
type VLAN struct {
	TPID         uint16 // 0: TypeVLAN
	ID           uint16 // 0 to 4095; 0 is a priority tag
	Priority     uint8  // 0 to 7
	DropEligible bool
	Type         uint16 // 0: of the next layer
}

func (v VLAN) encode(payload []byte, c *encoding) []byte {
	t := v.Type
	if t == 0 {
		t = c.nextEtherType(0x88b5)
	}
	return append(binary.BigEndian.AppendUint16(v.tci(), t), payload...)
}
func (v VLAN) id() identity {
	if v.TPID == 0 {
		v.TPID = TypeVLAN
	}
	return identity{etherType: v.TPID}
}

func (v VLAN) tci() []byte {
	t := v.ID&0xfff | uint16(v.Priority)<<13
	if v.DropEligible {
		t |= 1 << 12
	}
	return binary.BigEndian.AppendUint16(nil, t)
}

// LLC is an 802.2 header; Ethernet in front of it carries a length.
type LLC struct{ DSAP, SSAP, Control uint8 }

func (l LLC) encode(payload []byte, _ *encoding) []byte {
	return append([]byte{l.DSAP, l.SSAP, l.Control}, payload...)
}
func (l LLC) id() identity { return identity{} }

// PPPoE is a session frame that carries IPv4 or IPv6 (RFC 2516).
type PPPoE struct{ Session uint16 }

func (p PPPoE) encode(payload []byte, c *encoding) []byte {
	ppp := uint16(0x0021) // IPv4
	if c.nextEtherType(TypeIPv4) == TypeIPv6 {
		ppp = 0x0057
	}
	b := binary.BigEndian.AppendUint16([]byte{0x11, 0}, p.Session)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)+2))
	return append(binary.BigEndian.AppendUint16(b, ppp), payload...)
}
func (p PPPoE) id() identity { return identity{etherType: TypePPPoE} }

// Dst and Src are the addresses of the MAC header.
func (f Frame) Dst() core.MAC { return core.MAC(f[0:6]) }
func (f Frame) Src() core.MAC { return core.MAC(f[6:12]) }

// To and From return a copy with another address in the MAC header alone.
func (f Frame) To(m core.MAC) Frame {
	g := f.clone()
	copy(g[0:6], m[:])
	return g
}

func (f Frame) From(m core.MAC) Frame {
	g := f.clone()
	copy(g[6:12], m[:])
	return g
}

// Tagged returns a copy with VLAN tags put in front of the EtherType, the
// outermost first. Type of a VLAN is ignored.
func (f Frame) Tagged(tags ...VLAN) Frame {
	g := f[:12].clone()
	for _, v := range tags {
		g = append(binary.BigEndian.AppendUint16(g, v.id().etherType), v.tci()...)
	}
	return append(g, f[12:]...)
}

// Padded returns a copy of at least n bytes, filled up with zeroes.
func (f Frame) Padded(n int) Frame {
	g := f.clone()
	for len(g) < n {
		g = append(g, 0)
	}
	return g
}

// With returns a copy with bytes overwritten from offset on. Checksums stay.
func (f Frame) With(offset int, b ...byte) Frame {
	g := f.clone()
	copy(g[offset:offset+len(b)], b)
	return g
}

func (f Frame) clone() Frame { return append(Frame(nil), f...) }

// String says in one line what the frame is.
func (f Frame) String() string {
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
	s := ""
	for _, l := range p.Layers() {
		if l.LayerType() == gopacket.LayerTypePayload {
			continue
		}
		if s != "" {
			s += "/"
		}
		s += l.LayerType().String()
	}
	if len(f) < 14 {
		return fmt.Sprintf("%d bytes, too short for a frame", len(f))
	}
	s = fmt.Sprintf("%s > %s %s", f.Src(), f.Dst(), s)
	if n := p.NetworkLayer(); n != nil {
		s += " " + n.NetworkFlow().String()
	}
	if t := p.TransportLayer(); t != nil {
		s += " " + t.TransportFlow().String()
	}
	return fmt.Sprintf("%s (%d bytes)", s, len(f))
}

// serialize renders a gopacket layer whose input is constant.
func serialize(l gopacket.SerializableLayer, payload []byte) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, l, gopacket.Payload(payload)); err != nil {
		panic(fmt.Sprintf("frame: %T: %v", l, err))
	}
	return append([]byte(nil), b.Bytes()...)
}
