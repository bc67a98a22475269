// Package conntrack reads, marks and deletes the kernel's connection tracking
// entries, ten thousands at a time.
package conntrack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Entry is one tracked connection.
type Entry struct {
	Protocol core.Protocol
	Orig     Tuple // as its first packet went
	Reply    Tuple // as answers come: Orig turned round, unless there is NAT
	Zone     Zone
	Mark     uint32
	Labels   Labels
	Status   Status
	Timeout  time.Duration // until it goes, if nothing more is seen; whole seconds
	// ID tells an entry from a later one with the same tuples.
	ID uint32
}

// Tuple is one direction of a connection, in the terms of core.Flow: for ICMP,
// SrcPort is the identifier and DstPort type<<8|code. Protocols without ports
// have zeros.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

// Zone is a numbering space of its own for tuples. 0 is the host's default.
type Zone struct {
	ID        uint16
	Direction ZoneDirection
}

// ZoneDirection says for which direction a zone counts; the other one is then
// in zone 0.
type ZoneDirection uint8

const (
	ZoneBoth ZoneDirection = iota
	ZoneOrig
	ZoneReply
)

// Labels are 128 bits in the kernel's order: bit n is Labels[n/8]>>(n%8)&1 on a
// little-endian machine.
type Labels [16]byte

// Status is the kernel's IPS_* bits.
type Status uint32

const (
	Expected  Status = 1 << 0 // opened because of another connection
	SeenReply Status = 1 << 1 // packets went both ways
	Assured   Status = 1 << 2 // not given up early when the table is full
	Confirmed Status = 1 << 3
	SourceNAT Status = 1 << 4
	DestNAT   Status = 1 << 5
	Dying     Status = 1 << 9
	Offloaded Status = 1 << 14 // in a flow table: its packets meet no rules
)

// Has says whether all bits of s are set.
func (s Status) Has(bits Status) bool { return s&bits == bits }

// Mark is bits of a 32-bit mark: those in Mask are as in Value, the others
// don't matter. The zero Mark is about no bit.
type Mark struct{ Value, Mask uint32 }

// Matches says whether a whole mark has these bits.
func (m Mark) Matches(mark uint32) bool { return (mark^m.Value)&m.Mask == 0 }

// Flow is the entry in the model's terms, with the destination that DNAT made:
// both ends are asked about the packet as translated. The caller knows what
// bridge a zone is, and what a mark means.
func (e Entry) Flow() core.Flow {
	f := core.Flow{
		Protocol: e.Protocol, Src: e.Orig.Src, Dst: e.Orig.Dst,
		SrcPort: e.Orig.SrcPort, DstPort: e.Orig.DstPort,
	}
	if e.Status.Has(DestNAT) {
		f.Dst = e.Reply.Src
		if !f.Protocol.IsICMP() {
			f.DstPort = e.Reply.SrcPort
		}
	}
	return f
}

func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(e.Protocol.String() + " ")
	switch {
	case e.Protocol.IsICMP():
		fmt.Fprintf(&b, "%s > %s id %d type %d code %d", e.Orig.Src, e.Orig.Dst, e.Orig.SrcPort, e.Orig.DstPort>>8, e.Orig.DstPort&0xff)
	case hasPorts(e.Protocol):
		fmt.Fprintf(&b, "%s > %s", netip.AddrPortFrom(e.Orig.Src, e.Orig.SrcPort), netip.AddrPortFrom(e.Orig.Dst, e.Orig.DstPort))
	default:
		fmt.Fprintf(&b, "%s > %s", e.Orig.Src, e.Orig.Dst)
	}
	if e.Zone.ID != 0 {
		fmt.Fprintf(&b, " zone %d", e.Zone.ID)
	}
	return b.String()
}

// hasPorts says whether the kernel's tracker of a protocol has ports, or, with
// GRE, keys in their place. Core's HasPorts is about rules, which name fewer.
func hasPorts(p core.Protocol) bool {
	switch p {
	case core.ProtocolTCP, core.ProtocolUDP, core.ProtocolSCTP, protocolGRE, protocolDCCP, protocolUDPLite:
		return true
	}
	return false
}

const (
	protocolDCCP    core.Protocol = 33
	protocolGRE     core.Protocol = 47
	protocolUDPLite core.Protocol = 136
)
