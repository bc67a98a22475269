package conntrack

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
)

// Message types and attributes of <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctNew    = unix.NFNL_SUBSYS_CTNETLINK << 8 // IPCTNL_MSG_CT_NEW is 0
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	ctStats  = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5

	ctaStatsGlobalEntries = 1

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaTimeout    = 7
	ctaMark       = 8
	ctaID         = 12
	ctaZone       = 18
	ctaMarkMask   = 21
	ctaLabels     = 22

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaTupleZone  = 3

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9

	nfgenmsgLen = 4
)

// header is struct nfgenmsg.
func header(family byte) nl.Buffer { return nl.Buffer{family, unix.NFNETLINK_V0, 0, 0} }

// name starts a request about one entry. The kernel finds it by its original
// tuple and zone.
func name(e Entry) nl.Buffer {
	family, src, dst := byte(unix.AF_INET), uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if e.Orig.Src.Is6() {
		family, src, dst = unix.AF_INET6, ctaIPv6Src, ctaIPv6Dst
	}
	b := make(nl.Buffer, 0, 160)
	b = append(b, header(family)...)
	endTuple := b.Nest(ctaTupleOrig)
	endIP := b.Nest(ctaTupleIP)
	b.Attr(src, e.Orig.Src.AsSlice()...)
	b.Attr(dst, e.Orig.Dst.AsSlice()...)
	endIP()
	endProto := b.Nest(ctaTupleProto)
	b.Attr(ctaProtoNum, byte(e.Protocol))
	switch {
	case e.Protocol == core.ProtocolICMP:
		b.BigUint16(ctaProtoICMPID, e.Orig.SrcPort)
		b.Attr(ctaProtoICMPType, byte(e.Orig.DstPort>>8))
		b.Attr(ctaProtoICMPCode, byte(e.Orig.DstPort))
	case e.Protocol == core.ProtocolICMPv6:
		b.BigUint16(ctaProtoICMPv6ID, e.Orig.SrcPort)
		b.Attr(ctaProtoICMPv6Type, byte(e.Orig.DstPort>>8))
		b.Attr(ctaProtoICMPv6Code, byte(e.Orig.DstPort))
	case hasPorts(e.Protocol):
		b.BigUint16(ctaProtoSrcPort, e.Orig.SrcPort)
		b.BigUint16(ctaProtoDstPort, e.Orig.DstPort)
	}
	endProto()
	if e.Zone.Direction == ZoneOrig {
		b.BigUint16(ctaTupleZone, e.Zone.ID)
	}
	endTuple()
	// A zone of the reply alone leaves the original tuple in zone 0.
	if e.Zone.Direction == ZoneBoth && e.Zone.ID != 0 {
		b.BigUint16(ctaZone, e.Zone.ID)
	}
	return b
}

// parse reads a message of a dump.
func parse(m nl.Message) (Entry, bool) {
	var e Entry
	if m.Type != ctNew {
		return e, false
	}
	for t, v := range nl.Attrs(m.Body(nfgenmsgLen)) {
		switch t {
		case ctaTupleOrig:
			e.Orig = e.tuple(v, ZoneOrig)
		case ctaTupleReply:
			e.Reply = e.tuple(v, ZoneReply)
		case ctaStatus:
			e.Status = Status(v.BigUint32())
		case ctaTimeout:
			e.Timeout = time.Duration(v.BigUint32()) * time.Second
		case ctaMark:
			e.Mark = v.BigUint32()
		case ctaID:
			e.ID = v.BigUint32()
		case ctaZone:
			e.Zone = Zone{ID: v.BigUint16()}
		case ctaLabels:
			copy(e.Labels[:], v)
		}
	}
	return e, e.Orig.Src.IsValid()
}

func (e *Entry) tuple(b nl.Value, d ZoneDirection) Tuple {
	var t Tuple
	for typ, v := range nl.Attrs(b) {
		switch typ {
		case ctaTupleIP:
			for typ, v := range nl.Attrs(v) {
				a, _ := netip.AddrFromSlice(v)
				switch typ {
				case ctaIPv4Src, ctaIPv6Src:
					t.Src = a
				case ctaIPv4Dst, ctaIPv6Dst:
					t.Dst = a
				}
			}
		case ctaTupleProto:
			for typ, v := range nl.Attrs(v) {
				switch typ {
				case ctaProtoNum:
					e.Protocol = core.Protocol(v.Uint8())
				case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMPv6ID:
					t.SrcPort = v.BigUint16()
				case ctaProtoDstPort:
					t.DstPort = v.BigUint16()
				case ctaProtoICMPType, ctaProtoICMPv6Type:
					t.DstPort |= uint16(v.Uint8()) << 8
				case ctaProtoICMPCode, ctaProtoICMPv6Code:
					t.DstPort |= uint16(v.Uint8())
				}
			}
		case ctaTupleZone:
			e.Zone = Zone{v.BigUint16(), d}
		}
	}
	return t
}
