package policytest

import (
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"pgregory.net/rapid"
)

// Event is one step of a sequence: a frame, or a change after which the engine
// sweeps flows.
type Event struct {
	Passage *Passage
	World   *World
}

// Sequences draws n events, frames and their answers for the most part, with a
// change of the world now and then.
func Sequences(w World, n int) *rapid.Generator[[]Event] {
	return rapid.Custom(func(t *rapid.T) []Event {
		var events []Event
		var sent []Passage
		for range n {
			switch k := rapid.IntRange(0, 9).Draw(t, "event"); {
			case k == 0:
				w = w.Change().Draw(t, "change")
				changed := w
				events = append(events, Event{World: &changed})
				continue
			case k < 5 && len(sent) > 0:
				p := rapid.SampledFrom(sent).Draw(t, "again")
				if a, ok := Answer(p); ok && rapid.IntRange(0, 3).Draw(t, "answer") > 0 {
					p = a
				} else if e, ok := Complaint(p); ok && rapid.Bool().Draw(t, "complaint") {
					p = e
				}
				events = append(events, Event{Passage: &p})
				continue
			}
			p := w.Passages().Draw(t, "passage")
			sent = append(sent, p)
			events = append(events, Event{Passage: &p})
		}
		return events
	})
}

// Answer is what the receiver of a unicast packet would send back.
func Answer(p Passage) (Passage, bool) {
	if p.Frame.Family() == 0 || p.Frame.Dst.IsGroup() {
		return Passage{}, false
	}
	back := policy.Path{SrcMAC: p.Frame.Dst, DstMAC: p.Frame.Src, Src: p.Frame.IP.Dst, Dst: p.Frame.IP.Src}
	var f policy.Frame
	switch m := p.Frame.IP.Transport.(type) {
	case policy.TCP:
		flags := policy.ACK
		if m.Flags == policy.SYN {
			flags |= policy.SYN
		}
		f = back.TCP(m.DstPort, m.SrcPort, flags)
	case policy.UDP:
		f = back.UDP(m.DstPort, m.SrcPort)
	case policy.ICMP:
		f = back.EchoReply(m.ID)
	case policy.ICMPv6:
		f = back.EchoReply(m.ID)
	case policy.Raw:
		f = back.Raw(core.Protocol(m))
	default:
		return Passage{}, false
	}
	return Passage{f, p.To, p.From}, true
}

// Complaint is an ICMP error about a packet, from its receiver.
func Complaint(p Passage) (Passage, bool) {
	if p.Frame.Family() == 0 || p.Frame.Dst.IsGroup() {
		return Passage{}, false
	}
	back := policy.Path{SrcMAC: p.Frame.Dst, DstMAC: p.Frame.Src, Src: p.Frame.IP.Dst, Dst: p.Frame.IP.Src}
	return Passage{back.Unreachable(p.Frame), p.To, p.From}, true
}

// Change draws the world after one change: a rule, a membership, an address, a
// NIC or an option.
func (w World) Change() *rapid.Generator[World] {
	return rapid.Custom(func(t *rapid.T) World {
		in := Clone(w.Input)
		switch rapid.IntRange(0, 6).Draw(t, "what") {
		case 0, 1:
			g := &in.Groups[rapid.IntRange(0, len(in.Groups)-1).Draw(t, "group")]
			if n := len(g.Rules); n > 0 && rapid.Bool().Draw(t, "remove") {
				i := rapid.IntRange(0, n-1).Draw(t, "rule")
				g.Rules = slices.Delete(g.Rules, i, i+1)
			} else {
				g.Rules = append(g.Rules, w.Shape.Rule(groupNames(in.Groups)).Draw(t, "rule"))
			}
		case 2:
			in.Options = w.Shape.options(t)
		case 3:
			if vm := &in.VMs[rapid.IntRange(0, len(in.VMs)-1).Draw(t, "vm")]; len(vm.NICs) > 0 && len(w.Ruleset.NICs) > 1 {
				vm.NICs = vm.NICs[:len(vm.NICs)-1] // unplugged
			}
		default:
			w.changeNIC(t, in)
		}
		return w.Shape.compile(t, in)
	})
}

// changeNIC draws a NIC anew, where it is.
func (w World) changeNIC(t *rapid.T, in policy.Input) {
	vm := &in.VMs[rapid.IntRange(0, len(in.VMs)-1).Draw(t, "vm")]
	if len(vm.NICs) == 0 {
		return
	}
	i := rapid.IntRange(0, len(vm.NICs)-1).Draw(t, "nic")
	old := vm.NICs[i]
	vm.NICs[i] = w.Shape.nic(t, int(old.MAC[4]), int(old.MAC[5]), groupNames(in.Groups))
	vm.NICs[i].Binding = old.Binding
}

// Clone copies an input so that the copy's rules, VMs and NICs can be changed.
func Clone(in policy.Input) policy.Input {
	in.Groups = slices.Clone(in.Groups)
	for i := range in.Groups {
		in.Groups[i].Rules = slices.Clone(in.Groups[i].Rules)
	}
	in.VMs = slices.Clone(in.VMs)
	for i := range in.VMs {
		in.VMs[i].NICs = slices.Clone(in.VMs[i].NICs)
	}
	return in
}
