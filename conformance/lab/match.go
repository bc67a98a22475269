package lab

import (
	"bytes"
	"encoding/binary"

	"github.com/ringwall/ringwall/conformance/lab/frame"
)

// signature is what stays of a frame on its way: not the MAC header and VLAN
// tags (a tagged frame that comes out untagged has got through as well), not the
// TTL, not padding, not IP options and IPv6 extension headers.
func signature(f frame.Frame) string {
	t, body := f.EtherType(), f.Body()
	key := binary.BigEndian.AppendUint16(nil, t)
	switch {
	case t == frame.TypeIPv4 && len(body) >= 20:
		return string(append(key, signature4(body)...))
	case t == frame.TypeIPv6 && len(body) >= 40:
		return string(append(key, signature6(body)...))
	case (t == frame.TypeARP || t == frame.TypeRARP) && len(body) >= 28:
		return string(append(key, body[:28]...))
	}
	return string(append(key, bytes.TrimRight(body, "\x00")...))
}

// signature4 keeps identification and fragment fields, protocol, addresses and
// payload.
func signature4(p []byte) []byte {
	ihl := min(int(p[0]&0xf)*4, len(p))
	end := min(max(int(binary.BigEndian.Uint16(p[2:])), ihl), len(p))
	key := append([]byte{p[9]}, p[4:8]...)
	key = append(key, p[12:20]...)
	return append(key, p[ihl:end]...)
}

// signature6 keeps addresses, protocol and payload; of extension headers only
// the fragment header.
func signature6(p []byte) []byte {
	end := min(40+int(binary.BigEndian.Uint16(p[4:])), len(p))
	key := append([]byte(nil), p[8:40]...)
	next, rest := p[6], p[40:end]
	for (next == 0 || next == 43 || next == 60) && len(rest) >= 8 {
		n := 8 * (1 + int(rest[1]))
		if n > len(rest) {
			break
		}
		next, rest = rest[0], rest[n:]
	}
	return append(append(key, next), rest...)
}

// HasToken matches every captured frame that holds token, wherever it is: for
// packets that are reassembled, re-fragmented or translated on their way.
func HasToken(token string) func(Captured) bool {
	return func(c Captured) bool { return bytes.Contains(c.Frame, []byte(token)) }
}
