package policy

import (
	"cmp"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Evaluate judges a frame on its way from one port to another: at the sender's
// port, then at the receiver's. state is conntrack's word on an IPv4 or IPv6
// packet and means nothing to other frames.
//
// A single fragment is an incomplete datagram; see EvaluateDatagram.
func Evaluate(rs core.Ruleset, f Frame, from, to Port, state State) Verdict {
	if f.Family() != 0 && !f.IP.Fragment.Whole() {
		return EvaluateDatagram(rs, []Frame{f}, from, to, state)
	}
	return combine(rs.Options, judgeSender(&rs, f, from, to, state),
		func() Opinion { return judgeReceiver(&rs, f, from, to, state) }, from, to)
}

// EvaluateDatagram judges a datagram by its fragments, in any order: each alone
// at the sender's port (rows 4 to 11), then the datagram they make up. One that
// they do not make up whole goes nowhere.
func EvaluateDatagram(rs core.Ruleset, fragments []Frame, from, to Port, state State) Verdict {
	var doubt *Opinion // what CountOnly lets pass
	for _, f := range fragments {
		o := firstOf(senderLink, ask(AtSender, &rs, f, from, to, state))
		switch {
		case o == nil || o.Pass:
		case !rs.Options.CountOnly:
			return Verdict{Opinion: *o, At: AtSender, Sender: *o}
		case doubt == nil:
			doubt = o
		}
	}
	whole, ok := Reassemble(fragments)
	if !ok {
		o := Opinion{Reason: core.ReasonInvalid, Row: 12}
		return Verdict{Opinion: o, At: AtSender, Sender: o}
	}
	sender := judgeSender(&rs, whole, from, to, state)
	if doubt != nil {
		sender = *doubt
	}
	return combine(rs.Options, sender,
		func() Opinion { return judgeReceiver(&rs, whole, from, to, state) }, from, to)
}

// Reassemble makes a datagram of its fragments. It fails when one is missing,
// when they overlap, or when they are of different datagrams.
func Reassemble(fragments []Frame) (Frame, bool) {
	sorted := slices.Clone(fragments)
	for _, f := range sorted {
		if f.Family() == 0 {
			return Frame{}, false
		}
	}
	slices.SortStableFunc(sorted, func(a, b Frame) int {
		return cmp.Compare(a.IP.Fragment.Offset, b.IP.Fragment.Offset)
	})
	next := 0
	for i, f := range sorted {
		p, first := f.IP, sorted[0].IP
		if int(p.Fragment.Offset) != next || p.Fragment.More != (i < len(sorted)-1) ||
			p.Src != first.Src || p.Dst != first.Dst || p.Fragment.ID != first.Fragment.ID {
			return Frame{}, false
		}
		next += int(p.Fragment.Length)
	}
	if len(sorted) == 0 {
		return Frame{}, false
	}
	whole := sorted[0]
	ip := *whole.IP
	ip.Fragment = Fragment{}
	whole.IP = &ip
	return whole, true
}

// combine asks the receiver only about what the sender's port lets through.
func combine(o core.Options, sender Opinion, receiver func() Opinion, from, to Port) Verdict {
	if !sender.Pass && !o.CountOnly {
		return Verdict{Opinion: sender, At: AtSender, Sender: sender}
	}
	v := Verdict{Sender: sender, Receiver: receiver()}
	v.WouldDrop = !v.Sender.Pass || !v.Receiver.Pass
	v.Allowed = !v.WouldDrop || o.CountOnly
	v.WouldDrop = v.WouldDrop && v.Allowed
	v.Opinion, v.At = v.Receiver, AtReceiver
	if !v.Sender.Pass || v.Receiver.Pass && to.Kind != PortNIC && from.Kind == PortNIC {
		v.Opinion, v.At = v.Sender, AtSender
	}
	return v
}

// question is a frame at one port.
type question struct {
	rs     *core.Ruleset
	frame  Frame
	family core.Family // of the packet; 0 = no IP, or malformed
	from   Port
	to     Port
	state  State
	nic    holder // of the port that is asked
}

func ask(side Side, rs *core.Ruleset, f Frame, from, to Port, state State) *question {
	known := func(p Port) Port {
		if _, ok := rs.NICs[p.NIC]; p.Kind == PortNIC && !ok {
			return Closed
		}
		return p
	}
	q := &question{rs: rs, frame: f, family: f.Family(), from: known(from), to: known(to), state: state}
	q.nic = holder{rs.NICs[q.from.NIC]}
	if side == AtReceiver {
		q.nic = holder{rs.NICs[q.to.NIC]}
	}
	return q
}

// row is one of a table in docs/semantics.md. It gives no opinion when it does
// not apply.
type row struct {
	number int
	judge  func(*question) *Opinion
}

func firstOf(rows []row, q *question) *Opinion {
	for _, r := range rows {
		if o := r.judge(q); o != nil {
			o.Row = r.number
			return o
		}
	}
	return nil
}

func pass(r core.Reason) *Opinion { return &Opinion{Pass: true, Reason: r} }
func drop(r core.Reason) *Opinion { return &Opinion{Reason: r} }

func isIP(f Frame) bool { return f.EtherType == TypeIPv4 || f.EtherType == TypeIPv6 }

func (q *question) udp() (UDP, bool) {
	if q.family == 0 {
		return UDP{}, false
	}
	u, ok := q.frame.IP.Transport.(UDP)
	return u, ok
}

func (q *question) icmpv6() (ICMPv6, bool) {
	if q.family != core.IPv6 {
		return ICMPv6{}, false
	}
	m, ok := q.frame.IP.Transport.(ICMPv6)
	return m, ok
}

// homeless: the NIC is checked and has no address in the packet's family.
func (q *question) homeless() bool { return q.nic.checked() && !q.nic.hasFamily(q.family) }

// malformed is a frame that says IP and is not.
func (q *question) malformed() bool { return isIP(q.frame) && q.family == 0 }
