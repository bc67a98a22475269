package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
	"pgregory.net/rapid"
)

func explain(t *testing.T, f policy.Frame, from, to policy.Port, s policy.State, change ...func(*policy.Input)) string {
	in := input(change...)
	return policy.Explain(policy.Query{Ruleset: compile(t, change...), Groups: in.Groups, Frame: f, From: from, To: to, State: s}).String()
}

func TestExplain(t *testing.T) {
	from := policy.Path{SrcMAC: macX, DstMAC: macA, Src: ip("198.51.100.7"), Dst: a4}
	for _, c := range []struct {
		name string
		got  string
		want string
	}{
		{"a rule with its number", explain(t, toX.SYN(1000, 443), nicA, policy.Uplink, policy.StateNew), `
pass (rule) at the sender, group web: egress ipv4 tcp 443 to 192.0.2.0/24
  sender row 8: source MAC 02:00:00:00:00:0a is the NIC's or a pair's
  sender row 11: source 10.0.0.10 with MAC 02:00:00:00:00:0a is the NIC's to use
  sender row 14: connection tracking says new
  sender row 22: the NIC has an ipv4 address
  sender row 24: pass: allowed by group web: egress ipv4 tcp 443 to 192.0.2.0/24 (rule 2)
  receiver row 1: pass: the uplink end is not filtered
`},
		{"near misses by address and by port", explain(t, from.SYN(1000, 80), policy.Uplink, nicA, policy.StateNew,
			rule(allow(core.Ingress, core.ProtocolTCP, nil, port(22))), rule(allow(core.Ingress, core.ProtocolTCP, &core.Peers{Groups: []string{"none"}}))), `
drop (ingress-rules) at the receiver
  sender row 1: pass: the uplink end is not filtered
  receiver row 7: destination 10.0.0.10 at 02:00:00:00:00:0a is the NIC's
  receiver row 9: connection tracking says new
  receiver row 16: no ingress rule of group web matches
  receiver row 17: group web allows tcp 22 from 0.0.0.0/0 (rule 3), but this is tcp 1000>80 [S]
  receiver row 17: group web allows tcp 80 from 192.0.2.0/24 (rule 1), but the source is 198.51.100.7
  receiver row 17: group web allows tcp from group none (rule 4), but 198.51.100.7 is no member of it
  receiver row 17: drop: no ingress rule allows it
`},
		{"no groups", explain(t, from.SYN(1000, 80), policy.Uplink, nicA, policy.StateNew, leaveGroups), `
drop (ingress-rules) at the receiver
  sender row 1: pass: the uplink end is not filtered
  receiver row 7: destination 10.0.0.10 at 02:00:00:00:00:0a is the NIC's
  receiver row 9: connection tracking says new
  receiver row 16: no group is attached
  receiver row 17: drop: no ingress rule allows it
`},
		{"spoofed", explain(t, policy.Path{SrcMAC: macB, DstMAC: macX, Src: a4, Dst: x4}.SYN(1, 1), nicB, policy.Uplink, policy.StateNew), `
drop (ip-spoof) at the sender
  sender row 8: source MAC 02:00:00:00:00:0b is the NIC's or a pair's
  sender row 10: drop: source 10.0.0.10 with MAC 02:00:00:00:00:0b is not the NIC's (02:00:00:00:00:0b, 10.0.0.11, fd00::b)
`},
		{"closed", explain(t, toX.SYN(1, 1), policy.Closed, policy.Uplink, policy.StateNew), `
drop (closed-port) at the sender
  sender row 2: drop: the port looks like a VM's and has no policy
`},
		{"revoked", explain(t, toX.SYN(1, 443), nicA, policy.Uplink, policy.StateRevoked), `
drop (revoked) at the sender
  sender row 8: source MAC 02:00:00:00:00:0a is the NIC's or a pair's
  sender row 11: source 10.0.0.10 with MAC 02:00:00:00:00:0a is the NIC's to use
  sender row 14: drop: the flow was revoked, and no rule allows it again
`},
		{"multicast", explain(t, policy.Multicast(macX, x4, policy.Broadcast).UDP(1, 1), policy.Uplink, nicA, policy.StateNew, dropGroups), `
drop (multicast) at the receiver
  sender row 1: pass: the uplink end is not filtered
  receiver row 7: destination MAC ff:ff:ff:ff:ff:ff is a group's: the frame is for everybody who wants it
  receiver row 9: connection tracking says new
  receiver row 15: drop: multicast and broadcast are dropped on this cluster
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(strings.TrimPrefix(c.want, "\n"), c.got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever is asked, the account ends each side with the row that decided, and
// never panics.
func TestExplainFollowsEvaluate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		p := w.Passages().Draw(t, "passage")
		q := policy.Query{Ruleset: w.Ruleset, Groups: w.Input.Groups, Frame: p.Frame, From: p.From, To: p.To, State: policytest.States().Draw(t, "state")}
		e := policy.Explain(q)
		if v := policy.Evaluate(q.Ruleset, q.Frame, q.From, q.To, q.State); diff(v, e.Verdict) != "" {
			t.Errorf("explained %v, evaluated %v", e.Verdict, v)
		}
		decided := map[policy.Side]policy.Step{}
		for _, s := range e.Steps {
			if d, twice := decided[s.Side]; twice {
				t.Errorf("%v after %v decided", s, d)
			}
			if s.Decides {
				decided[s.Side] = s
			}
		}
		if decided[policy.AtSender].Row != e.Verdict.Sender.Row || decided[policy.AtReceiver].Row != e.Verdict.Receiver.Row {
			t.Errorf("decided by %v, verdict %+v", decided, e.Verdict)
		}
		if strings.Contains(e.String(), "%!") || strings.Contains(e.String(), "<nil>") {
			t.Errorf("badly formatted: %s", e)
		}
	})
}

func TestRuleOf(t *testing.T) {
	groups := []core.Group{{Name: "g", Rules: []core.Rule{
		allow(core.Ingress, core.ProtocolTCP, nil, port(80)),
		allow(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8"), core.Span{First: 1, Last: 9}, port(80)),
		allow(core.Ingress, core.ProtocolTCP, cidrs("10.1.2.3/8"), core.Span{First: 5, Last: 20}),
		allow(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8"), core.Span{First: 1, Last: 20}),
	}}, {Name: "h", Rules: []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil, port(80))}}}
	for _, c := range []struct {
		match policy.Match
		want  []policy.RuleRef
	}{
		{policy.Match{Group: "g", Entry: entry(core.Ingress, core.ProtocolTCP, 80, 80, "0.0.0.0/0")}, []policy.RuleRef{{Group: "g", Index: 0}}},
		{policy.Match{Group: "g", Entry: entry(core.Ingress, core.ProtocolTCP, 1, 20, "10.0.0.0/8")}, []policy.RuleRef{{Group: "g", Index: 3}, {Group: "g", Index: 1}, {Group: "g", Index: 2}}},
		{policy.Match{Group: "h", Entry: entry(core.Ingress, core.ProtocolTCP, 80, 80, "::/0")}, []policy.RuleRef{{Group: "h", Index: 0}}},
		{policy.Match{Group: "h", Entry: entry(core.Ingress, core.ProtocolTCP, 81, 81, "::/0")}, nil},
	} {
		if d := diff(c.want, policy.RuleOf(groups, c.match)); d != "" {
			t.Errorf("%v: %s", c.match, d)
		}
	}
}
