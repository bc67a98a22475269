package scenarios

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Model is what should happen: the evaluator's side of a running world. It
// sends nothing.
type Model struct {
	World   World
	Ruleset policy.Versioned
	Tracker *policy.Tracker

	layout layout
}

// NewModel compiles a world.
func NewModel(w World) (*Model, error) {
	m := &Model{layout: layoutOf(w)}
	return m, m.Reset(w)
}

// Reset puts another world on the same layout, and forgets all flows.
func (m *Model) Reset(w World) error {
	m.World = w.clone()
	if err := m.compile(); err != nil {
		return err
	}
	m.Tracker = policy.NewTracker(m.Ruleset.Ruleset)
	return nil
}

func (m *Model) compile() error {
	rs, err := policy.Compile(policy.Input{Options: m.World.Options, Groups: m.World.Groups, VMs: m.World.VMs})
	if err != nil {
		return fmt.Errorf("compile the world: %w", err)
	}
	m.Ruleset = policy.Version(rs)
	return nil
}

// clone keeps a scenario's world from the changes of its steps.
func (w World) clone() World {
	w.Groups, w.VMs = slices.Clone(w.Groups), slices.Clone(w.VMs)
	for i := range w.Groups {
		w.Groups[i].Rules = slices.Clone(w.Groups[i].Rules)
	}
	for i := range w.VMs {
		w.VMs[i].NICs = slices.Clone(w.VMs[i].NICs)
	}
	return w
}

// Change alters the world, and gives what leads from the old ruleset to the
// new one. Flows are not swept.
func (m *Model) Change(change func(*World)) (core.Delta, error) {
	old := m.Ruleset
	change(&m.World)
	if err := m.compile(); err != nil {
		return core.Delta{}, err
	}
	m.Tracker.SetRuleset(m.Ruleset.Ruleset)
	return policy.Diff(old, m.Ruleset), nil
}

// Judge asks the evaluator about a step's frame, and moves the tracker on.
func (m *Model) Judge(s Step) (policy.Verdict, error) {
	from, err := m.find(s.From)
	if err != nil {
		return policy.Verdict{}, err
	}
	to, err := m.find(s.To)
	switch {
	case err != nil:
		return policy.Verdict{}, err
	case from.unmanaged:
		return policy.Verdict{Allowed: true, Opinion: policy.Opinion{Pass: true, Reason: s.Reason}}, nil
	case s.Flooded:
		return m.flood(s, from)
	case !m.isRouted(s.First(), from, to):
		return m.step(s, from.port, to.port), nil
	case to.label == "x":
		return m.step(s, from.port, policy.Routed), nil // nobody there to be asked
	case from.label == "x":
		return m.stepFromX(s, to)
	case s.Fragments != nil:
		return policy.Verdict{}, errors.New("fragments from bridge to bridge are not modelled")
	}
	out, err := m.forwarded(s.Frame, to)
	if err != nil {
		return policy.Verdict{}, err
	}
	return m.Tracker.StepRouted(s.Frame, out, from.port, to.port), nil
}

// flood judges a step's frame at every port.
func (m *Model) flood(s Step, from place) (policy.Verdict, error) {
	all, err := m.Flood(Shot{from.label, []policy.Frame{s.Frame}})
	return all[s.To], err
}

func (m *Model) step(s Step, from, to policy.Port) policy.Verdict {
	if s.Fragments != nil {
		return m.Tracker.StepDatagram(s.Fragments, from, to)
	}
	return m.Tracker.Step(s.Frame, from, to)
}

// stepFromX: what comes from behind the host is first asked on its way out.
func (m *Model) stepFromX(s Step, to place) (v policy.Verdict, err error) {
	if s.Fragments == nil {
		s.Frame, err = m.forwarded(s.Frame, to)
		return m.step(s, policy.Routed, to.port), err
	}
	s.Fragments = slices.Clone(s.Fragments)
	for i := range s.Fragments {
		if s.Fragments[i], err = m.forwarded(s.Fragments[i], to); err != nil {
			return v, err
		}
	}
	return m.step(s, policy.Routed, to.port), nil
}

// isRouted: the frame goes to the router's MAC, and on from there.
func (m *Model) isRouted(f policy.Frame, from, to place) bool {
	if to.isHost() || from.isHost() || f.IP == nil {
		return false
	}
	return from.port.Kind == policy.PortRouted || f.Dst == m.layout.router(from.bridge)
}

// forwarded is what a packet that the host routes becomes on its way out.
func (m *Model) forwarded(f policy.Frame, to place) (policy.Frame, error) {
	mac, ok := m.World.neighbours()[site{to.bridge, f.IP.Dst}]
	if !ok {
		return f, fmt.Errorf("the host has no neighbour %s on %s", f.IP.Dst, to.bridge)
	}
	return f.Untagged().From(m.layout.router(to.bridge)).To(mac).WithHopLimit(f.IP.HopLimit - 1), nil
}

// Describe prints the ruleset, a line for each of its parts.
func (m *Model) Describe() string {
	var b strings.Builder
	rs := m.Ruleset.Ruleset
	fmt.Fprintf(&b, "options: %+v\n", rs.Options)
	for _, name := range slices.Sorted(maps.Keys(rs.Groups)) {
		fmt.Fprintf(&b, "group %s:\n", name)
		for _, e := range rs.Groups[name].Entries {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rs.Sets)) {
		fmt.Fprintf(&b, "members of %s: %v\n", name, rs.Sets[name].Members)
	}
	for _, k := range slices.SortedFunc(maps.Keys(rs.NICs), func(a, b core.NICKey) int { return strings.Compare(a.String(), b.String()) }) {
		n := rs.NICs[k]
		fmt.Fprintf(&b, "nic %s %v on %s, %s, addresses %v, pairs %v, groups %v", k, n.Devices, n.Bridge, n.Kind, n.Addresses, n.Pairs, n.Groups)
		for _, f := range core.Families {
			if n.EgressDeny(f) {
				fmt.Fprintf(&b, ", %s egress by rules", f)
			}
		}
		if n.SpoofingAllowed {
			b.WriteString(", spoofing allowed")
		}
		b.WriteString("\n")
	}
	return b.String()
}
