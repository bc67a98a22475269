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
	switch name {
	case "notrack":
		return new(expr.Notrack)
	case "counter":
		return &expr.Counter{Bytes: find64(data, unix.NFTA_COUNTER_BYTES), Packets: find64(data, unix.NFTA_COUNTER_PACKETS)}
	}
	if e := parseCommon(name, data); e != nil {
		return e
	}
	if e := newExpr(name); e != nil && expr.Unmarshal(byte(family), withoutPadding(name, data), e) == nil {
		return e
	}
	return &Unknown{Name: name, Attrs: data}
}

// parseCommon decodes what most rules are made of; expr's own decoding takes a
// dozen allocations for each.
func parseCommon(name string, data []byte) expr.Any {
	switch name {
	case "meta":
		e := &expr.Meta{Key: expr.MetaKey(find32(data, unix.NFTA_META_KEY))}
		e.Register, e.SourceRegister = findRegister(data, unix.NFTA_META_SREG, unix.NFTA_META_DREG)
		return e
	case "ct":
		e := &expr.Ct{Key: expr.CtKey(find32(data, unix.NFTA_CT_KEY)), Direction: uint32(number(find(data, unix.NFTA_CT_DIRECTION)))}
		e.Register, e.SourceRegister = findRegister(data, unix.NFTA_CT_SREG, unix.NFTA_CT_DREG)
		return e
	case "payload":
		if find(data, unix.NFTA_PAYLOAD_SREG) != nil {
			return nil
		}
		return &expr.Payload{
			DestRegister: find32(data, unix.NFTA_PAYLOAD_DREG), Base: expr.PayloadBase(find32(data, unix.NFTA_PAYLOAD_BASE)),
			Offset: find32(data, unix.NFTA_PAYLOAD_OFFSET), Len: find32(data, unix.NFTA_PAYLOAD_LEN),
		}
	case "cmp":
		return &expr.Cmp{
			Op: expr.CmpOp(find32(data, unix.NFTA_CMP_OP)), Register: find32(data, unix.NFTA_CMP_SREG),
			Data: findValue(data, unix.NFTA_CMP_DATA),
		}
	case "bitwise":
		if find32(data, attrBitwiseOp) != 0 {
			return nil
		}
		return &expr.Bitwise{
			SourceRegister: find32(data, unix.NFTA_BITWISE_SREG), DestRegister: find32(data, unix.NFTA_BITWISE_DREG),
			Len:  find32(data, unix.NFTA_BITWISE_LEN),
			Mask: findValue(data, unix.NFTA_BITWISE_MASK), Xor: findValue(data, unix.NFTA_BITWISE_XOR),
		}
	case "lookup":
		return &expr.Lookup{
			SourceRegister: find32(data, unix.NFTA_LOOKUP_SREG), DestRegister: find32(data, unix.NFTA_LOOKUP_DREG),
			IsDestRegSet: find(data, unix.NFTA_LOOKUP_DREG) != nil,
			SetName:      attr{data: find(data, unix.NFTA_LOOKUP_SET)}.str(),
			Invert:       find32(data, unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0,
		}
	case "immediate":
		v := find(data, unix.NFTA_IMMEDIATE_DATA)
		if code := find(v, unix.NFTA_DATA_VERDICT); code != nil {
			verdict := parseVerdict(code)
			return &expr.Verdict{Kind: verdict.Kind, Chain: verdict.Chain}
		}
		return &expr.Immediate{Register: find32(data, unix.NFTA_IMMEDIATE_DREG), Data: find(v, unix.NFTA_DATA_VALUE)}
	}
	return nil
}

func newExpr(name string) expr.Any {
	switch name {
	case "payload":
		return new(expr.Payload)
	case "range":
		return new(expr.Range)
	case "byteorder":
		return new(expr.Byteorder)
	case "dynset":
		return new(expr.Dynset)
	case "limit":
		return new(expr.Limit)
	case "exthdr":
		return new(expr.Exthdr)
	case "reject":
		return new(expr.Reject)
	case "log":
		return new(expr.Log)
	case "fib":
		return new(expr.Fib)
	case "objref":
		return new(expr.Objref)
	}
	return nil
}

func find32(b []byte, typ uint16) uint32 { return attr{data: find(b, typ)}.u32() }

func find64(b []byte, typ uint16) uint64 { return attr{data: find(b, typ)}.u64() }

// findValue finds nft_data that is a value.
func findValue(b []byte, typ uint16) []byte { return find(find(b, typ), unix.NFTA_DATA_VALUE) }

// findRegister finds a register that is either read or written.
func findRegister(b []byte, source, dest uint16) (reg uint32, isSource bool) {
	if find(b, source) != nil {
		return find32(b, source), true
	}
	return find32(b, dest), false
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
