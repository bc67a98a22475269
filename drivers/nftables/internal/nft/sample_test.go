package nft

import (
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 4 bytes, as a concatenation fills them one after the other.
const (
	reg1 = unix.NFT_REG_1
	r0   = unix.NFT_REG32_00
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
	ipA  = netip.MustParseAddr("10.0.0.1")
	ipB  = netip.MustParseAddr("10.0.0.2")
	ip6A = netip.MustParseAddr("fd00::1")
)

func meta(key expr.MetaKey, reg uint32) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func eq(reg uint32, f Field) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(f.lo)}
}

func load(base expr.PayloadBase, offset, n, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: n}
}

func verdict(kind expr.VerdictKind, chain string) expr.Any {
	return &expr.Verdict{Kind: kind, Chain: chain}
}

func rule(exprs ...expr.Any) Rule { return Rule{Exprs: exprs} }

// wildcard compares the first bytes of an interface name: "vnet*".
func wildcard(key expr.MetaKey, op expr.CmpOp, prefix string) []expr.Any {
	return []expr.Any{meta(key, reg1), &expr.Cmp{Op: op, Register: reg1, Data: []byte(prefix)}}
}

// masked loads a mark under a mask.
func masked(load expr.Any, reg, mask, xor uint32) []expr.Any {
	return []expr.Any{load, &expr.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: 4,
		Mask: []byte(Mark(mask).lo), Xor: []byte(Mark(xor).lo),
	}}
}

// bridgeSample has every kind of set and rule that a security-group driver
// needs in the bridge family.
func bridgeSample() *Table {
	t := NewTable(Bridge, "ringwall")

	src4 := t.AddSet(&Set{Name: "src4", Key: Types(TypeIfName, TypeEtherAddr, TypeIPv4), Comment: "sources"})
	src4.Add(Value{}, IfName("vnet0"), MAC(macA), Addr(ipA))
	src4.Add(Value{}, IfName("vnet1"), MAC(macB), Addr(ipB))
	src6 := t.AddSet(&Set{Name: "src6", Key: Types(TypeIfName, TypeEtherAddr, TypeIPv6)})
	src6.Add(Value{}, IfName("vnet0"), MAC(macA), Addr(ip6A))
	group := t.AddSet(&Set{Name: "members", Key: Types(TypeIPv4)})
	group.Add(Value{}, Addr(ipA))
	macs := t.AddSet(&Set{Name: "macs", Key: Types(TypeEtherAddr)})
	macs.Add(Value{}, MAC(macA))
	ports := t.AddSet(&Set{Name: "ports", Key: Types(TypePort), Interval: true})
	ports.Add(Value{}, U16Range(0, 99))
	ports.Add(Value{}, U16Range(100, 199))
	ports.Add(Value{}, U16(443))
	ports.Add(Value{}, U16Range(60000, 65535))
	names := t.AddSet(&Set{Name: "names", Key: Types(TypeIfName), Interval: true})
	names.Add(Value{}, IfNamePrefix("vnet"))
	names.Add(Value{}, IfName("tap3"))
	cidrs := t.AddSet(&Set{Name: "cidrs", Key: Types(TypeIPv4, TypeProto, TypePort), Interval: true})
	cidrs.Add(Value{}, Prefix(netip.MustParsePrefix("10.0.0.0/8")), U8(6), U16Range(8000, 8099))
	cidrs.Add(Value{}, Prefix(netip.MustParsePrefix("0.0.0.0/0")), U8(6), U16(22))
	cidrs6 := t.AddSet(&Set{Name: "cidrs6", Key: Types(TypeIPv6, TypeProto, TypePort), Interval: true, Data: TypeVerdict})
	cidrs6.Add(VerdictValue(expr.VerdictAccept), Prefix(netip.MustParsePrefix("fd00::/16")), U8(17), U16Range(0, 65535))
	zones := t.AddSet(&Set{Name: "zones", Key: Types(TypeIfName), Data: TypeMark})
	zones.Add(Data(Mark(7)), IfName("br0"))
	ranges := t.AddSet(&Set{Name: "ranges", Key: Types(TypeIPv4), Interval: true, Data: TypeMark})
	ranges.Add(Data(Mark(7)), AddrRange(ipA, ipB))
	out := t.AddSet(&Set{Name: "out", Key: Types(TypeIfName), Data: TypeVerdict})
	out.Add(Goto("out-vnet0"), IfName("vnet0"))
	out.Add(Jump("in-vnet0"), IfName("vnet1"))
	out.Add(VerdictValue(expr.VerdictReturn), IfName("vnet2"))
	out.Add(VerdictValue(expr.VerdictDrop), IfName("vnet3"))
	t.AddSet(&Set{Name: "seen", Key: Types(TypeIfName), Dynamic: true, Counter: true, Size: 65535})

	t.AddChain(&Chain{Name: "out-vnet0", Rules: []Rule{
		// lookup in a concatenation, with verdict and counter
		rule(meta(expr.MetaKeyIIFNAME, r0), load(expr.PayloadBaseLLHeader, 6, 6, r0+4), load(expr.PayloadBaseNetworkHeader, 12, 4, r0+6),
			&expr.Lookup{SourceRegister: r0, SetName: "src4"}, &expr.Counter{}, verdict(expr.VerdictAccept, "")),
		rule(load(expr.PayloadBaseNetworkHeader, 16, 4, r0), meta(expr.MetaKeyL4PROTO, r0+1), load(expr.PayloadBaseTransportHeader, 2, 2, r0+2),
			&expr.Lookup{SourceRegister: r0, SetName: "cidrs"}, verdict(expr.VerdictAccept, "")),
		rule(load(expr.PayloadBaseNetworkHeader, 24, 16, r0), meta(expr.MetaKeyL4PROTO, r0+4), load(expr.PayloadBaseTransportHeader, 2, 2, r0+5),
			&expr.Lookup{SourceRegister: r0, SetName: "cidrs6", IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}),
		rule(load(expr.PayloadBaseNetworkHeader, 12, 4, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "members", Invert: true}, verdict(expr.VerdictDrop, "")),
		rule(load(expr.PayloadBaseTransportHeader, 2, 2, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "ports"}, verdict(expr.VerdictReturn, "")),
		{Exprs: []expr.Any{verdict(expr.VerdictDrop, "")}, Comment: "end of vnet0"},
	}})
	t.AddChain(&Chain{Name: "in-vnet0"})

	early := t.AddChain(&Chain{Name: "early", Base: &Base{Type: TypeFilter, Hook: Prerouting, Priority: -300, Policy: Accept}})
	set := func(exprs []expr.Any, more ...expr.Any) Rule { return rule(append(exprs, more...)...) }
	early.Rules = []Rule{
		set(masked(meta(expr.MetaKeyMARK, reg1), reg1, 0xfffff0ff, 0x800), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1}),
		set(wildcard(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "vnet"), verdict(expr.VerdictAccept, "")),
		rule(meta(expr.MetaKeyOIFNAME, reg1), eq(reg1, IfName("vnet0")), verdict(expr.VerdictDrop, "")),
		rule(meta(expr.MetaKeyPROTOCOL, reg1), eq(reg1, U16(unix.ETH_P_ARP)), verdict(expr.VerdictAccept, "")),
		rule(load(expr.PayloadBaseLLHeader, 12, 2, reg1), eq(reg1, U16(unix.ETH_P_8021Q)), verdict(expr.VerdictDrop, "")),
		rule(meta(expr.MetaKeyPKTTYPE, reg1), eq(reg1, U8(unix.PACKET_BROADCAST)), verdict(expr.VerdictAccept, "")),
		rule(meta(expr.MetaKeyL4PROTO, reg1), eq(reg1, U8(unix.IPPROTO_UDP)), load(expr.PayloadBaseTransportHeader, 0, 4, reg1),
			eq(reg1, Raw([]byte{0, 68, 0, 67})), verdict(expr.VerdictAccept, "")),
		rule(load(expr.PayloadBaseLLHeader, 0, 1, reg1), &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{1}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{0}}, &expr.Counter{}, verdict(expr.VerdictAccept, "")),
		rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Dynset{SrcRegKey: reg1, SetName: "seen", Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{&expr.Counter{}}}),
		rule(&expr.Limit{Type: expr.LimitTypePkts, Rate: 10, Unit: expr.LimitTimeSecond, Burst: 5}, &expr.Counter{}),
		rule(&expr.Exthdr{DestRegister: reg1, Type: 44, Offset: 0, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6}, eq(reg1, U8(1)), verdict(expr.VerdictDrop, "")),
		rule(load(expr.PayloadBaseNetworkHeader, 6, 2, reg1), &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{0, 0}}, verdict(expr.VerdictDrop, "")),
		rule(load(expr.PayloadBaseTransportHeader, 2, 2, reg1), &expr.Range{Op: expr.CmpOpEq, Register: reg1, FromData: []byte{0, 80}, ToData: []byte{0, 90}}, verdict(expr.VerdictAccept, "")),
		rule(load(expr.PayloadBaseTransportHeader, 2, 2, reg1), &expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: []byte{0, 80}}, &expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{0, 90}}, verdict(expr.VerdictJump, "in-vnet0")),
		rule(&expr.Immediate{Register: reg1, Data: []byte(Mark(5).lo)}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1}),
		rule(&expr.Immediate{Register: reg1, Data: []byte{unix.PACKET_HOST}}, &expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: reg1}),
		rule(&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: 5, Data: []byte("drop ")}),
		rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "zones", IsDestRegSet: true, DestRegister: reg1},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1}),
		rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "out", IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}),
		{Exprs: append(wildcard(expr.MetaKeyIIFNAME, expr.CmpOpEq, "vnet"), &expr.Counter{}, verdict(expr.VerdictDrop, "")), Comment: "unknown port"},
	}
	t.AddChain(&Chain{Name: "post", Base: &Base{Type: TypeFilter, Hook: Postrouting, Priority: 0, Policy: Drop}, Rules: []Rule{
		rule(verdict(expr.VerdictAccept, "")),
	}})
	return t
}

// ipSample has what the ip and ip6 families add: conntrack.
func ipSample(family Family) *Table {
	t := NewTable(family, "ringwall")
	zones := t.AddSet(&Set{Name: "zones", Key: Types(TypeIfName), Data: TypeZone})
	zones.Add(Data(Zone(7)), IfName("vnet0"))
	zones.Add(Data(Zone(8)), IfName("vnet1"))
	labels := t.AddSet(&Set{Name: "labels", Key: Types(TypeMark), Data: TypeCTLabel})
	labels.Add(Data(Raw(make([]byte, 16))), Mark(1))
	states := t.AddSet(&Set{Name: "states", Key: Types(TypeCTState), Data: TypeVerdict})
	states.Add(Jump("est"), Mark(expr.CtStateBitESTABLISHED))
	states.Add(VerdictValue(expr.VerdictDrop), Mark(expr.CtStateBitINVALID))

	t.AddChain(&Chain{Name: "est", Rules: []Rule{
		rule(append(masked(meta(expr.MetaKeyMARK, reg1), reg1, ^uint32(0x300), 0x300), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1})...),
	}})
	ct := func(key expr.CtKey) expr.Any { return &expr.Ct{Key: key, Register: reg1} }
	ctSet := func(key expr.CtKey) expr.Any { return &expr.Ct{Key: key, Register: reg1, SourceRegister: true} }
	t.AddChain(&Chain{Name: "zone", Base: &Base{Type: TypeFilter, Hook: Prerouting, Priority: -450, Policy: Accept}, Rules: []Rule{
		rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "zones", IsDestRegSet: true, DestRegister: reg1}, ctSet(expr.CtKeyZONE)),
	}})
	t.AddChain(&Chain{Name: "stamp", Base: &Base{Type: TypeFilter, Hook: Prerouting, Priority: -150, Policy: Accept}, Rules: []Rule{
		rule(ct(expr.CtKeySTATE), &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: []byte(Mark(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED).lo), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)}, verdict(expr.VerdictJump, "est")),
		rule(ct(expr.CtKeySTATE), &expr.Lookup{SourceRegister: reg1, SetName: "states", IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}),
		rule(ct(expr.CtKeyMARK), eq(reg1, Mark(3)), verdict(expr.VerdictDrop, "")),
		rule(append(masked(ct(expr.CtKeyMARK), reg1, ^uint32(0xf0), 0x10), ctSet(expr.CtKeyMARK))...),
		rule(meta(expr.MetaKeyMARK, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "labels", IsDestRegSet: true, DestRegister: reg1}, ctSet(expr.CtKeyLABELS)),
		rule(&expr.Ct{Key: expr.CtKeyLABELS, Register: reg1}, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 16, Mask: append([]byte{1}, make([]byte, 15)...), Xor: make([]byte, 16)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 16)}, verdict(expr.VerdictAccept, "")),
		rule(&expr.Notrack{}),
	}})
	return t
}

// netdevSample drops link-local multicast before the bridge takes it.
func netdevSample(devices ...string) *Table {
	t := NewTable(NetDev, "ringwall")
	t.AddChain(&Chain{Name: "ingress", Base: &Base{Type: TypeFilter, Hook: NetDevIngress, Priority: -500, Policy: Accept, Devices: devices}, Rules: []Rule{
		rule(load(expr.PayloadBaseLLHeader, 0, 6, reg1),
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 6, Mask: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, Xor: make([]byte, 6)},
			eq(reg1, MAC(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0})), verdict(expr.VerdictDrop, "")),
	}})
	return t
}

func sampleState() State {
	return State{}.Add(bridgeSample(), ipSample(IPv4), ipSample(IPv6), netdevSample("lo"))
}
