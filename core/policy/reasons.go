package policy

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/core"
)

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
