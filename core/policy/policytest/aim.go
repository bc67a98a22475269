package policytest

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"pgregory.net/rapid"
)

// aimed draws a packet that an entry of either end's groups is about, or that
// it misses by one: by a port, by an address, or by the protocol.
func (w World) aimed(t *rapid.T, from, to policy.Port) policy.Frame {
	type target struct {
		core.Entry
		peer policy.Port
	}
	var targets []target
	for _, side := range []struct {
		direction  core.Direction
		port, peer policy.Port
	}{{core.Egress, from, to}, {core.Ingress, to, from}} {
		for _, g := range w.Ruleset.NICs[side.port.NIC].Groups {
			for _, e := range w.Ruleset.Groups[g].Entries {
				if e.Direction == side.direction {
					targets = append(targets, target{e, side.peer})
				}
			}
		}
	}
	if len(targets) == 0 {
		return w.packet(t, from, to)
	}
	e := rapid.SampledFrom(targets).Draw(t, "aim")
	var p policy.Path
	p.SrcMAC, p.Src = w.end(t, from, e.Family)
	p.DstMAC, p.Dst = w.end(t, to, e.Family)
	if e.peer.Kind != policy.PortNIC {
		a := w.within(t, e.Entry)
		if e.Direction == core.Ingress && !a.IsMulticast() && a != policy.Broadcast {
			p.Src = a
		} else if e.Direction == core.Egress {
			p.Dst = a
			if a.IsMulticast() || a == policy.Broadcast {
				p.DstMAC = policy.GroupMAC(a)
			}
		}
	}
	return p.Packet(w.selected(t, e.Entry))
}

// within draws an address of the entry's peer, its first or its last, or one
// just outside.
func (w World) within(t *rapid.T, e core.Entry) netip.Addr {
	if e.Peer.Group != "" {
		for _, a := range w.Ruleset.Sets[e.Peer.Group].Members {
			if core.FamilyOf(a) == e.Family {
				return a
			}
		}
		e.Peer.Prefix = cidrs[e.Family][1]
	}
	first := e.Peer.Prefix.Masked().Addr()
	last := lastOf(e.Peer.Prefix)
	candidates := []netip.Addr{first, first.Next(), last, last.Next(), first.Prev()}
	if a := rapid.SampledFrom(candidates).Draw(t, "address"); a.IsValid() && !a.IsUnspecified() {
		return a
	}
	return cidrs[e.Family][1].Addr().Next()
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// selected draws a transport that the entry selects, at either end of its
// range, or one that it just does not.
func (w World) selected(t *rapid.T, e core.Entry) policy.Transport {
	s := e.Span
	if s == core.AnySpan {
		s.First = rapid.SampledFrom(edgePorts).Draw(t, "any port")
		s.Last = s.First
	}
	v := rapid.SampledFrom([]uint16{s.First, s.First, s.Last, s.Last, s.First - 1, s.Last + 1}).Draw(t, "selector")
	protocol := e.Protocol
	if protocol == core.AnyProtocol || rapid.IntRange(0, 9).Draw(t, "other protocol") == 0 {
		protocol = rapid.SampledFrom([]core.Protocol{core.ProtocolTCP, core.ProtocolUDP, core.ProtocolSCTP, 47}).Draw(t, "protocol")
	}
	const src = 40000
	switch protocol {
	case core.ProtocolTCP:
		return policy.TCP{SrcPort: src, DstPort: v, Flags: policy.SYN}
	case core.ProtocolUDP:
		return policy.UDP{SrcPort: src, DstPort: v}
	case core.ProtocolSCTP:
		return policy.SCTP{SrcPort: src, DstPort: v}
	case core.ProtocolICMP:
		return policy.ICMP{Type: uint8(v >> 8), Code: uint8(v), ID: 7}
	case core.ProtocolICMPv6:
		return policy.ICMPv6{Type: uint8(v >> 8), Code: uint8(v), ID: 7}
	}
	return policy.Raw(protocol)
}
