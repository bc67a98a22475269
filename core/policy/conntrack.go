package policy

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// This file models Linux conntrack as far as a verdict depends on it: what is
// tracked, what starts a flow, what is invalid. Sequence numbers, checksums,
// timeouts and NAT are not modelled; helpers are taken to be off.

// tuple is one direction of a flow in a zone.
type tuple struct {
	zone     string // bridge; empty = the host's own
	protocol core.Protocol
	src, dst netip.Addr
	// Ports; for ICMP the identifier and type<<8|code.
	from, to uint16
}

// entry is a tracked flow.
type entry struct {
	first    tuple // of the packet that started it
	begun    bool  // that packet was let out
	seen     bool  // a reply was seen
	revoked  bool
	tcp      tcpPhase
	fins     [2]bool // per direction: original, reply
	from, to Port
	// Who let packets out that the flow began with: a port that is not the
	// receiver's, and the receiver's.
	astray, taken bool
}

type tcpPhase uint8

const (
	tcpOpening tcpPhase = iota // SYN seen, no answer
	tcpOpen
	tcpClosed
)

// replies pairs ICMP queries with their replies.
var (
	icmpReplies = map[uint8]uint8{ICMPEcho: ICMPEchoReply, ICMPTimestamp: ICMPTimestampReply,
		ICMPInfo: ICMPInfoReply, ICMPMask: ICMPMaskReply}
	icmpv6Replies = map[uint8]uint8{ICMPv6Echo: ICMPv6EchoReply, ICMPv6NodeQuery: ICMPv6NodeReply}
)

// tupleOf reads a packet; not ok: conntrack takes it for invalid.
func tupleOf(zone string, p *IP) (t tuple, ok bool) {
	t = tuple{zone: zone, src: p.Src, dst: p.Dst}
	if p.Transport == nil {
		return t, false
	}
	t.protocol = p.Transport.Protocol()
	if !t.protocol.In(core.FamilyOf(p.Src)) {
		return t, false
	}
	switch m := p.Transport.(type) {
	case TCP:
		t.from, t.to = m.SrcPort, m.DstPort
	case UDP:
		t.from, t.to = m.SrcPort, m.DstPort
	case SCTP:
		t.from, t.to = m.SrcPort, m.DstPort
	case ICMP:
		t.from, t.to = m.ID, m.Selector()
	case ICMPv6:
		t.from, t.to = m.ID, m.Selector()
	case Raw:
		// Of a protocol with a header that conntrack reads, but cut off.
		return t, !t.protocol.HasPorts() && !t.protocol.IsICMP()
	}
	_, ok = t.reply()
	return t, ok
}

// reply is the other direction. ICMP has one only for queries and replies.
func (t tuple) reply() (tuple, bool) {
	r := t
	r.src, r.dst = t.dst, t.src
	if !t.protocol.IsICMP() {
		r.from, r.to = t.to, t.from
		return r, true
	}
	typ, code := uint8(t.to>>8), t.to&0xff
	for query, reply := range queries(t.protocol) {
		switch typ {
		case query:
			r.to = uint16(reply)<<8 | code
			return r, true
		case reply:
			r.to = uint16(query)<<8 | code
			return r, true
		}
	}
	return r, false
}

func queries(p core.Protocol) map[uint8]uint8 {
	if p == core.ProtocolICMP {
		return icmpReplies
	}
	return icmpv6Replies
}

// untracked: ND and MLD are outside conntrack (nf_conntrack_proto_icmpv6.c);
// redirects are not, and are invalid.
func untracked(p *IP) bool {
	m, ok := p.Transport.(ICMPv6)
	return ok && p.Src.Is6() && (m.Type >= ICMPv6MLDQuery && m.Type <= ICMPv6NeighbourAdvertisement || m.Type == ICMPv6MLDv2Report)
}

// quoted is the packet that an ICMP error is about.
func quoted(p *IP) (quote *IP, isError bool) {
	switch m := p.Transport.(type) {
	case ICMP:
		switch m.Type {
		case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParameter:
			return m.Quote, p.Src.Is4()
		}
	case ICMPv6:
		return m.Quote, m.Type < 128 && p.Src.Is6()
	}
	return nil, false
}

// starts says whether a packet of no known flow starts one. TCP is picked up
// mid-stream (nf_conntrack_tcp_loose).
func starts(p *IP) bool {
	switch m := p.Transport.(type) {
	case TCP:
		return m.valid() && (m.kind() == SYN || m.kind() == ACK)
	case ICMP:
		_, query := icmpReplies[m.Type]
		return query
	case ICMPv6:
		_, query := icmpv6Replies[m.Type]
		return query
	}
	return true
}

// kind is the flags without PSH, which conntrack does not look at.
func (t TCP) kind() TCPFlags { return t.Flags &^ PSH }

// valid: a combination of flags that a TCP sends.
func (t TCP) valid() bool {
	switch t.kind() {
	case SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK:
		return true
	}
	return false
}

// reopens: the packet starts a new flow in place of one that ended. After RST
// only the client may; after both FINs the roles may change.
func (e *entry) reopens(m TCP, reply bool) bool {
	return e.tcp == tcpClosed && m.kind() == SYN && (!reply || e.fins == [2]bool{true, true})
}

// follow moves a TCP flow on by a packet of it. Not ok: the packet is invalid,
// and the flow stays.
func (e *entry) follow(m TCP, reply bool) (ok bool) {
	k := m.kind()
	switch {
	case !m.valid():
		return false
	case e.tcp == tcpOpening && !reply:
		if k != SYN && !k.Has(RST) {
			return false
		}
	case e.tcp == tcpOpening:
		switch {
		case k == FIN|ACK:
			return false
		case k.Has(SYN):
			e.tcp = tcpOpen
		}
	case k == SYN|ACK && !reply || k == SYN && reply:
		return false
	}
	if k.Has(FIN) {
		e.fins[map[bool]int{false: 0, true: 1}[reply]] = true
	}
	if k.Has(RST) || e.fins == [2]bool{true, true} {
		e.tcp = tcpClosed
	}
	return true
}
