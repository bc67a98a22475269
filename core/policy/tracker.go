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

// Step judges a frame and remembers what conntrack would.
func (t *Tracker) Step(f Frame, from, to Port) Verdict {
	return t.StepAll([]Frame{f}, from, to)[0]
}

// StepDatagram judges the fragments of a datagram together.
func (t *Tracker) StepDatagram(fragments []Frame, from, to Port) Verdict {
	return t.StepAll(fragments, from, to)[0]
}

// StepAll judges a frame, or the fragments of a datagram, that a bridge hands to
// several ports. It is one packet to conntrack; a flow that it starts belongs to
// the first port that takes it.
func (t *Tracker) StepAll(frames []Frame, from Port, to ...Port) []Verdict {
	return t.step(frames, from, to, to, func(to Port, s State) Verdict {
		if len(frames) == 1 {
			return Evaluate(t.rs, frames[0], from, to, s)
		}
		return EvaluateDatagram(t.rs, frames, from, to, s)
	})
}

// StepRouted judges a packet that the host routes: in as it comes, out as it
// goes on with other MACs. One packet passes conntrack once, so it starts a
// flow only when both frames pass.
func (t *Tracker) StepRouted(in, out Frame, from, to Port) Verdict {
	return t.StepRoutedAll(in, out, from, to)[0]
}

// StepRoutedAll is StepRouted of a packet that is flooded on its way out.
func (t *Tracker) StepRoutedAll(in, out Frame, from Port, to ...Port) []Verdict {
	return t.step([]Frame{in}, from, []Port{Routed}, to, func(to Port, s State) Verdict {
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

// step asks conntrack about a datagram that goes from one port to others and,
// if that is the router, on to the last.
func (t *Tracker) step(frames []Frame, from Port, to, last []Port, judge func(to Port, s State) Verdict) []Verdict {
	state, e := t.ask(frames, from, to)
	out := make([]Verdict, len(last))
	for i, port := range last {
		out[i] = judge(port, state)
		if e == nil || !out[i].Allowed {
			continue
		}
		if !e.begun {
			e.begun = true
			e.from, e.to = from, port
			if frames[0].Dst.IsGroup() {
				e.to = Uplink // many may have got it; none owns the flow
			}
			t.add(e)
		}
		if from.Kind != PortHost && from.Kind != PortRouted && !slices.Contains(to, Routed) && (state == StateNew || state == StateAstray) {
			t.letOut(e, frames[0], port, state)
		}
	}
	return out
}

// letOut notes that a port has let out a packet that its flow began with, or of
// a flow that went astray.
func (t *Tracker) letOut(e *entry, f Frame, at Port, s State) {
	h := holder{t.rs.NICs[at.NIC]}
	isUser := at.Kind == PortNIC && h.Key == at.NIC && h.Kind != core.SystemVM
	here := func(has func(holder) bool) bool {
		for _, n := range t.rs.NICs {
			if n.Kind != core.SystemVM && (n.Bridge == "" || t.rs.Options.ManagesBridge(n.Bridge)) && has(holder{n}) {
				return true
			}
		}
		return false
	}
	hasMAC := func(h holder) bool { return h.hasMAC(f.Dst) }
	hasAddress := func(h holder) bool { return h.hasFamily(f.Family()) && h.hasAddress(f.IP.Dst) }
	switch {
	case at.Kind == PortHost || at.Kind == PortRouted:
	case isUser && !f.Dst.IsGroup() && (h.hasEnd(f.Dst, f.IP.Dst) || hasMAC(h) && !here(hasAddress)):
		e.taken = true
	case s == StateNew && (isUser || f.Dst.IsGroup() || here(hasMAC) || here(hasAddress)):
		e.astray = true
	}
}

// ask finds a datagram's state, and the flow that it belongs to, or that it
// starts when it passes.
func (t *Tracker) ask(frames []Frame, from Port, to []Port) (State, *entry) {
	whole, ok := Reassemble(frames)
	if !ok {
		return StateInvalid, nil // no IP, which has no state, or not well-formed
	}
	mine := func(p Port) bool { return p.Kind == PortHost || p.Kind == PortRouted }
	forHost := !whole.Dst.IsGroup() && slices.ContainsFunc(to, mine)
	if len(whole.Tags) > 0 && !(forHost && whole.PriorityTagged()) {
		return StateUnfiltered, nil // what is tagged is not looked into (bridge-nf-filter-vlan-tagged is 0), but by the host
	}
	bridge := t.bridge(append([]Port{from}, to...))
	if t.unfiltered[bridge] && from.Kind != PortRouted && from.Kind != PortHost {
		return StateUnfiltered, nil
	}
	if t.stoppedEarly(frames, from) {
		return StateInvalid, nil
	}
	if mine(from) || forHost {
		bridge = "" // what the host sends, routes, or is sent in unicast is in its own zone
	}
	return t.look(bridge, whole.IP)
}

// stoppedEarly: source checks come before conntrack, which never hears of what
// they drop.
func (t *Tracker) stoppedEarly(frames []Frame, from Port) bool {
	return !t.rs.Options.CountOnly && slices.ContainsFunc(frames, func(f Frame) bool {
		o := firstOf(senderLink, ask(AtSender, &t.rs, f, from, Uplink, StateUntracked))
		return o != nil && !o.Pass
	})
}

// bridge is that of whichever port is a NIC's.
func (t *Tracker) bridge(ports []Port) string {
	for _, p := range ports {
		if n, ok := t.rs.NICs[p.NIC]; ok && p.Kind == PortNIC {
			return n.Bridge
		}
	}
	return ""
}

// look finds a packet's state, and the flow it belongs to, or that it starts
// when it passes.
func (t *Tracker) look(zone string, p *IP) (State, *entry) {
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
	if isTCP && e != nil && e.reopens(m, at != e.first) {
		t.remove(e) // the ports are used again
		e = nil
	}
	switch {
	case e == nil && !starts(p):
		return StateInvalid, nil
	case e == nil:
		fresh := &entry{first: at}
		if isTCP && m.kind() == ACK {
			fresh.tcp = tcpOpen
		}
		return StateNew, fresh
	}
	reply := at != e.first
	if r, _ := at.reply(); r == at {
		reply = true // from an address to itself: both directions are one, and the answer is found first
	}
	if isTCP && !e.follow(m, reply) {
		return StateInvalid, nil
	}
	if isTCP && m.Flags.Has(RST) && !e.seen {
		t.remove(e) // a refusal, or a client that gave up, leaves nothing behind
	}
	e.seen = e.seen || reply
	switch {
	case e.revoked:
		return StateRevoked, nil
	case e.seen && e.astray && !e.taken && reply:
		return StateAstrayReply, e
	case e.seen && e.astray && !e.taken:
		return StateAstray, e
	case e.seen:
		return StateEstablished, e
	}
	return StateNew, e
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
