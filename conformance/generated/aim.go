package generated

import (
	"slices"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
)

// home is the bridge that a passage is about: that of either end's NIC.
func home(p policytest.Passage) (bridge int) {
	for _, end := range []policy.Port{p.From, p.To} {
		if end.Kind == policy.PortNIC {
			return int(end.NIC.MAC[4])
		}
	}
	return 0
}

// label is the port of the hardware that stands for one of the model's.
func label(p policy.Port, bridge int) string {
	switch p.Kind {
	case policy.PortNIC:
		return policytest.Device(int(p.NIC.MAC[4]), int(p.NIC.MAC[5]))
	case policy.PortUplink:
		return "uplink:" + bridges[bridge]
	case policy.PortHost:
		return bridges[bridge]
	case policy.PortRouted:
		return "x"
	}
	return closedDevice(bridge)
}

// aim makes a shot of a passage: frames for the host and for what lies behind
// it go to its MAC. Not ok: it cannot be sent so.
func (s *stage) aim(e Event) (scenarios.Shot, bool) {
	p, b := *e.Passage, home(*e.Passage)
	f := p.Frame
	if s.disguisedError(p) {
		return scenarios.Shot{}, false
	}
	switch p.From.Kind {
	case policy.PortHost:
		if f.IP != nil {
			return scenarios.Shot{}, false // its stack has to send it
		}
	case policy.PortRouted:
		if f.Family() == 0 || f.Dst.IsGroup() || neverRouted(f) {
			return scenarios.Shot{}, false
		}
		return scenarios.Shot{From: "x", Frames: []policy.Frame{f.From(scenarios.MACX).To(scenarios.HostMACX)}}, true
	}
	if to := p.To.Kind; (to == policy.PortHost || to == policy.PortRouted) && !f.Dst.IsGroup() {
		f = f.To(scenarios.Router(byte(b)))
		if to == policy.PortHost && f.IP != nil {
			ip := *f.IP
			ip.Dst = hostAddr(core.FamilyOf(ip.Dst), b)
			f.IP = &ip
		}
		if neverRouted(f) {
			return scenarios.Shot{}, false
		}
		return scenarios.Shot{From: label(p.From, b), Frames: []policy.Frame{f}}, true
	}
	s.fragments++
	return scenarios.Shot{From: label(p.From, b), Frames: e.frames(f, s.fragments)}, true
}

// disguisedError: an ICMP error from a NIC that may spoof and wears the MAC of a
// neighbour that may not. The ip hooks of br_netfilter show no port, so that a
// backend there takes it for the neighbour's, and drops it. This is the one case
// that is left out.
func (s *stage) disguisedError(p policytest.Passage) bool {
	nics := s.Ruleset.Ruleset.NICs
	sender, ok := nics[p.From.NIC]
	if !ok || p.From.Kind != policy.PortNIC || !sender.SpoofingAllowed || p.Frame.IP == nil {
		return false
	}
	switch m := p.Frame.IP.Transport.(type) {
	case policy.ICMP:
		ok = m.Quote != nil
	case policy.ICMPv6:
		ok = m.Quote != nil
	default:
		ok = false
	}
	for k, n := range nics {
		wears := p.Frame.Src == k.MAC || slices.ContainsFunc(n.Pairs, func(pair core.AddressPair) bool { return pair.MAC == p.Frame.Src })
		if ok && wears && !n.SpoofingAllowed && n.Bridge == sender.Bridge {
			return true
		}
	}
	return false
}

// neverRouted: a router looks for the holder of a link-local address on the link
// that the packet came from. Nobody answers in the lab, where a flow is begun all
// the same.
func neverRouted(f policy.Frame) bool {
	return f.IP != nil && f.IP.Dst.Is6() && f.IP.Dst.IsLinkLocalUnicast()
}

// hail makes a packet of the host's own of a passage, as its stack would send
// it. Not ok: it has no route to it, or the packet could not be told again.
func (s *stage) hail(p policytest.Passage) (bridge string, f policy.Frame, ok bool) {
	b, f := home(p), p.Frame
	if p.From.Kind != policy.PortHost || f.Family() == 0 || len(f.Tags) > 0 || !carriesPayload(f.IP.Transport) {
		return "", f, false
	}
	i := slices.IndexFunc(s.World.Routes, func(r scenarios.Route) bool { return r.Bridge == bridges[b] && r.Addr == f.IP.Dst })
	if i < 0 {
		return "", f, false
	}
	ip := *f.IP
	ip.Src = hostAddr(f.Family(), b)
	f.IP = &ip
	return bridges[b], f.From(scenarios.Router(byte(b))).To(s.World.Routes[i].MAC), true
}
