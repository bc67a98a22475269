package nft

import (
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// A buffer grows by attributes in place: a batch is one of these, and nothing
// of it is built aside and copied in.
type buffer []byte

const (
	attrHeaderLen = 4
	attrMaxLen    = 0xffff // an attribute's length is 16 bits wide
	attrTypeMask  = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

func (b *buffer) pad() {
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

func (b *buffer) header(typ uint16, n int) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(attrHeaderLen+n))
	*b = binary.NativeEndian.AppendUint16(*b, typ)
}

// str appends a NUL-terminated string.
func (b *buffer) str(typ uint16, s string) {
	b.header(typ, len(s)+1)
	*b = append(*b, s...)
	*b = append(*b, 0)
	b.pad()
}

// u32 appends a number in network order, as nftables has all its numbers.
func (b *buffer) u32(typ uint16, v uint32) {
	b.header(typ, 4)
	*b = binary.BigEndian.AppendUint32(*b, v)
}

func (b *buffer) u64(typ uint16, v uint64) {
	b.header(typ, 8)
	*b = binary.BigEndian.AppendUint64(*b, v)
}

func (b *buffer) u8(typ uint16, v uint8) {
	b.header(typ, 1)
	*b = append(*b, v)
	b.pad()
}

// raw appends bytes as they are.
func raw[T []byte | string](b *buffer, typ uint16, v T) {
	b.header(typ, len(v))
	*b = append(*b, v...)
	b.pad()
}

// value appends data in its NFTA_DATA_VALUE wrapping.
func value[T []byte | string](b *buffer, typ uint16, v T) {
	at := b.nest(typ)
	raw(b, unix.NFTA_DATA_VALUE, v)
	b.end(at)
}

// nest opens a nested attribute; end closes it.
func (b *buffer) nest(typ uint16) int {
	at := len(*b)
	b.header(typ|unix.NLA_F_NESTED, 0)
	return at
}

// end sets the length of the attribute opened at. It reports false when the
// attribute is longer than its length field can say: the kernel would read a
// part of it and call that success.
func (b *buffer) end(at int) bool {
	n := len(*b) - at
	binary.NativeEndian.PutUint16((*b)[at:], uint16(n))
	return n <= attrMaxLen
}

// attr is an attribute as received.
type attr struct {
	typ  uint16 // without flags
	data []byte
}

func (a attr) u32() uint32 {
	if len(a.data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

func (a attr) u64() uint64 {
	if len(a.data) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a.data)
}

// str is the string without its NUL.
func (a attr) str() string {
	b := a.data
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// attrs walks over the attributes in b. Their data lie in b. A cut attribute
// ends the walk; wellFormed tells whether there was one.
func attrs(b []byte) iter.Seq[attr] {
	return func(yield func(attr) bool) {
		for len(b) >= attrHeaderLen {
			n := int(binary.NativeEndian.Uint16(b))
			if n < attrHeaderLen || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if !yield(attr{typ, b[attrHeaderLen:n]}) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// find returns the data of the first attribute of a type, or nil.
func find(b []byte, typ uint16) []byte {
	for a := range attrs(b) {
		if a.typ == typ {
			return a.data
		}
	}
	return nil
}

// wellFormed tells whether b is a whole sequence of attributes.
func wellFormed(b []byte) error {
	rest := b
	for len(rest) > 0 {
		if len(rest) < attrHeaderLen {
			return fmt.Errorf("nftables message: %d stray bytes", len(rest))
		}
		n := int(binary.NativeEndian.Uint16(rest))
		if n < attrHeaderLen || n > len(rest) {
			return fmt.Errorf("nftables message: attribute of %d bytes in %d", n, len(rest))
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return nil
}
