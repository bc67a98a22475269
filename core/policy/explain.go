package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Explanation is a verdict with an account of how it came about.
type Explanation struct {
	Verdict Verdict
	Steps   []Step
}

// Step is one thing that was looked at, in order.
type Step struct {
	Side    Side
	Row     int // of the side's table in docs/semantics.md
	Text    string
	Decides bool // this row has the side's last word
}

// Query is what Explain is asked.
type Query struct {
	Ruleset core.Ruleset
	// Groups as users wrote them, to name rules by their number. May be empty.
	Groups   []core.Group
	Frame    Frame
	From, To Port
	State    State
}

// Explain says why Evaluate gives its verdict: what was checked and held, what
// decided, and which rules nearly matched.
func Explain(x Query) Explanation {
	e := Explanation{Verdict: Evaluate(x.Ruleset, x.Frame, x.From, x.To, x.State)}
	e.side(x, AtSender, e.Verdict.Sender)
	if e.Verdict.Receiver != (Opinion{}) {
		e.side(x, AtReceiver, e.Verdict.Receiver)
	}
	return e
}

func (e *Explanation) side(x Query, side Side, o Opinion) {
	q := ask(side, &x.Ruleset, x.Frame, x.From, x.To, x.State)
	port, notes := q.from, senderNotes
	if side == AtReceiver {
		port, notes = q.to, receiverNotes
	}
	for _, n := range notes {
		if n.row >= o.Row || port.Kind != PortNIC {
			break
		}
		if text := n.say(q); text != "" {
			e.Steps = append(e.Steps, Step{Side: side, Row: n.row, Text: text})
		}
	}
	for _, text := range nearMisses(x, q, side, o) {
		e.Steps = append(e.Steps, Step{Side: side, Row: o.Row, Text: text})
	}
	e.Steps = append(e.Steps, Step{Side: side, Row: o.Row, Text: decision(x, q, port, o), Decides: true})
}

func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, e.Verdict)
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "  %s row %d: %s\n", s.Side, s.Row, s.Text)
	}
	return b.String()
}

// note says that a check of a row held, when it was one for this frame.
type note struct {
	row int
	say func(*question) string
}

var senderNotes = []note{
	{8, func(q *question) string {
		if !q.nic.checked() {
			return "anti-spoofing is off for this NIC"
		}
		return fmt.Sprintf("source MAC %s is the NIC's or a pair's", q.frame.Src)
	}},
	{11, sayAddress},
	{14, sayState},
	{22, sayHome},
	{24, func(q *question) string { return "no egress rule of " + groupList(q) + " matches" }},
}

var receiverNotes = []note{
	{7, func(q *question) string {
		switch {
		case !isIP(q.frame):
			return ""
		case q.frame.Dst.IsGroup():
			return fmt.Sprintf("destination MAC %s is a group's: the frame is for everybody who wants it", q.frame.Dst)
		case !q.nic.checked():
			return "anti-spoofing is off for this NIC: whatever arrives is for it"
		}
		return fmt.Sprintf("destination %s at %s is the NIC's", q.frame.IP.Dst, q.frame.Dst)
	}},
	{9, sayState},
	{16, func(q *question) string { return "no ingress rule of " + groupList(q) + " matches" }},
}

func sayAddress(q *question) string {
	if q.family == 0 || !q.nic.checked() {
		return ""
	}
	return fmt.Sprintf("source %s with MAC %s is the NIC's to use", q.frame.IP.Src, q.frame.Src)
}

func sayState(q *question) string {
	if q.family == 0 {
		return ""
	}
	return "connection tracking says " + q.state.String()
}

func sayHome(q *question) string {
	if q.family == 0 || !q.nic.checked() {
		return ""
	}
	return fmt.Sprintf("the NIC has an %s address", q.family)
}

func groupList(q *question) string {
	switch n := len(q.nic.Groups); n {
	case 0:
		return "no group (none is attached)"
	case 1:
		return "group " + q.nic.Groups[0]
	default:
		return "groups " + strings.Join(q.nic.Groups, ", ")
	}
}

// decision puts the last word of a port into words.
func decision(x Query, q *question, port Port, o Opinion) string {
	verb := "drop: "
	if o.Pass {
		verb = "pass: "
	}
	if o.Rule != nil {
		return verb + "allowed by " + o.Rule.String() + ruleNumbers(x.Groups, *o.Rule)
	}
	return verb + because(q, port, o)
}

// ruleNumbers names the rules of a user's group, from 1 as people count.
func ruleNumbers(groups []core.Group, m Match) string {
	var ns []string
	for _, r := range RuleOf(groups, m) {
		ns = append(ns, fmt.Sprint(r.Index+1))
	}
	switch len(ns) {
	case 0:
		return ""
	case 1:
		return " (rule " + ns[0] + ")"
	}
	return " (rules " + strings.Join(ns, ", ") + ")"
}

func because(q *question, port Port, o Opinion) string {
	f := q.frame
	switch o.Reason {
	case core.ReasonEstablished:
		return "part of an established flow"
	case core.ReasonRelated:
		return "an error about a flow"
	case core.ReasonAlways:
		return "ARP, ND, MLD, DHCP and DNS of a well-behaved client always pass"
	case core.ReasonDefault:
		return fmt.Sprintf("no attached group has an %s egress rule, so everything may leave", q.family)
	case core.ReasonSystem:
		return "a system VM"
	case core.ReasonHost:
		return "the host's own traffic"
	case core.ReasonUplink:
		return "the " + port.Kind.String() + " end is not filtered"
	case core.ReasonClosedPort:
		return "the port looks like a VM's and has no policy"
	case core.ReasonEtherType:
		return fmt.Sprintf("%s: only IPv4, IPv6 and ARP pass", f.EtherType)
	case core.ReasonVLAN:
		return "VLAN tags do not pass"
	case core.ReasonLinkLocal:
		return fmt.Sprintf("%s is between bridges", f.Dst)
	case core.ReasonMACSpoof:
		return fmt.Sprintf("source MAC %s is neither the NIC's (%s) nor a pair's", f.Src, q.nic.Key.MAC)
	case core.ReasonIPSpoof:
		return becauseSpoofed(q, o)
	case core.ReasonARPSpoof:
		return fmt.Sprintf("%s speaks for another than the NIC (%s)", f.ARP, addressList(q.nic.NICPolicy))
	case core.ReasonNDSpoof:
		return "neighbour discovery for an address that is not the NIC's: " + f.IP.String()
	case core.ReasonRAGuard:
		return "router advertisements and redirects from a VM"
	case core.ReasonDHCPGuard:
		return "a VM may be a DHCP client with an address of its own, and no server"
	case core.ReasonDestination:
		return becauseElsewhere(q, o)
	case core.ReasonMulticast:
		return "multicast and broadcast are dropped on this cluster"
	case core.ReasonRevoked:
		return "the flow was revoked, and no rule allows it again"
	case core.ReasonInvalid:
		return "connection tracking knows no flow that this packet belongs to"
	case core.ReasonNotOwner:
		return "an error about a flow between others"
	case core.ReasonIngressRules:
		return "no ingress rule allows it"
	case core.ReasonEgressRules:
		return "no egress rule allows it"
	case core.ReasonUnfiltered:
		return "the bridge's netfilter is off, so nothing can be judged"
	}
	return string(o.Reason)
}

func becauseSpoofed(q *question, o Opinion) string {
	if q.family == 0 {
		return "not a well-formed " + q.frame.EtherType.String() + " packet"
	}
	if o.Row == 22 {
		return fmt.Sprintf("the NIC has no %s address", q.family)
	}
	return fmt.Sprintf("source %s with MAC %s is not the NIC's (%s)", q.frame.IP.Src, q.frame.Src, addressList(q.nic.NICPolicy))
}

func becauseElsewhere(q *question, o Opinion) string {
	if q.family == 0 {
		return fmt.Sprintf("destination MAC %s is neither the NIC's (%s) nor a pair's", q.frame.Dst, q.nic.Key.MAC)
	}
	if o.Row == 14 {
		return fmt.Sprintf("the NIC has no %s address", q.family)
	}
	return fmt.Sprintf("destination %s at %s is not the NIC's (%s)", q.frame.IP.Dst, q.frame.Dst, addressList(q.nic.NICPolicy))
}

func addressList(n core.NICPolicy) string {
	s := []string{n.Key.MAC.String()}
	for _, a := range n.Addresses {
		s = append(s, a.String())
	}
	for _, p := range n.Pairs {
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}

// maxMisses is how many near misses a group shows.
const maxMisses = 3

// nearMisses lists rules that failed by one thing, where rules had their say.
func nearMisses(x Query, q *question, side Side, o Opinion) []string {
	d, peer, end := core.Ingress, "source", "from"
	switch {
	case side == AtSender && o.Reason == core.ReasonEgressRules:
		d, peer, end = core.Egress, "destination", "to"
	case side == AtReceiver && o.Reason == core.ReasonIngressRules:
	default:
		return nil
	}
	addr := q.frame.IP.Src
	if d == core.Egress {
		addr = q.frame.IP.Dst
	}
	var out []string
	for _, g := range q.nic.Groups {
		var misses []string
		for _, e := range entriesOf(x.Ruleset.Groups[g].Entries, d, q.family) {
			miss := ""
			switch transport := matchTransport(e, q.frame.IP.Transport); {
			case transport && e.Peer.Group != "":
				miss = fmt.Sprintf("%s is no member of it", addr)
			case transport:
				miss = fmt.Sprintf("the %s is %s", peer, addr)
			case matchPeer(q.rs, e.Peer, addr) && q.frame.IP.Transport != nil:
				miss = "this is " + q.frame.IP.Transport.String()
			default:
				continue
			}
			m := Match{g, e}
			misses = append(misses, fmt.Sprintf("group %s allows %s %s %s%s, but %s", g, what(e), end, e.Peer, ruleNumbers(x.Groups, m), miss))
			if len(misses) == maxMisses {
				break
			}
		}
		out = slices.Concat(out, misses)
	}
	return out
}

// what is an entry's protocol and selector as a rule would say it.
func what(e core.Entry) string {
	switch {
	case e.Protocol == core.AnyProtocol:
		return "anything"
	case e.Span == core.AnySpan:
		return e.Protocol.String()
	case e.Protocol.IsICMP():
		first, last := e.Span.First, e.Span.Last
		if first == last {
			return fmt.Sprintf("%s type %d code %d", e.Protocol, first>>8, first&0xff)
		}
		if first>>8 == last>>8 {
			return fmt.Sprintf("%s type %d", e.Protocol, first>>8)
		}
		return fmt.Sprintf("%s types %d to %d", e.Protocol, first>>8, last>>8)
	}
	return e.Protocol.String() + " " + e.Span.String()
}
