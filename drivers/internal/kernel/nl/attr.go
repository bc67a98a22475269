package nl

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Value is the payload of an attribute. A payload that is shorter than what is
// asked of it reads as zero.
type Value []byte

// Attrs walks over attributes, by type without the flag bits. It stops at the
// first one that is damaged.
func Attrs(b []byte) iter.Seq2[uint16, Value] {
	return func(yield func(uint16, Value) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.NLA_HDRLEN || n > len(b) {
				return
			}
			t := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(t, Value(b[unix.NLA_HDRLEN:n:n])) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// Uint8 is the first byte.
func (v Value) Uint8() uint8 {
	if len(v) < 1 {
		return 0
	}
	return v[0]
}

// Uint16 is in the host's byte order, BigUint16 in the network's.
func (v Value) Uint16() uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(v)
}

// BigUint16 is in network byte order.
func (v Value) BigUint16() uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}

// Uint32 is in the host's byte order, BigUint32 in the network's.
func (v Value) Uint32() uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

// BigUint32 is in network byte order.
func (v Value) BigUint32() uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

// Uint64 is the i-th of an array, in the host's byte order.
func (v Value) Uint64(i int) uint64 {
	if len(v) < 8*(i+1) {
		return 0
	}
	return binary.NativeEndian.Uint64(v[8*i:])
}

// String is a text without its NUL.
func (v Value) String() string {
	text, _, _ := bytes.Cut(v, []byte{0})
	return string(text)
}

// Buffer is a message body under construction.
type Buffer []byte

// Bytes adds raw bytes: a fixed header.
func (b *Buffer) Bytes(v ...byte) { *b = append(*b, v...) }

// Attr adds an attribute.
func (b *Buffer) Attr(typ uint16, v ...byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(unix.NLA_HDRLEN+len(v)))
	*b = binary.NativeEndian.AppendUint16(*b, typ)
	*b = append(*b, v...)
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

// BigUint16 adds a number in network byte order.
func (b *Buffer) BigUint16(typ, v uint16) { b.Attr(typ, byte(v>>8), byte(v)) }

// BigUint32 adds a number in network byte order.
func (b *Buffer) BigUint32(typ uint16, v uint32) {
	b.Attr(typ, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// Uint32 adds a number in the host's byte order.
func (b *Buffer) Uint32(typ uint16, v uint32) {
	b.Attr(typ, binary.NativeEndian.AppendUint32(nil, v)...)
}

// Text adds a string and its NUL.
func (b *Buffer) Text(typ uint16, v string) { b.Attr(typ, append([]byte(v), 0)...) }

// Nest opens a nested attribute; what it returns closes it.
func (b *Buffer) Nest(typ uint16) (end func()) {
	at := len(*b)
	b.Attr(typ | unix.NLA_F_NESTED)
	return func() { binary.NativeEndian.PutUint16((*b)[at:], uint16(len(*b)-at)) }
}

// Bool adds one byte, 1 or 0.
func (b *Buffer) Bool(typ uint16, v bool) {
	if v {
		b.Attr(typ, 1)
	} else {
		b.Attr(typ, 0)
	}
}
