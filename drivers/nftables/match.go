package nftables

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// This file is the vocabulary of the rules: operands that load a field, and
// matches made of them. A rule reads like its text in nft.

// operand is a field that a match can load into a register.
type operand struct {
	size int
	load func(reg uint32) expr.Any
}

func meta(key expr.MetaKey, size int) operand {
	return operand{size, func(reg uint32) expr.Any { return &expr.Meta{Key: key, Register: reg} }}
}

func payload(base expr.PayloadBase, offset, size uint32) operand {
	return operand{int(size), func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}
	}}
}

func ctTuple(key expr.CtKey, size int) operand {
	return operand{size, func(reg uint32) expr.Any {
		return &expr.Ct{Key: key, Register: reg, Direction: 0} // 0 = original
	}}
}

var (
	inName   = meta(expr.MetaKeyIIFNAME, 16)
	outName  = meta(expr.MetaKeyOIFNAME, 16)
	protocol = meta(expr.MetaKeyPROTOCOL, 2)
	l4proto  = meta(expr.MetaKeyL4PROTO, 1)
	// 0 = as the first packet went, 1 = the other way
	ctDirection = operand{1, func(reg uint32) expr.Any { return &expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg} }}
	ctState     = operand{4, func(reg uint32) expr.Any { return &expr.Ct{Key: expr.CtKeySTATE, Register: reg} }}

	etherDst = payload(expr.PayloadBaseLLHeader, 0, 6)
	// The kernel masks and compares four bytes by itself, others in a loop of
	// another function.
	etherDst4 = payload(expr.PayloadBaseLLHeader, 0, 4)
	etherSrc  = payload(expr.PayloadBaseLLHeader, 6, 6)
	// etherType is the type as it lies in the frame. `meta protocol` will not
	// do for a first test: it reads through a VLAN tag.
	etherType = payload(expr.PayloadBaseLLHeader, 12, 2)

	ip4Src = payload(expr.PayloadBaseNetworkHeader, 12, 4)
	ip4Dst = payload(expr.PayloadBaseNetworkHeader, 16, 4)
	ip6Src = payload(expr.PayloadBaseNetworkHeader, 8, 16)
	ip6Dst = payload(expr.PayloadBaseNetworkHeader, 24, 16)
	ip6Hop = payload(expr.PayloadBaseNetworkHeader, 7, 1)

	arpFixed = payload(expr.PayloadBaseNetworkHeader, 0, 6) // hardware and protocol type, lengths
	arpOp    = payload(expr.PayloadBaseNetworkHeader, 6, 2)
	arpSHA   = payload(expr.PayloadBaseNetworkHeader, 8, 6)
	arpSPA   = payload(expr.PayloadBaseNetworkHeader, 14, 4)
	arpTHA   = payload(expr.PayloadBaseNetworkHeader, 18, 6)
	arpTPA   = payload(expr.PayloadBaseNetworkHeader, 24, 4)

	srcPort    = payload(expr.PayloadBaseTransportHeader, 0, 2)
	dstPort    = payload(expr.PayloadBaseTransportHeader, 2, 2)
	icmpType   = payload(expr.PayloadBaseTransportHeader, 0, 1)
	icmpTyCode = payload(expr.PayloadBaseTransportHeader, 0, 2) // type<<8|code, as core.Span
	ndTarget   = payload(expr.PayloadBaseTransportHeader, 8, 16)
)

// isLaterFragment6 matches IPv6 fragments behind the first. Ports cannot tell: on
// such a fragment kernel 6.18 loads the IP header's bytes for the transport's.
func isLaterFragment6() []expr.Any {
	const fragmentHeader, offset = 44, 2 // RFC 8200 4.5
	field := operand{2, func(reg uint32) expr.Any {
		return &expr.Exthdr{DestRegister: reg, Type: fragmentHeader, Offset: offset, Len: 2, Op: expr.ExthdrOpIpv6}
	}}
	return masked(field, []byte{0xff, 0xf8}, expr.CmpOpNeq, []byte{0, 0})
}

// Ethertypes, in network order as the frame has them.
const (
	typeIPv4  = 0x0800
	typeARP   = 0x0806
	typeRARP  = 0x8035
	typeVLAN  = 0x8100
	typeIPv6  = 0x86dd
	typeQinQ  = 0x88a8
	firstReg  = 8 // NFT_REG32_00: concatenations fill 32-bit registers from here
	regVerdic = 0 // NFT_REG_VERDICT
)

func native32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
func be16(v uint16) []byte     { return binary.BigEndian.AppendUint16(nil, v) }

// equal matches a field with a value.
func equal(o operand, value []byte) []expr.Any { return compare(o, expr.CmpOpEq, value) }

func notEqual(o operand, value []byte) []expr.Any { return compare(o, expr.CmpOpNeq, value) }

func compare(o operand, op expr.CmpOp, value []byte) []expr.Any {
	return []expr.Any{o.load(1), &expr.Cmp{Op: op, Register: 1, Data: value}}
}

// masked matches the bits of a field that are set in mask.
func masked(o operand, mask []byte, op expr.CmpOp, value []byte) []expr.Any {
	return []expr.Any{
		o.load(1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		&expr.Cmp{Op: op, Register: 1, Data: value},
	}
}

// between matches a range of a field in network order.
func between(o operand, first, last []byte) []expr.Any {
	return []expr.Any{
		o.load(1),
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: first},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: last},
	}
}

// span matches a selector range of 16 bits.
func span(o operand, s core.Span) []expr.Any {
	if s.First == s.Last {
		return equal(o, be16(s.First))
	}
	return between(o, be16(s.First), be16(s.Last))
}

// name matches an interface name with a pattern. A prefix is compared by its
// bytes alone: no set, no hash.
func name(o operand, p core.Pattern) []expr.Any {
	prefix, wild := strings.CutSuffix(string(p), "*")
	if wild {
		if prefix == "" {
			return nil
		}
		return equal(o, []byte(prefix))
	}
	var b [16]byte
	copy(b[:], p)
	return equal(o, b[:])
}

// in matches when the concatenation of fields is in the set.
func in(set string, fields ...operand) []expr.Any { return lookup(set, false, fields) }

// notIn matches when it is not.
func notIn(set string, fields ...operand) []expr.Any { return lookup(set, true, fields) }

func lookup(set string, invert bool, fields []operand) []expr.Any {
	exprs, reg := concat(fields)
	return append(exprs, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: invert})
}

// dispatch takes the verdict that the map holds for the concatenation.
func dispatch(verdicts string, fields ...operand) []expr.Any {
	exprs, reg := concat(fields)
	return append(exprs, &expr.Lookup{SourceRegister: reg, DestRegister: regVerdic, IsDestRegSet: true, SetName: verdicts})
}

func concat(fields []operand) ([]expr.Any, uint32) {
	if len(fields) == 1 {
		return []expr.Any{fields[0].load(1)}, 1
	}
	exprs := make([]expr.Any, 0, len(fields)+2)
	reg := uint32(firstReg)
	for _, f := range fields {
		exprs = append(exprs, f.load(reg))
		reg += uint32(f.size+3) / 4
	}
	return exprs, firstReg
}

func isEtherType(t uint16) []expr.Any       { return equal(etherType, be16(t)) }
func isProtocol(t uint16) []expr.Any        { return equal(protocol, be16(t)) }
func isL4(p core.Protocol) []expr.Any       { return equal(l4proto, []byte{byte(p)}) }
func isAddr(o operand, a string) []expr.Any { return equal(o, netip.MustParseAddr(a).AsSlice()) }

// isPrefix matches an address field with a prefix.
func isPrefix(o operand, s string) []expr.Any {
	p := netip.MustParsePrefix(s)
	mask := make([]byte, o.size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return masked(o, mask, expr.CmpOpEq, p.Addr().AsSlice())
}

// toGroupMAC matches multicast and broadcast frames.
func toGroupMAC() []expr.Any { return groupBit(expr.CmpOpNeq) }

func toUnicastMAC() []expr.Any { return groupBit(expr.CmpOpEq) }

func groupBit(op expr.CmpOp) []expr.Any {
	return masked(etherDst4, []byte{1, 0, 0, 0}, op, make([]byte, 4))
}

func verdict(kind expr.VerdictKind, chain ...string) *expr.Verdict {
	v := &expr.Verdict{Kind: kind}
	if len(chain) > 0 {
		v.Chain = chain[0]
	}
	return v
}

func accept() []expr.Any           { return []expr.Any{verdict(expr.VerdictAccept)} }
func drop() []expr.Any             { return []expr.Any{verdict(expr.VerdictDrop)} }
func jump(chain string) []expr.Any { return []expr.Any{verdict(expr.VerdictJump, chain)} }
func goTo(chain string) []expr.Any { return []expr.Any{verdict(expr.VerdictGoto, chain)} }

// rule joins matches and a verdict.
func rule(parts ...[]expr.Any) nft.Rule {
	var r nft.Rule
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	return r
}
