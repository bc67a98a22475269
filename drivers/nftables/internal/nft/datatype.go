package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// DataType is a type of nft's, for the key or the data of a set. The kernel
// knows only lengths; the id and the byte order are for whoever lists the set.
type DataType struct {
	Name string
	ID   uint32
	Size int // bytes, without padding
	// Native types are in host byte order.
	Native bool
}

// Data types, numbered as in nft's datatype.h: the ids are its file format.
var (
	TypeVerdict    = DataType{"verdict", 0xffffff00, 0, true}
	TypeNFProto    = DataType{"nf_proto", 2, 1, true}
	TypeIPv4       = DataType{"ipv4_addr", 7, 4, false}
	TypeIPv6       = DataType{"ipv6_addr", 8, 16, false}
	TypeEtherAddr  = DataType{"ether_addr", 9, 6, false}
	TypeEtherType  = DataType{"ether_type", 10, 2, false}
	TypeARPOp      = DataType{"arp_op", 11, 2, false}
	TypeProto      = DataType{"inet_proto", 12, 1, false}
	TypePort       = DataType{"inet_service", 13, 2, false}
	TypeICMPType   = DataType{"icmp_type", 14, 1, false}
	TypeMark       = DataType{"mark", 19, 4, true}
	TypeIfIndex    = DataType{"iface_index", 20, 4, true}
	TypeCTState    = DataType{"ct_state", 26, 4, true}
	TypeICMPv6Type = DataType{"icmpv6_type", 29, 1, false}
	TypePktType    = DataType{"pkt_type", 31, 1, true}
	TypeICMPCode   = DataType{"icmp_code", 32, 1, false}
	TypeICMPv6Code = DataType{"icmpv6_code", 33, 1, false}
	TypeIfName     = DataType{"ifname", 41, ifNameSize, true}

	// Integers have any size in nft; the set's key or data length tells.
	TypeInteger8  = DataType{"integer", 4, 1, false}
	TypeInteger16 = DataType{"integer", 4, 2, false}
	TypeInteger32 = DataType{"integer", 4, 4, false}
	// TypeCTLabel is a conntrack label: nft 1.0.6 cannot list a map that says ct_label.
	TypeCTLabel = DataType{"integer", 4, 16, true}
	// TypeZone is a conntrack zone, an integer that `ct zone set` wants in host order.
	TypeZone = DataType{"integer", 4, 2, true}
)

const ifNameSize = 16 // IFNAMSIZ

// Types lists the fields of a key.
func Types(fields ...DataType) []DataType { return fields }

// padded is the room a field takes in a concatenation: whole 32-bit registers.
func padded(size int) int { return (size + 3) &^ 3 }

// Field is one field of a key: a value, or an inclusive range of values.
type Field struct {
	lo, hi string
}

func exact(b []byte) Field {
	s := string(b)
	return Field{s, s}
}

// IfName is an interface name.
func IfName(name string) Field {
	var b [ifNameSize]byte
	copy(b[:], name)
	return exact(b[:])
}

// IfNamePrefix is every interface name that starts so ("vnet" for vnet*).
func IfNamePrefix(prefix string) Field {
	var lo, hi [ifNameSize]byte
	for i := range hi {
		hi[i] = 0xff
	}
	copy(lo[:], prefix)
	copy(hi[:], prefix)
	return Field{string(lo[:]), string(hi[:])}
}

// MAC is a hardware address.
func MAC(a net.HardwareAddr) Field { return exact(a) }

// Addr is an IP address in its own family's length.
func Addr(a netip.Addr) Field { return exact(a.AsSlice()) }

// AddrRange is an inclusive range of addresses of one family.
func AddrRange(lo, hi netip.Addr) Field {
	return Field{string(lo.AsSlice()), string(hi.AsSlice())}
}

// Prefix is every address of a prefix.
func Prefix(p netip.Prefix) Field {
	lo := p.Masked().Addr().AsSlice()
	hi := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(hi)*8; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	return Field{string(lo), string(hi)}
}

// U8 is a byte: a protocol, an ICMP type or code.
func U8(v uint8) Field { return exact([]byte{v}) }

// U8Range is an inclusive range of bytes.
func U8Range(lo, hi uint8) Field { return Field{string([]byte{lo}), string([]byte{hi})} }

// U16 is a 16-bit value in network order: a port, an ethertype.
func U16(v uint16) Field { return exact(binary.BigEndian.AppendUint16(nil, v)) }

// U16Range is an inclusive range of 16-bit values in network order.
func U16Range(lo, hi uint16) Field { return Field{U16(lo).lo, U16(hi).lo} }

// U32 is a 32-bit value in network order.
func U32(v uint32) Field { return exact(binary.BigEndian.AppendUint32(nil, v)) }

// Mark is a packet or conntrack mark, or any 32-bit value in host order.
func Mark(v uint32) Field { return exact(binary.NativeEndian.AppendUint32(nil, v)) }

// Zone is a conntrack zone, or any 16-bit value in host order.
func Zone(v uint16) Field { return exact(binary.NativeEndian.AppendUint16(nil, v)) }

// Raw is any value as it lies in the register.
func Raw(b []byte) Field { return exact(b) }
