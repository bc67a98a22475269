package policy

import (
	"fmt"
	"slices"

	"github.com/ringwall/ringwall/core"
)

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
			switch t := q.frame.IP.Transport; {
			case t == nil:
				continue
			case (e.Protocol == core.AnyProtocol || e.Protocol == t.Protocol()) && selects(&e, t):
				miss = fmt.Sprintf("the %s is %s", peer, addr)
				if e.Peer.Group != "" {
					miss = fmt.Sprintf("%s is no member of it", addr)
				}
			case e.Peer.Prefix.Contains(addr), e.Peer.Group != "" && isMember(q.rs, e.Peer.Group, addr):
				miss = "this is " + t.String()
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
