package scenarios

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Shot is a frame, or the fragments of a datagram, sent from a port with nobody
// in particular in mind: what arrives is asked at every port there is.
type Shot struct {
	From   string
	Frames []policy.Frame
}

func (s Shot) String() string {
	text := make([]string, len(s.Frames))
	for i, f := range s.Frames {
		text[i] = f.String()
	}
	return "from " + s.From + ": " + strings.Join(text, "; ")
}

// Route is a host route to a neighbour that answers no ARP. Of several to one
// address the first is taken for what the host forwards.
type Route struct {
	Addr   netip.Addr
	Bridge string
	MAC    core.MAC
}

// Flood judges a shot at every port that it comes to, when bridges learn
// nothing, and behind the router. Ports that are not in the answer see nothing.
func (m *Model) Flood(s Shot) (map[string]policy.Verdict, error) {
	from, err := m.find(s.From)
	if err != nil {
		return nil, err
	}
	f := s.Frames[0]
	at := map[string]policy.Verdict{}
	router := m.layout.router(from.bridge)
	switch {
	case from.label == "x":
		m.floodFromX(f, from, at)
	case f.Dst.IsBridgeReserved() && f.Dst[5] != 0 && !from.isHost():
		// Bridges forward none of these (but :00, where no STP runs). What the
		// host itself sends by the bridge goes out of every port.
	case f.Dst == router && !from.isHost():
		m.floodRouter(f, from, at)
	default:
		places := m.ports(from.bridge, from.label)
		if f.Dst.IsGroup() && !from.isHost() {
			places = append(places, place{label: from.bridge, port: policy.Host})
		}
		spread(at, places, func(to ...policy.Port) []policy.Verdict { return m.Tracker.StepAll(s.Frames, from.port, to...) })
	}
	return at, nil
}

// spread puts the verdicts of many ports where they belong.
func spread(at map[string]policy.Verdict, places []place, step func(to ...policy.Port) []policy.Verdict) {
	to := make([]policy.Port, len(places))
	for i, p := range places {
		to[i] = p.port
	}
	for i, v := range step(to...) {
		at[places[i].label] = v
	}
}

// floodRouter is what a frame to the router's MAC comes to: up to the host, and
// on to where it is routed.
func (m *Model) floodRouter(f policy.Frame, from place, at map[string]policy.Verdict) {
	up := func(v policy.Verdict) { at[from.bridge] = policy.Verdict{Allowed: v.Sender.Pass, Opinion: v.Sender} }
	r, ok := m.route(f, from)
	switch {
	case f.IP == nil || m.isLocal(f.IP.Dst):
		up(m.Tracker.Step(f, from.port, policy.Host))
	case !ok:
		// Dropped by the router, before any flow is remembered.
		up(m.Tracker.StepRouted(f, f, from.port, policy.Closed))
	case r.Bridge == "":
		at["x"] = m.Tracker.StepRouted(f, f, from.port, policy.Routed)
		up(at["x"])
	default:
		places := m.ports(r.Bridge, "")
		spread(at, places, func(to ...policy.Port) []policy.Verdict {
			return m.Tracker.StepRoutedAll(f, m.routedBy(f, r), from.port, to...)
		})
		up(at[places[0].label])
	}
}

func (m *Model) floodFromX(f policy.Frame, from place, at map[string]policy.Verdict) {
	r, ok := m.route(f, from)
	switch {
	case m.isLocal(f.IP.Dst):
		m.Tracker.Step(f, policy.Routed, policy.Host)
	case !ok:
	case r.Bridge == "":
		at["x"] = m.Tracker.Step(f, policy.Routed, policy.Routed) // back where it came from
	default:
		spread(at, m.ports(r.Bridge, ""), func(to ...policy.Port) []policy.Verdict {
			return m.Tracker.StepAll([]policy.Frame{m.routedBy(f, r)}, policy.Routed, to...)
		})
	}
}

// ports lists those of a bridge, NICs first: a flow belongs to the first that
// takes it.
func (m *Model) ports(bridge, except string) (out []place) {
	for _, s := range m.layout.seats {
		if s.bridge == bridge && s.label != except {
			out = append(out, m.placeOf(s))
		}
	}
	return out
}

func (m *Model) isLocal(a netip.Addr) bool {
	for _, ps := range m.World.Bridges {
		if slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return true
		}
	}
	return slices.ContainsFunc(hostX, func(p netip.Prefix) bool { return p.Addr() == a })
}

// route says where the host sends a packet on that came from a bridge, or from
// x: by a route to a bridge, or with Bridge empty to x. Not ok: nowhere.
func (m *Model) route(f policy.Frame, from place) (r Route, ok bool) {
	if f.Family() == 0 || !f.PriorityTagged() || f.IP.HopLimit <= 1 || m.isLocal(f.IP.Src) {
		return r, false
	}
	for _, a := range []netip.Addr{f.IP.Src, f.IP.Dst} {
		if a.IsMulticast() || a.IsLoopback() || a == policy.Broadcast || a == netip.IPv4Unspecified() {
			return r, false
		}
	}
	if f.IP.Dst.IsUnspecified() || f.IP.Dst.Is6() && f.IP.Dst.IsLinkLocalUnicast() {
		return r, false
	}
	if i := slices.IndexFunc(m.World.Routes, func(r Route) bool { return r.Addr == f.IP.Dst }); i >= 0 {
		r = m.World.Routes[i]
	}
	// What stays on its link may come from a link-local address, and from none
	// (Linux, ip6_forward).
	stays := r.Bridge == from.bridge
	narrow := f.IP.Src.IsUnspecified() || f.IP.Src.Is6() && f.IP.Src.IsLinkLocalUnicast()
	return r, stays || !narrow
}

// routedBy is the frame as it leaves by a route.
func (m *Model) routedBy(f policy.Frame, r Route) policy.Frame {
	return f.Untagged().From(m.layout.router(r.Bridge)).To(r.MAC).WithHopLimit(f.IP.HopLimit - 1)
}

// Volley fires shots in order, all before looking, and says at which ports
// packets and evaluator disagree. Learn is to be off; see Unlearn.
func (r *Running) Volley(ctx context.Context, shots []Shot) error {
	var probes []lab.Probe
	var of []int // the shot of each probe
	want := make([]map[string]policy.Verdict, len(shots))
	for i, s := range shots {
		var err error
		if want[i], err = r.Flood(s); err != nil {
			return err
		}
		r.shots++
		token := fmt.Sprintf("shot-%d.", r.shots)
		frames, err := (Step{Frame: s.Frames[0], Fragments: s.fragments()}).encode(token)
		if err != nil {
			return fmt.Errorf("shot %d, %s: %w", i, s, err)
		}
		for _, f := range frames {
			p := lab.Probe{Name: s.String(), From: r.ports[s.From], Frame: f}
			if len(frames) > 1 {
				p.Match = lab.HasToken(token)
			}
			probes, of = append(probes, p), append(of, i)
		}
	}
	seen, err := r.watch.Send(ctx, probes...)
	if err != nil {
		return err
	}
	got := make([]map[string]bool, len(shots))
	for i, x := range seen {
		if got[of[i]] == nil {
			got[of[i]] = map[string]bool{}
		}
		for _, p := range x.Ports() {
			got[of[i]][r.labels[p]] = true
		}
	}
	for i, s := range shots {
		if err := r.disagreement(s, want[i], got[i]); err != nil {
			return fmt.Errorf("shot %d: %w", i, err)
		}
	}
	return nil
}

func (s Shot) fragments() []policy.Frame {
	if len(s.Frames) > 1 || s.Frames[0].Family() != 0 && !s.Frames[0].IP.Fragment.Whole() {
		return s.Frames
	}
	return nil
}

// Disagreement is what packets and evaluator say of a shot, at each port where
// they differ.
type Disagreement struct {
	Shot  Shot
	Leak  bool // something arrived that should not have
	Ports []string
}

func (d *Disagreement) Error() string {
	return d.Shot.String() + ": " + strings.Join(d.Ports, "; ")
}

// disagreement compares what should be seen with what was, port by port.
func (r *Running) disagreement(s Shot, want map[string]policy.Verdict, got map[string]bool) error {
	d := &Disagreement{Shot: s}
	for _, label := range slices.Sorted(maps.Keys(r.ports)) {
		v, asked := want[label]
		if label == "host" || label == "uplink" || v.Allowed == got[label] {
			continue
		}
		says := "it cannot come there"
		if asked {
			says = fmt.Sprintf("the evaluator says %v (sender row %d, receiver row %d)", v, v.Sender.Row, v.Receiver.Row)
		}
		d.Ports = append(d.Ports, fmt.Sprintf("at %s %s, on the wire: arrived is %v", label, says, got[label]))
		d.Leak = d.Leak || got[label]
	}
	if len(d.Ports) > 0 {
		return d
	}
	return nil
}

// Hail has the host's IP stack send a packet of its own to a neighbour.
func (r *Running) Hail(ctx context.Context, bridge string, f policy.Frame) error {
	want := map[string]policy.Verdict{}
	spread(want, r.Model.ports(bridge, ""), func(to ...policy.Port) []policy.Verdict {
		return r.Tracker.StepAll([]policy.Frame{f}, policy.Host, to...)
	})
	expected := 0
	for _, v := range want {
		if v.Allowed {
			expected++
		}
	}
	r.shots++
	labels, err := r.sendFromHost(ctx, bridge, f, fmt.Sprintf("shot-%d.", r.shots), func(at []string) bool { return expected > 0 && len(at) >= expected })
	if err != nil {
		return err
	}
	got := map[string]bool{}
	for _, l := range labels {
		got[l] = true
	}
	return r.disagreement(Shot{"host", []policy.Frame{f}}, want, got)
}

// Adopt puts another world on the same hardware, and forgets all flows.
func (r *Running) Adopt(ctx context.Context, w World) error {
	if err := r.Host.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	if err := r.Model.Reset(w); err != nil {
		return err
	}
	return r.Sync(ctx)
}

// Unlearn makes the bridges flood every frame, so that each is asked at every
// port.
func (r *Running) Unlearn() error {
	nl, err := r.Host.Links()
	if err != nil {
		return err
	}
	for _, s := range r.layout.seats {
		link, err := nl.LinkByName(s.device)
		if err == nil {
			err = nl.LinkSetLearning(link, false)
		}
		if err != nil {
			return fmt.Errorf("learning of %s: %w", s.device, err)
		}
	}
	return nil
}
