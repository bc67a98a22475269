package nft

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel tells an expression back in its own words: other order, other
// names for the same register, defaults spelled out, counters that have moved.
// The normal form is what remains when all that is taken away, so that two
// rules are the same exactly if their normal forms are.

// shape says how the attributes of one kind of expression are normalised. An
// attribute that it does not name is kept as it is.
type shape struct {
	registers []uint16 // 1-4 and 8-23 are two names for the same registers
	strings   []uint16 // with or without NUL
	data      []uint16 // nft_data: a value or a verdict
	exprs     []uint16 // an expression within
	ignored   []uint16
	defaults  map[uint16]uint64 // absent means this number
}

var shapes = map[string]shape{
	"meta": {registers: []uint16{unix.NFTA_META_DREG, unix.NFTA_META_SREG}},
	"ct":   {registers: []uint16{unix.NFTA_CT_DREG, unix.NFTA_CT_SREG}},
	"payload": {
		registers: []uint16{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_SREG},
		defaults: map[uint16]uint64{
			unix.NFTA_PAYLOAD_CSUM_TYPE: 0, unix.NFTA_PAYLOAD_CSUM_OFFSET: 0, unix.NFTA_PAYLOAD_CSUM_FLAGS: 0,
		},
	},
	"cmp": {registers: []uint16{unix.NFTA_CMP_SREG}, data: []uint16{unix.NFTA_CMP_DATA}},
	"range": {
		registers: []uint16{unix.NFTA_RANGE_SREG},
		data:      []uint16{unix.NFTA_RANGE_FROM_DATA, unix.NFTA_RANGE_TO_DATA},
	},
	"bitwise": {
		registers: []uint16{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG},
		data:      []uint16{unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR, attrBitwiseData},
		defaults:  map[uint16]uint64{attrBitwiseOp: 0},
	},
	"byteorder": {registers: []uint16{unix.NFTA_BYTEORDER_SREG, unix.NFTA_BYTEORDER_DREG}},
	"immediate": {registers: []uint16{unix.NFTA_IMMEDIATE_DREG}, data: []uint16{unix.NFTA_IMMEDIATE_DATA}},
	"lookup": {
		registers: []uint16{unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG},
		strings:   []uint16{unix.NFTA_LOOKUP_SET},
		ignored:   []uint16{unix.NFTA_LOOKUP_SET_ID},
		defaults:  map[uint16]uint64{unix.NFTA_LOOKUP_FLAGS: 0},
	},
	"dynset": {
		registers: []uint16{unix.NFTA_DYNSET_SREG_KEY, unix.NFTA_DYNSET_SREG_DATA},
		strings:   []uint16{unix.NFTA_DYNSET_SET_NAME},
		exprs:     []uint16{unix.NFTA_DYNSET_EXPR},
		ignored:   []uint16{unix.NFTA_DYNSET_SET_ID, unix.NFTA_DYNSET_PAD},
		defaults:  map[uint16]uint64{unix.NFTA_DYNSET_FLAGS: 0, unix.NFTA_DYNSET_TIMEOUT: 0},
	},
	"counter": {ignored: []uint16{unix.NFTA_COUNTER_BYTES, unix.NFTA_COUNTER_PACKETS, unix.NFTA_COUNTER_PAD}},
	"limit": {
		ignored:  []uint16{unix.NFTA_LIMIT_PAD},
		defaults: map[uint16]uint64{unix.NFTA_LIMIT_FLAGS: 0, unix.NFTA_LIMIT_TYPE: 0},
	},
	"exthdr": {
		registers: []uint16{unix.NFTA_EXTHDR_DREG, unix.NFTA_EXTHDR_SREG},
		defaults:  map[uint16]uint64{unix.NFTA_EXTHDR_FLAGS: 0, unix.NFTA_EXTHDR_OP: 0},
	},
	"reject": {defaults: map[uint16]uint64{unix.NFTA_REJECT_ICMP_CODE: 0}},
	"log": {
		strings: []uint16{unix.NFTA_LOG_PREFIX},
		defaults: map[uint16]uint64{
			unix.NFTA_LOG_SNAPLEN: 0, unix.NFTA_LOG_QTHRESHOLD: 0, unix.NFTA_LOG_FLAGS: 0,
			unix.NFTA_LOG_LEVEL: uint64(expr.LogLevelWarning),
		},
	},
	"fib": {registers: []uint16{unix.NFTA_FIB_DREG}, defaults: map[uint16]uint64{unix.NFTA_FIB_FLAGS: 0}},
	"rt":  {registers: []uint16{unix.NFTA_RT_DREG}},
}

// Attributes that golang.org/x/sys/unix v0.50.0 does not name.
const (
	attrBitwiseOp   = 6 // NFTA_BITWISE_OP
	attrBitwiseData = 7 // NFTA_BITWISE_DATA
)

// appendNormal appends the normal form of a rule's expressions, given as the
// content of NFTA_RULE_EXPRESSIONS.
func appendNormal(dst, exprs []byte) []byte {
	for elem := range attrs(exprs) {
		dst = appendNormalExpr(dst, elem.data)
	}
	return dst
}

func appendNormalExpr(dst, b []byte) []byte {
	name := bytes.TrimRight(find(b, unix.NFTA_EXPR_NAME), "\x00")
	dst = append(append(dst, name...), 0)
	s := shapes[string(name)]
	for a := range sorted(find(b, unix.NFTA_EXPR_DATA)) {
		if def, ok := s.defaults[a.typ]; slices.Contains(s.ignored, a.typ) || ok && number(a.data) == def {
			continue
		}
		at := len(dst)
		dst = append(dst, byte(a.typ>>8), byte(a.typ), 0, 0)
		switch {
		case slices.Contains(s.registers, a.typ) && len(a.data) == 4:
			dst = binary.BigEndian.AppendUint32(dst, register32(a.u32()))
		case slices.Contains(s.strings, a.typ):
			dst = append(dst, bytes.TrimRight(a.data, "\x00")...)
		case slices.Contains(s.data, a.typ):
			dst = appendNormalData(dst, a.data)
		case slices.Contains(s.exprs, a.typ):
			// Where the set itself gives its elements a counter, the kernel
			// demands the same here and does not tell it back.
			if parseCounter(a.data) != nil {
				dst = dst[:at]
				continue
			}
			dst = appendNormalExpr(dst, a.data)
		default:
			dst = append(dst, a.data...)
		}
		binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-4))
	}
	return append(dst, 0xff, 0xff)
}

// appendNormalData appends nft_data: a value as it is, a verdict's attributes.
func appendNormalData(dst, b []byte) []byte {
	for a := range sorted(b) {
		if a.typ != unix.NFTA_DATA_VERDICT {
			dst = appendSized(dst, a.typ, a.data)
			continue
		}
		for v := range sorted(a.data) {
			dst = appendSized(dst, v.typ, bytes.TrimRight(v.data, "\x00"))
		}
	}
	return dst
}

func appendSized(dst []byte, typ uint16, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, typ)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}

// sorted walks over attributes by type. There are few of them, and looking for
// the next each time takes no memory.
func sorted(b []byte) iter.Seq[attr] {
	return func(yield func(attr) bool) {
		for after := -1; ; {
			next := attr{}
			found := false
			for a := range attrs(b) {
				if int(a.typ) > after && (!found || a.typ < next.typ) {
					next, found = a, true
				}
			}
			if !found {
				return
			}
			for a := range attrs(b) {
				if a.typ == next.typ && !yield(a) {
					return
				}
			}
			after = int(next.typ)
		}
	}
}

// number is a big-endian number of any length up to 8 bytes.
func number(b []byte) uint64 {
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// register32 names a register by its first 32-bit part: the kernel prefers
// NFT_REG_1 to 4 (16 bytes each) in what it tells back wherever it can.
func register32(reg uint32) uint32 {
	if reg >= unix.NFT_REG_1 && reg <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + (reg-unix.NFT_REG_1)*4
	}
	return reg
}

// comparer compares rules in memory that it keeps. Families differ in nothing
// here, but encoding wants one.
type comparer struct {
	family Family
	enc    buffer
	a, b   []byte
}

// normal gives a rule's normal form, in dst unless the rule has it already.
func (c *comparer) normal(dst *[]byte, r Rule) ([]byte, error) {
	if r.read != nil {
		return r.read, nil
	}
	c.enc = c.enc[:0]
	if err := appendExprs(&c.enc, c.family, r.Exprs); err != nil {
		return nil, err
	}
	*dst = appendNormal((*dst)[:0], c.enc)
	return *dst, nil
}

// same tells whether two rules do the same and say the same.
func (c *comparer) same(a, b Rule) bool {
	if a.Comment != b.Comment {
		return false
	}
	na, errA := c.normal(&c.a, a)
	nb, errB := c.normal(&c.b, b)
	return errA == nil && errB == nil && bytes.Equal(na, nb)
}

func sameRule(family Family, a, b Rule) bool {
	return (&comparer{family: family}).same(a, b)
}

// sameRules tells whether two lists of rules are the same. A list shared by
// both, as in a state that kept its untouched chains, costs nothing.
func sameRules(family Family, a, b []Rule) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	return slices.EqualFunc(a, b, (&comparer{family: family}).same)
}

// Equal compares by what the rules do, as go-cmp likes to be told.
func (r Rule) Equal(o Rule) bool { return sameRule(Inet, r, o) }

// appendExprs appends a list of expressions, as in NFTA_RULE_EXPRESSIONS.
func appendExprs(b *buffer, family Family, exprs []expr.Any) error {
	for _, e := range exprs {
		at := b.nest(unix.NFTA_LIST_ELEM)
		if err := appendExpr(b, family, e); err != nil {
			return err
		}
		b.end(at)
	}
	return nil
}
