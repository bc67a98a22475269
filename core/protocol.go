package core

import (
	"fmt"
	"strconv"
	"strings"
)

// Direction is seen from the VM: ingress is traffic towards it.
type Direction uint8

const (
	Ingress Direction = iota + 1
	Egress
)

func (d Direction) String() string {
	switch d {
	case Ingress:
		return "ingress"
	case Egress:
		return "egress"
	}
	return "direction(" + strconv.Itoa(int(d)) + ")"
}

// ParseDirection reads "ingress" or "egress".
func ParseDirection(s string) (Direction, error) {
	switch s {
	case "ingress":
		return Ingress, nil
	case "egress":
		return Egress, nil
	}
	return 0, fmt.Errorf("not a direction; use ingress or egress: %w", ErrInvalid)
}

// Family is an address family.
type Family uint8

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both, in the order everything is rendered.
var Families = [2]Family{IPv4, IPv6}

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "family(" + strconv.Itoa(int(f)) + ")"
}

// Protocol is an IP protocol number (IANA "Assigned Internet Protocol
// Numbers"), or AnyProtocol. Number 0 (HOPOPT) cannot be named by a rule, so
// that no slip can turn a number into "everything".
type Protocol int16

const (
	AnyProtocol    Protocol = -1
	ProtocolICMP   Protocol = 1
	ProtocolIGMP   Protocol = 2
	ProtocolTCP    Protocol = 6
	ProtocolUDP    Protocol = 17
	ProtocolICMPv6 Protocol = 58
	ProtocolSCTP   Protocol = 132
)

var protocolNames = map[Protocol]string{
	AnyProtocol: "any", ProtocolICMP: "icmp", ProtocolTCP: "tcp", ProtocolUDP: "udp",
	ProtocolICMPv6: "icmpv6", ProtocolSCTP: "sctp",
}

func (p Protocol) String() string {
	if n, ok := protocolNames[p]; ok {
		return n
	}
	return strconv.Itoa(int(p))
}

// ParseProtocol reads any, tcp, udp, icmp, icmpv6, sctp, or a number 1..255.
func ParseProtocol(s string) (Protocol, error) {
	l := strings.ToLower(s)
	for p, n := range protocolNames {
		if n == l {
			return p, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("not a protocol; use any, tcp, udp, icmp, icmpv6, sctp or a number from 1 to 255: %w", ErrInvalid)
	}
	return Protocol(n), nil
}

// HasPorts says whether the protocol's header starts with two 16-bit ports
// that rules may name.
func (p Protocol) HasPorts() bool {
	return p == ProtocolTCP || p == ProtocolUDP || p == ProtocolSCTP
}

// IsICMP says whether rules of the protocol may name a type and a code.
func (p Protocol) IsICMP() bool { return p == ProtocolICMP || p == ProtocolICMPv6 }

// In says whether the protocol exists in the family: ICMP is IPv4 only,
// ICMPv6 is IPv6 only, all others are in both.
func (p Protocol) In(f Family) bool {
	switch p {
	case ProtocolICMP:
		return f == IPv4
	case ProtocolICMPv6:
		return f == IPv6
	}
	return true
}

// Span is an inclusive range of a 16-bit selector at the head of a transport
// header: the destination port (tcp, udp, sctp) or type<<8|code (icmp,
// icmpv6). AnySpan matches everything.
type Span struct{ First, Last uint16 }

// AnySpan covers the whole selector.
var AnySpan = Span{0, 65535}

// Contains says whether v lies in the span.
func (s Span) Contains(v uint16) bool { return s.First <= v && v <= s.Last }

func (s Span) String() string {
	if s.First == s.Last {
		return strconv.Itoa(int(s.First))
	}
	return fmt.Sprintf("%d-%d", s.First, s.Last)
}

// PortSpan reads "80" or "8000-8099".
func PortSpan(s string) (Span, error) {
	first, last, ranged := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return Span{}, fmt.Errorf("not a port; use 0 to 65535, or first-last: %w", ErrInvalid)
	}
	b := a
	if ranged {
		if b, err = strconv.ParseUint(last, 10, 16); err != nil {
			return Span{}, fmt.Errorf("not a port range; use first-last, each 0 to 65535: %w", ErrInvalid)
		}
	}
	if a > b {
		return Span{}, fmt.Errorf("the range ends before it starts: %w", ErrInvalid)
	}
	return Span{uint16(a), uint16(b)}, nil
}

// ICMPMatch narrows an ICMP rule; nil fields match any. A code needs a type.
type ICMPMatch struct{ Type, Code *uint8 }

// Span is the match as a selector range.
func (m ICMPMatch) Span() Span {
	switch {
	case m.Type == nil:
		return AnySpan
	case m.Code == nil:
		return Span{uint16(*m.Type) << 8, uint16(*m.Type)<<8 | 255}
	}
	v := uint16(*m.Type)<<8 | uint16(*m.Code)
	return Span{v, v}
}
