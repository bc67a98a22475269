package frame

import (
	"encoding/binary"
	"hash/crc32"
)

// UDP header; its checksum covers the payload that follows.
type UDP struct {
	SrcPort, DstPort uint16
	NoChecksum       bool // zero on the wire: legal in IPv4
}

func (h UDP) encode(payload []byte, c *encoding) []byte {
	n := 8 + len(payload)
	b := make([]byte, 8, n)
	binary.BigEndian.PutUint16(b[0:], h.SrcPort)
	binary.BigEndian.PutUint16(b[2:], h.DstPort)
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	b = append(b, payload...)
	if !h.NoChecksum {
		sum := checksum(c.ip.pseudoSum(17, n), b)
		if sum == 0 {
			sum = 0xffff // zero means "none" (RFC 768)
		}
		binary.BigEndian.PutUint16(b[6:], sum)
	}
	return b
}
func (h UDP) id() identity { return identity{protocol: 17} }

// TCPFlags of a segment.
type TCPFlags uint8

const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// TCP header.
type TCP struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            TCPFlags
	Window           uint16 // 0: 64240
	Options          []byte // padded to a multiple of 4
}

func (h TCP) encode(payload []byte, c *encoding) []byte {
	if h.Window == 0 {
		h.Window = 64240
	}
	options := pad(h.Options, 4)
	b := make([]byte, 20, 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(b[0:], h.SrcPort)
	binary.BigEndian.PutUint16(b[2:], h.DstPort)
	binary.BigEndian.PutUint32(b[4:], h.Seq)
	binary.BigEndian.PutUint32(b[8:], h.Ack)
	b[12], b[13] = byte((20+len(options))/4)<<4, byte(h.Flags)
	binary.BigEndian.PutUint16(b[14:], h.Window)
	b = append(append(b, options...), payload...)
	binary.BigEndian.PutUint16(b[16:], checksum(c.ip.pseudoSum(6, len(b)), b))
	return b
}
func (h TCP) id() identity { return identity{protocol: 6} }

// SCTPChunk types.
const (
	SCTPData  uint8 = 0
	SCTPInit  uint8 = 1
	SCTPAbort uint8 = 6
)

// SCTP is a packet with one chunk (RFC 9260). For Init without a Value a valid
// one is made up; conntrack refuses others as invalid.
type SCTP struct {
	SrcPort, DstPort uint16
	Tag              uint32 // 0 with Init
	Chunk            uint8
	Value            []byte // of the chunk, header excluded
}

func (h SCTP) encode(payload []byte, _ *encoding) []byte {
	value := h.Value
	switch {
	case value == nil && h.Chunk == SCTPInit: // tag, window, streams out, in, first TSN
		value = []byte{0, 0, 0, 1, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1}
	case value == nil && h.Chunk == SCTPData: // TSN, stream, sequence, protocol
		value = append([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, payload...)
	default:
		value = append(value[:len(value):len(value)], payload...)
	}
	flags := byte(0)
	if h.Chunk == SCTPData {
		flags = 3 // begin and end of the message
	}
	b := make([]byte, 12, 16+len(value))
	binary.BigEndian.PutUint16(b[0:], h.SrcPort)
	binary.BigEndian.PutUint16(b[2:], h.DstPort)
	binary.BigEndian.PutUint32(b[4:], h.Tag)
	b = append(b, h.Chunk, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(value)))
	b = pad(append(b, value...), 4)
	// CRC32c goes out least significant byte first (RFC 9260 appendix A).
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
func (h SCTP) id() identity { return identity{protocol: 132} }

// ICMP types in use here.
const (
	ICMPEchoReply    uint8 = 0
	ICMPUnreachable  uint8 = 3
	ICMPRedirect     uint8 = 5
	ICMPEcho         uint8 = 8
	ICMPTimeExceeded uint8 = 11

	CodePortUnreachable uint8 = 3 // with ICMPUnreachable
	CodeFragNeeded      uint8 = 4 // with ICMPUnreachable; Rest is the MTU

	ICMPv6Unreachable  uint8 = 1 // code 4: port
	ICMPv6TooBig       uint8 = 2 // Rest is the MTU
	ICMPv6TimeExceeded uint8 = 3
	ICMPv6Echo         uint8 = 128
	ICMPv6EchoReply    uint8 = 129
)

// ICMP is an IPv4 message; Rest is the second word of its header: identifier
// and sequence, MTU, or gateway.
type ICMP struct {
	Type, Code uint8
	Rest       uint32
}

func (h ICMP) encode(payload []byte, _ *encoding) []byte {
	return icmp(h.Type, h.Code, h.Rest, payload, 0)
}
func (h ICMP) id() identity { return identity{protocol: 1} }

// ICMPv6 is an IPv6 message; Rest as in ICMP.
type ICMPv6 struct {
	Type, Code uint8
	Rest       uint32
}

func (h ICMPv6) encode(payload []byte, c *encoding) []byte {
	return icmp(h.Type, h.Code, h.Rest, payload, c.ip.pseudoSum(58, 8+len(payload)))
}
func (h ICMPv6) id() identity { return identity{protocol: 58} }

func icmp(typ, code uint8, rest uint32, payload []byte, start uint32) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, rest), payload...)
	binary.BigEndian.PutUint16(b[2:], checksum(start, b))
	return b
}
