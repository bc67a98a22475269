package frame

import (
	"encoding/binary"
	"fmt"
)

// EtherType is that of what the frame carries, behind any VLAN tags.
func (f Frame) EtherType() uint16 {
	n := f.l3()
	if n < 14 || n > len(f) {
		return 0
	}
	return binary.BigEndian.Uint16(f[n-2:])
}

// l3 is the offset of what follows the EtherType, behind any VLAN tags.
func (f Frame) l3() int {
	n := 12
	for n+2 <= len(f) {
		t := binary.BigEndian.Uint16(f[n:])
		if t != TypeVLAN && t != TypeQinQ {
			break
		}
		n += 4
	}
	return n + 2
}

// Fragments splits an IP packet into pieces of at most size bytes of payload (a
// multiple of 8), in order. id marks them as one packet.
func (f Frame) Fragments(size int, id uint32) []Frame {
	total := len(f.fragmentable())
	var out []Frame
	for off := 0; off < total; off += size {
		n := min(size, total-off)
		out = append(out, f.Fragment(off, n, off+n < total, id))
	}
	return out
}

// Fragment is one piece: n bytes of the IP payload from offset on (a multiple of
// 8). Pieces may overlap, leave holes, or lie about more.
func (f Frame) Fragment(offset, n int, more bool, id uint32) Frame {
	if offset%8 != 0 {
		panic(fmt.Sprintf("frame: fragment offset %d is no multiple of 8", offset))
	}
	piece := f.fragmentable()[offset : offset+n]
	l3 := f.l3()
	head := f[:len(f)-len(f.fragmentable())]
	if f.EtherType() == TypeIPv4 {
		g := append(head.clone(), piece...)
		ip := g[l3:]
		flags := uint16(offset / 8)
		if more {
			flags |= 0x2000
		}
		ihl := int(ip[0]&0xf) * 4
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], uint16(id))
		binary.BigEndian.PutUint16(ip[6:], flags)
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ihl]))
		return g
	}
	// IPv6: the fragment header goes behind the headers every router reads, and
	// takes over the number of what it carries from the last of them.
	at, _ := f.unfragmentable6()
	g := head.clone()
	h := Fragment{NextHeader: g[at], Offset: offset, More: more, ID: id}
	g[at] = 44
	g = append(g, h.encode(piece, &encoding{})...)
	binary.BigEndian.PutUint16(g[l3+4:], uint16(len(g)-l3-40))
	return g
}

// fragmentable is the part of an IP packet that fragments carry.
func (f Frame) fragmentable() []byte {
	l3 := f.l3()
	switch f.EtherType() {
	case TypeIPv4:
		end := l3 + int(binary.BigEndian.Uint16(f[l3+2:]))
		return f[l3+int(f[l3]&0xf)*4 : min(end, len(f))]
	case TypeIPv6:
		_, start := f.unfragmentable6()
		end := l3 + 40 + int(binary.BigEndian.Uint16(f[l3+4:]))
		return f[start:min(end, len(f))]
	}
	panic(fmt.Sprintf("frame: EtherType %#04x cannot be fragmented", f.EtherType()))
}

// unfragmentable6 returns where the last "next header" byte of the per-fragment
// headers is (hop-by-hop and routing, RFC 8200 4.5), and where they end.
func (f Frame) unfragmentable6() (nextHeaderAt, end int) {
	l3 := f.l3()
	nextHeaderAt, end = l3+6, l3+40
	for f[nextHeaderAt] == 0 || f[nextHeaderAt] == 43 {
		nextHeaderAt, end = end, end+8*(1+int(f[end+1]))
	}
	return nextHeaderAt, end
}

// Body is what the frame carries, behind the EtherType and any VLAN tags.
func (f Frame) Body() []byte { return f[min(f.l3(), len(f)):] }
