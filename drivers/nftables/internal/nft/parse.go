package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// parseSet reads a set's definition from the attributes of NFT_MSG_NEWSET.
func parseSet(b []byte) *Set {
	s := new(Set)
	var flags, keyType, keyLen, dataType, dataLen uint32
	var fields []int
	var user []byte
	for a := range attrs(b) {
		switch a.typ {
		case unix.NFTA_SET_NAME:
			s.Name = a.str()
		case unix.NFTA_SET_FLAGS:
			flags = a.u32()
		case unix.NFTA_SET_KEY_TYPE:
			keyType = a.u32()
		case unix.NFTA_SET_KEY_LEN:
			keyLen = a.u32()
		case unix.NFTA_SET_DATA_TYPE:
			dataType = a.u32()
		case unix.NFTA_SET_DATA_LEN:
			dataLen = a.u32()
		case unix.NFTA_SET_DESC:
			for d := range attrs(a.data) {
				switch d.typ {
				case unix.NFTA_SET_DESC_SIZE:
					s.Size = d.u32()
				case attrSetDescConcat:
					for f := range attrs(d.data) {
						fields = append(fields, int(attr{data: find(f.data, attrSetFieldLen)}.u32()))
					}
				}
			}
		case unix.NFTA_SET_USERDATA:
			user = a.data
		case attrSetExpr:
			s.Counter = parseCounter(a.data) != nil
		case attrSetExpressions:
			for e := range attrs(a.data) {
				s.Counter = s.Counter || parseCounter(e.data) != nil
			}
		}
	}
	s.Flags = flags &^ (unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | unix.NFT_SET_EVAL | flagSetConcat | flagSetExpr)
	s.Interval = flags&unix.NFT_SET_INTERVAL != 0
	s.Dynamic = flags&unix.NFT_SET_EVAL != 0
	s.Comment = attr{data: userdata(user, udataSetComment)}.str()
	s.Key = keyTypes(keyType, int(keyLen), fields)
	if len(s.Key) == 1 {
		s.Key[0].Native = isNative(s.Key[0], userdata(user, udataSetKeyByteOrder))
	}
	if flags&unix.NFT_SET_MAP != 0 {
		s.Data = dataTypeByID(dataType, int(dataLen))
		s.Data.Native = isNative(s.Data, userdata(user, udataSetDataByteOrder))
	}
	return s
}

// isNative: integers have no byte order of their own, the set's maker notes it.
func isNative(t DataType, noted []byte) bool {
	if t.ID != TypeInteger32.ID || len(noted) != 4 {
		return t.Native
	}
	return binary.NativeEndian.Uint32(noted) == byteOrderHost
}

// keyTypes takes a key's type id apart. Sizes are the types' own where the
// kernel does not tell them; they must add up to the key's length, or the last
// field takes what is left.
func keyTypes(id uint32, keyLen int, fields []int) []DataType {
	var ids []uint32
	for ; id != 0; id >>= 6 {
		ids = append([]uint32{id & 0x3f}, ids...)
	}
	if len(ids) <= 1 {
		return []DataType{dataTypeByID(id0(ids), keyLen)}
	}
	types := make([]DataType, len(ids))
	left := keyLen
	for i, id := range ids {
		size := left - 4*(len(ids)-1-i)
		if known, ok := dataTypes[id]; ok && known.Size > 0 && i < len(ids)-1 {
			size = known.Size
		}
		if known, ok := dataTypes[id]; ok && i == len(ids)-1 && padded(known.Size) == left {
			size = known.Size
		}
		if i < len(fields) {
			size = fields[i]
		}
		types[i] = dataTypeByID(id, size)
		left -= padded(size)
	}
	return types
}

func id0(ids []uint32) uint32 {
	if len(ids) == 0 {
		return 0
	}
	return ids[0]
}

var dataTypes = func() map[uint32]DataType {
	m := map[uint32]DataType{}
	for _, t := range []DataType{
		TypeVerdict, TypeNFProto, TypeIPv4, TypeIPv6, TypeEtherAddr, TypeEtherType, TypeARPOp,
		TypeProto, TypePort, TypeICMPType, TypeMark, TypeIfIndex, TypeCTState, TypeICMPv6Type,
		TypePktType, TypeICMPCode, TypeICMPv6Code, TypeIfName, TypeInteger32,
	} {
		m[t.ID] = t
	}
	return m
}()

func dataTypeByID(id uint32, size int) DataType {
	t, ok := dataTypes[id]
	if !ok {
		return DataType{Name: "integer", ID: id, Size: size}
	}
	if t.ID != TypeVerdict.ID {
		t.Size = size
	}
	return t
}

// parseExprs decodes the content of NFTA_RULE_EXPRESSIONS, whose bytes it
// keeps. What expr has no type for, or cannot read, becomes Unknown.
func parseExprs(family Family, b []byte) []expr.Any {
	var list []expr.Any
	for elem := range attrs(b) {
		name := attr{data: find(elem.data, unix.NFTA_EXPR_NAME)}.str()
		list = append(list, parseExpr(family, name, find(elem.data, unix.NFTA_EXPR_DATA)))
	}
	return list
}

func parseExpr(family Family, name string, data []byte) expr.Any {
	var e expr.Any
	switch name {
	case "meta":
		e = new(expr.Meta)
	case "ct":
		e = new(expr.Ct)
	case "payload":
		e = new(expr.Payload)
	case "cmp":
		e = new(expr.Cmp)
	case "range":
		e = new(expr.Range)
	case "bitwise":
		e = new(expr.Bitwise)
	case "byteorder":
		e = new(expr.Byteorder)
	case "lookup":
		e = new(expr.Lookup)
	case "dynset":
		e = new(expr.Dynset)
	case "limit":
		e = new(expr.Limit)
	case "exthdr":
		e = new(expr.Exthdr)
	case "reject":
		e = new(expr.Reject)
	case "log":
		e = new(expr.Log)
	case "fib":
		e = new(expr.Fib)
	case "objref":
		e = new(expr.Objref)
	case "notrack":
		return new(expr.Notrack)
	case "counter":
		var c expr.Counter
		for a := range attrs(data) {
			switch a.typ {
			case unix.NFTA_COUNTER_BYTES:
				c.Bytes = a.u64()
			case unix.NFTA_COUNTER_PACKETS:
				c.Packets = a.u64()
			}
		}
		return &c
	case "immediate":
		v := find(data, unix.NFTA_IMMEDIATE_DATA)
		if code := find(v, unix.NFTA_DATA_VERDICT); code != nil {
			verdict := parseVerdict(code)
			return &expr.Verdict{Kind: verdict.Kind, Chain: verdict.Chain}
		}
		e = new(expr.Immediate)
	}
	if e == nil || expr.Unmarshal(byte(family), withoutPadding(name, data), e) != nil {
		return &Unknown{Name: name, Attrs: data}
	}
	return e
}

// withoutPadding drops what only aligns 64-bit numbers: expr refuses a limit
// that has it.
func withoutPadding(name string, data []byte) []byte {
	if name != "limit" {
		return data
	}
	var b buffer
	for a := range attrs(data) {
		if a.typ != unix.NFTA_LIMIT_PAD {
			raw(&b, a.typ, a.data)
		}
	}
	return b
}
