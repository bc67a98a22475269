package policy

import (
	"github.com/ringwall/ringwall/core"
)

// PortKind is what a frame enters or leaves the host by.
type PortKind uint8

const (
	// PortClosed looks like a VM's port and has no NIC policy. It is the zero
	// value: what is not known is closed.
	PortClosed PortKind = iota
	PortNIC             // a VM's port with a NIC policy
	PortUplink          // any other port of a managed bridge
	PortHost            // the host itself
	PortRouted          // the host as a router
)

func (k PortKind) String() string {
	return [...]string{"closed", "nic", "uplink", "host", "routed"}[k]
}

// Port is one end of a frame's way through the host. A NIC that the ruleset
// does not know is judged as closed.
type Port struct {
	Kind PortKind
	NIC  core.NICKey // of PortNIC
}

// The ports that are not a NIC's.
var (
	Closed = Port{Kind: PortClosed}
	Uplink = Port{Kind: PortUplink}
	Host   = Port{Kind: PortHost}
	Routed = Port{Kind: PortRouted}
)

// AtNIC is the port of a NIC.
func AtNIC(k core.NICKey) Port { return Port{Kind: PortNIC, NIC: k} }

func (p Port) String() string {
	if p.Kind == PortNIC {
		return "nic " + p.NIC.String()
	}
	return p.Kind.String()
}

// State is what connection tracking says of an IPv4 or IPv6 packet. For
// StateRelated the ends of the flow that an ICMP error belongs to are those of
// the packet it quotes.
type State uint8

const (
	// StateUnfiltered: conntrack never saw the packet, because the bridge's
	// netfilter is off. It is the zero value.
	StateUnfiltered State = iota
	StateNew
	StateEstablished
	StateRelated
	StateInvalid
	StateUntracked
	StateRevoked // belongs to a flow that was revoked
	// StateAstray and StateAstrayReply: established, but the flow's beginning was
	// let out by a port that is not its receiver's, and by the receiver's not
	// yet. The former is of packets that go as the first one went.
	StateAstray
	StateAstrayReply
)

func (s State) String() string {
	return [...]string{"unfiltered", "new", "established", "related", "invalid", "untracked", "revoked", "astray", "astray-reply"}[s]
}

// Side is where a frame was judged.
type Side uint8

const (
	AtSender Side = iota + 1
	AtReceiver
)

func (s Side) String() string {
	return [...]string{"", "sender", "receiver"}[s]
}

// Verdict is the judgement of both ports.
type Verdict struct {
	Allowed bool
	// WouldDrop: a port said drop, and CountOnly let the frame pass.
	WouldDrop bool
	// Opinion is the one that counts: the port's that drops, else the
	// receiver's where it is a NIC, else the sender's.
	Opinion
	At Side

	Sender   Opinion
	Receiver Opinion // zero when the sender's port dropped the frame
}

// Opinion is what one port says.
type Opinion struct {
	Pass   bool
	Reason core.Reason
	Row    int    // of the port's table in docs/semantics.md
	Rule   *Match // what allowed it, for ReasonRule
}

// Match is an entry of an attached group.
type Match struct {
	Group string
	Entry core.Entry
}

func (m Match) String() string { return "group " + m.Group + ": " + m.Entry.String() }

func (v Verdict) String() string {
	word := "drop"
	if v.Allowed {
		word = "pass"
	}
	s := word + " (" + string(v.Reason) + ") at the " + v.At.String()
	if v.WouldDrop {
		s += ", counted only"
	}
	if v.Rule != nil {
		s += ", " + v.Rule.String()
	}
	return s
}
