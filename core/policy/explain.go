package policy

import (
	"fmt"
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
	{24, func(q *question) string { return sayNoRule(q, core.Egress) }},
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
	{16, func(q *question) string { return sayNoRule(q, core.Ingress) }},
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

func sayNoRule(q *question, d core.Direction) string {
	switch gs := q.nic.Groups; len(gs) {
	case 0:
		return "no group is attached"
	case 1:
		return fmt.Sprintf("no %s rule of group %s matches", d, gs[0])
	default:
		return fmt.Sprintf("no %s rule of groups %s matches", d, strings.Join(gs, ", "))
	}
}
