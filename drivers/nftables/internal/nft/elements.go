package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix v0.50.0 does not name.
const (
	attrSetExpr         = 0x11 // NFTA_SET_EXPR
	attrSetExpressions  = 0x12 // NFTA_SET_EXPRESSIONS
	attrSetDescConcat   = 2    // NFTA_SET_DESC_CONCAT
	attrSetFieldLen     = 1    // NFTA_SET_FIELD_LEN
	attrElemKeyEnd      = 10   // NFTA_SET_ELEM_KEY_END
	attrElemExpressions = 11   // NFTA_SET_ELEM_EXPRESSIONS
	flagSetConcat       = 0x80 // NFT_SET_CONCAT
	flagSetExpr         = 0x100
	flagElemCatchAll    = 2 // NFT_SET_ELEM_CATCHALL
)

// What nft keeps in user data, a list of type, length and value in a byte each.
const (
	udataRuleComment      = 0 // NFTNL_UDATA_RULE_COMMENT
	udataSetKeyByteOrder  = 0 // NFTNL_UDATA_SET_KEYBYTEORDER
	udataSetDataByteOrder = 1 // NFTNL_UDATA_SET_DATABYTEORDER
	udataSetComment       = 7 // NFTNL_UDATA_SET_COMMENT

	// nft's enum byteorder, in host order itself.
	byteOrderHost = 1
	byteOrderBig  = 2

	maxComment = 128 // NFTNL_UDATA_COMMENT_MAXLEN
)

func userdataString(typ byte, s string) []byte {
	b := append([]byte{typ, byte(len(s) + 1)}, s...)
	return append(b, 0)
}

func appendUserdataU32(b []byte, typ byte, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, typ, 4), v)
}

// userdata finds a value by type.
func userdata(b []byte, typ byte) []byte {
	for len(b) >= 2 {
		n := int(b[1])
		if len(b) < 2+n {
			return nil
		}
		if b[0] == typ {
			return b[2 : 2+n]
		}
		b = b[2+n:]
	}
	return nil
}

// appendSet appends the attributes of NFT_MSG_NEWSET.
func appendSet(b *buffer, id TableID, s *Set, setID uint32) {
	concatenated := s.Interval && len(s.Key) > 1
	var flags uint32
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if concatenated {
		flags |= flagSetConcat
	}
	if s.IsMap() {
		flags |= unix.NFT_SET_MAP
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	b.str(unix.NFTA_SET_TABLE, id.Name)
	b.str(unix.NFTA_SET_NAME, s.Name)
	b.u32(unix.NFTA_SET_FLAGS, flags)
	b.u32(unix.NFTA_SET_KEY_TYPE, s.keyType())
	b.u32(unix.NFTA_SET_KEY_LEN, uint32(s.keyLen()))
	if s.IsMap() {
		b.u32(unix.NFTA_SET_DATA_TYPE, s.Data.ID)
		if !s.IsVerdictMap() {
			b.u32(unix.NFTA_SET_DATA_LEN, uint32(s.Data.Size))
		}
	}
	if s.Size != 0 || concatenated {
		at := b.nest(unix.NFTA_SET_DESC)
		if s.Size != 0 {
			b.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
		}
		if concatenated {
			appendFields(b, s.Key)
		}
		b.end(at)
	}
	b.u32(unix.NFTA_SET_ID, setID)
	raw(b, unix.NFTA_SET_USERDATA, setUserdata(s))
	if s.Counter {
		at := b.nest(attrSetExpr)
		appendCounter(b)
		b.end(at)
	}
}

// appendFields describes a concatenation to the interval set (pipapo), which
// must know where fields end to compare them one by one.
func appendFields(b *buffer, fields []DataType) {
	at := b.nest(attrSetDescConcat)
	for _, t := range fields {
		in := b.nest(unix.NFTA_LIST_ELEM)
		b.u32(attrSetFieldLen, uint32(t.Size))
		b.end(in)
	}
	b.end(at)
}

// setUserdata tells nft the byte order of integers and names, without which it
// prints them the wrong way round. A concatenation's fields have one each, by
// type.
func setUserdata(s *Set) []byte {
	var u []byte
	if len(s.Key) == 1 {
		u = appendUserdataU32(u, udataSetKeyByteOrder, byteOrder(s.Key[0]))
	} else {
		u = appendUserdataU32(u, udataSetKeyByteOrder, 0)
	}
	if s.IsMap() {
		u = appendUserdataU32(u, udataSetDataByteOrder, byteOrder(s.Data))
	}
	if s.Comment != "" {
		u = append(u, userdataString(udataSetComment, s.Comment)...)
	}
	return u
}

// byteOrder is 0 for verdicts: nft 1.0.6 aborts on a verdict in host order.
func byteOrder(t DataType) uint32 {
	switch {
	case t.ID == TypeVerdict.ID:
		return 0
	case t.Native:
		return byteOrderHost
	}
	return byteOrderBig
}

func appendCounter(b *buffer) {
	b.str(unix.NFTA_EXPR_NAME, "counter")
	b.end(b.nest(unix.NFTA_EXPR_DATA))
}

// maxElementLen bounds what one element takes: two keys of 64 bytes, a chain's
// name of 255, and their headers, twice for an interval.
const maxElementLen = 1024

// appendElement appends an element, as one or two items of the element list.
// The kernel's two kinds of interval sets disagree: concatenated ones take key
// and inclusive end in one item, plain ones an item for the start and one for
// the first value after the end.
func appendElement(b *buffer, s *Set, e element, withValue bool) {
	at := b.nest(unix.NFTA_LIST_ELEM)
	catchAll := e.key == Key{}
	switch {
	case catchAll:
		b.u32(unix.NFTA_SET_ELEM_FLAGS, flagElemCatchAll)
	case s.Interval && len(s.Key) > 1:
		value(b, unix.NFTA_SET_ELEM_KEY, e.key.From)
		value(b, attrElemKeyEnd, e.key.To)
	default:
		value(b, unix.NFTA_SET_ELEM_KEY, e.key.From)
	}
	if withValue && s.IsMap() {
		if s.IsVerdictMap() {
			appendVerdict(b, unix.NFTA_SET_ELEM_DATA, e.value.Verdict)
		} else {
			value(b, unix.NFTA_SET_ELEM_DATA, e.value.Data)
		}
	}
	b.end(at)
	if !s.Interval || len(s.Key) > 1 || catchAll {
		return
	}
	if after, ok := successor(e.key.To); ok {
		at := b.nest(unix.NFTA_LIST_ELEM)
		value(b, unix.NFTA_SET_ELEM_KEY, after)
		b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		b.end(at)
	}
}

// successor is the next key, false after the last one: an interval up to the
// last key has no end.
func successor(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// predecessor is the key before; the first key has none.
func predecessor(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			return string(b), true
		}
	}
	return "", false
}

// rawElement is an item of an element list.
type rawElement struct {
	element
	intervalEnd bool
	catchAll    bool
	counter     *Counter
}

// Counter holds what a counter has counted.
type Counter struct {
	Packets, Bytes uint64
}

func parseElement(b []byte) (rawElement, error) {
	var e rawElement
	hasKey := false
	for a := range attrs(b) {
		switch a.typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.key.From = string(find(a.data, unix.NFTA_DATA_VALUE))
			hasKey = true
		case attrElemKeyEnd:
			e.key.To = string(find(a.data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_DATA:
			e.value = parseValue(a.data)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.intervalEnd = a.u32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_EXPR:
			e.counter = parseCounter(a.data)
		case attrElemExpressions:
			for in := range attrs(a.data) {
				if c := parseCounter(in.data); c != nil {
					e.counter = c
				}
			}
		}
	}
	e.catchAll = !hasKey
	return e, wellFormed(b)
}

func parseValue(b []byte) Value {
	for a := range attrs(b) {
		if a.typ == unix.NFTA_DATA_VALUE {
			return Value{Data: string(a.data)}
		}
		if a.typ == unix.NFTA_DATA_VERDICT {
			return Value{Verdict: parseVerdict(a.data)}
		}
	}
	return Value{}
}

func parseVerdict(b []byte) Verdict {
	var v Verdict
	for a := range attrs(b) {
		switch a.typ {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = expr.VerdictKind(int32(a.u32()))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = a.str()
		}
	}
	return v
}

func parseCounter(b []byte) *Counter {
	if (attr{data: find(b, unix.NFTA_EXPR_NAME)}).str() != "counter" {
		return nil
	}
	var c Counter
	for a := range attrs(find(b, unix.NFTA_EXPR_DATA)) {
		switch a.typ {
		case unix.NFTA_COUNTER_BYTES:
			c.Bytes = a.u64()
		case unix.NFTA_COUNTER_PACKETS:
			c.Packets = a.u64()
		}
	}
	return &c
}
