package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Tracker judges sequences of frames: Evaluate, with a model of conntrack for
// the state. Its zero value is not ready; see NewTracker. It is not safe for
// concurrent use.
type Tracker struct {
	rs         core.Ruleset
	entries    map[tuple]*entry // by both directions
	unfiltered map[string]bool
}

// NewTracker starts with no flows.
func NewTracker(rs core.Ruleset) *Tracker {
	return &Tracker{rs: rs, entries: map[tuple]*entry{}, unfiltered: map[string]bool{}}
}

// SetRuleset changes what is enforced. Flows live on until Sweep or Revoke.
func (t *Tracker) SetRuleset(rs core.Ruleset) { t.rs = rs }

// SetNetfilter switches a bridge's netfilter, which is on to begin with.
func (t *Tracker) SetNetfilter(bridge string, on bool) { t.unfiltered[bridge] = !on }

// Step judges a frame and remembers what conntrack would. A frame to many
// receivers is one step to each.
func (t *Tracker) Step(f Frame, from, to Port) Verdict {
	return t.step([]Frame{f}, from, to, to, func(s State) Verdict { return Evaluate(t.rs, f, from, to, s) })
}

// StepDatagram judges the fragments of a datagram together.
func (t *Tracker) StepDatagram(fragments []Frame, from, to Port) Verdict {
	return t.step(fragments, from, to, to, func(s State) Verdict { return EvaluateDatagram(t.rs, fragments, from, to, s) })
}

// StepRouted judges a packet that the host routes: in as it comes, out as it
// goes on with other MACs. One packet passes conntrack once, so it starts a
// flow only when both frames pass.
func (t *Tracker) StepRouted(in, out Frame, from, to Port) Verdict {
	return t.step([]Frame{in}, from, Routed, to, func(s State) Verdict {
		v := Evaluate(t.rs, in, from, Routed, s)
		if !v.Allowed || to.Kind != PortNIC && to.Kind != PortClosed {
			return v
		}
		next := Evaluate(t.rs, out, Routed, to, s)
		if v.WouldDrop && !next.WouldDrop {
			return v
		}
		return next
	})
}

// step asks conntrack about a datagram that goes from one port to another and,
// if that is the router, on to the last.
func (t *Tracker) step(frames []Frame, from, to, last Port, judge func(State) Verdict) Verdict {
	whole, ok := Reassemble(frames)
	if !ok {
		return judge(StateInvalid) // no IP, which has no state, or not well-formed
	}
	if len(whole.Tags) > 0 {
		return judge(StateUnfiltered) // what is tagged is not looked into (bridge-nf-filter-vlan-tagged is 0)
	}
	if t.unfiltered[t.bridge(from, to)] && from.Kind != PortRouted && from.Kind != PortHost {
		return judge(StateUnfiltered)
	}
	if t.stoppedEarly(frames, from, to) {
		return judge(StateInvalid)
	}
	state, fresh := t.look(t.zone(whole, from, to), whole.IP)
	v := judge(state)
	if fresh != nil && v.Allowed {
		fresh.from, fresh.to = from, last
		if whole.Dst.IsGroup() {
			fresh.to = Uplink // many may have got it; none owns the flow
		}
		t.add(fresh)
	}
	return v
}

// stoppedEarly: source checks come before conntrack, which never hears of what
// they drop.
func (t *Tracker) stoppedEarly(frames []Frame, from, to Port) bool {
	return !t.rs.Options.CountOnly && slices.ContainsFunc(frames, func(f Frame) bool {
		o := firstOf(senderLink, ask(AtSender, &t.rs, f, from, to, StateUntracked))
		return o != nil && !o.Pass
	})
}

// bridge is that of whichever end is a NIC.
func (t *Tracker) bridge(from, to Port) string {
	for _, p := range []Port{from, to} {
		if n, ok := t.rs.NICs[p.NIC]; ok && p.Kind == PortNIC {
			return n.Bridge
		}
	}
	return ""
}

// zone is the bridge, except for what the host sends, routes, or is sent in
// unicast.
func (t *Tracker) zone(f Frame, from, to Port) string {
	mine := func(p Port) bool { return p.Kind == PortHost || p.Kind == PortRouted }
	if mine(from) || mine(to) && !f.Dst.IsGroup() {
		return ""
	}
	return t.bridge(from, to)
}

// look finds a packet's state, and the flow it starts when it passes.
func (t *Tracker) look(zone string, p *IP) (s State, fresh *entry) {
	if untracked(p) {
		return StateUntracked, nil
	}
	if quote, isError := quoted(p); isError {
		return t.lookError(zone, p, quote), nil
	}
	at, ok := tupleOf(zone, p)
	if !ok {
		return StateInvalid, nil
	}
	e := t.entries[at]
	m, isTCP := p.Transport.(TCP)
	if isTCP && e != nil && e.tcp == tcpClosed && m.kind() == SYN {
		t.remove(e) // the ports are used again
		e = nil
	}
	switch {
	case e == nil && !starts(p):
		return StateInvalid, nil
	case e == nil:
		fresh = &entry{first: at}
		if isTCP && m.kind() == ACK {
			fresh.tcp = tcpOpen
		}
		return StateNew, fresh
	}
	reply := at != e.first
	if isTCP && !e.follow(m, reply) {
		return StateInvalid, nil
	}
	e.seen = e.seen || reply
	switch {
	case e.revoked:
		return StateRevoked, nil
	case e.seen:
		return StateEstablished, nil
	}
	return StateNew, nil
}

// lookError finds the flow that an ICMP error belongs to. It must be addressed
// to the quoted packet's sender.
func (t *Tracker) lookError(zone string, p, quote *IP) State {
	if quote == nil || quote.Fragment.Offset > 0 || quote.Src != p.Dst || core.FamilyOf(quote.Src) != core.FamilyOf(p.Src) {
		return StateInvalid
	}
	at, ok := tupleOf(zone, quote)
	e := t.entries[at]
	switch {
	case !ok || e == nil:
		return StateInvalid
	case e.revoked:
		return StateRevoked
	}
	return StateRelated
}

func (t *Tracker) add(e *entry) {
	t.entries[e.first] = e
	if r, ok := e.first.reply(); ok {
		t.entries[r] = e
	}
}

func (t *Tracker) remove(e *entry) {
	maps.DeleteFunc(t.entries, func(_ tuple, have *entry) bool { return have == e })
}

// Flows lists what is tracked, sorted.
func (t *Tracker) Flows() []core.Flow {
	var out []core.Flow
	for at, e := range t.entries {
		if at == e.first {
			out = append(out, e.flow())
		}
	}
	slices.SortFunc(out, compareFlows)
	return out
}

func (e *entry) flow() core.Flow {
	f := core.Flow{Bridge: e.first.zone, Protocol: e.first.protocol, Src: e.first.src, Dst: e.first.dst,
		SrcPort: e.first.from, DstPort: e.first.to, Revoked: e.revoked, HostSrc: e.from.Kind == PortHost}
	if e.from.Kind == PortNIC {
		f.From = e.from.NIC
	}
	if e.to.Kind == PortNIC {
		f.To = e.to.NIC
	}
	return f
}

func compareFlows(a, b core.Flow) int {
	return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Protocol, b.Protocol),
		netip.Addr.Compare(a.Src, b.Src), netip.Addr.Compare(a.Dst, b.Dst),
		cmp.Compare(a.SrcPort, b.SrcPort), cmp.Compare(a.DstPort, b.DstPort))
}

// Revoke marks flows revoked, and gives others back, as a backend does. It
// reports how many it changed.
func (t *Tracker) Revoke(revoke, restore []core.Flow) int {
	changed := 0
	mark := func(fs []core.Flow, revoked bool) {
		for _, f := range fs {
			at := tuple{f.Bridge, f.Protocol, f.Src, f.Dst, f.SrcPort, f.DstPort}
			if e := t.entries[at]; e != nil && e.revoked != revoked {
				e.revoked = revoked
				changed++
			}
		}
	}
	mark(revoke, true)
	mark(restore, false)
	return changed
}

// Sweep revokes what the ruleset no longer allows and gives back what it
// allows again, as the engine does after every change.
func (t *Tracker) Sweep() int { return t.Revoke(StaleFlows(t.rs, t.Flows())) }
