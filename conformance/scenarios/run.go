package scenarios

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Target is a backend under test.
type Target struct {
	Driver   core.BackendDriver
	Settings core.Settings
}

// Run plays the scenarios on a backend, each in a host of its own.
func Run(t *testing.T, target Target, all ...Scenario) {
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			for _, f := range s.Needs {
				if !slices.Contains(target.Driver.Info().Features, f) {
					t.Skipf("the driver lacks the feature %s", f)
				}
			}
			r := Start(t, target, s.World)
			for i, step := range s.Steps {
				if err := r.Step(t.Context(), i, step); err != nil {
					t.Errorf("step %d %s: %v", i, step.Name, err)
				}
			}
			if t.Failed() {
				t.Log(r.describe())
			}
		})
	}
}

// Running is a world that was built, with a backend that enforces it and the
// tracker that says what should happen.
type Running struct {
	t       testing.TB
	Host    *labtest.Host
	Backend core.SecurityGroupBackend
	World   World
	Tracker *policy.Tracker
	// Router is the MAC of each bridge: where frames to the host go.
	Router map[string]core.MAC

	ruleset policy.Versioned
	ports   map[string]*lab.Port
	model   map[string]policy.Port
	bridge  map[string]string // of a port
	watch   *lab.Observatory
}

// Start builds a world and has the backend enforce it.
func Start(t testing.TB, target Target, w World) *Running {
	t.Helper()
	r := &Running{t: t, World: w, ports: map[string]*lab.Port{}, model: map[string]policy.Port{},
		bridge: map[string]string{}, Router: map[string]core.MAC{}}
	r.Host = labtest.New(t, lab.Options{Forwarding: w.Routed})
	r.plug()
	labtest.Check(t, r.Host.Do(func() (err error) {
		r.Backend, err = target.Driver.Open(context.WithoutCancel(t.Context()), target.Settings)
		return err
	}))
	t.Cleanup(func() {
		if err := r.Backend.Close(); err != nil {
			t.Error(err)
		}
	})
	r.ruleset = r.compile()
	labtest.Check(t, r.Backend.Sync(t.Context(), r.ruleset.Ruleset))
	r.Tracker = policy.NewTracker(r.ruleset.Ruleset)
	return r
}

func (r *Running) compile() policy.Versioned {
	rs, err := policy.Compile(policy.Input{Options: r.World.Options, Groups: r.World.Groups, VMs: r.World.VMs})
	labtest.Check(r.t, err)
	return policy.Version(rs)
}

// plug makes bridges and stations. All stations are mute: only crafted frames
// move.
func (r *Running) plug() {
	bridges := map[string][]netip.Prefix{"br0": nil}
	for name, addrs := range r.World.Bridges {
		bridges[name] = addrs
	}
	if len(r.World.Unmanaged) > 0 {
		bridges["other0"] = nil
	}
	names := make([]string, 0, len(bridges))
	for name := range bridges {
		names = append(names, name)
	}
	slices.Sort(names)
	var specs []lab.StationSpec
	add := func(label string, p lab.PortSpec) {
		specs = append(specs, lab.StationSpec{Name: label, Mute: true, Ports: []lab.PortSpec{p}})
	}
	for i, name := range names {
		mac := core.MAC{2, 0, 0, 0, 0xfe, byte(i)}
		r.Router[name] = mac
		r.Host.AddBridge(lab.BridgeSpec{Name: name, MAC: mac, Addresses: bridges[name], NoSnooping: true})
		label := "uplink:" + name
		r.place(label, name, policy.Uplink)
		add(label, lab.PortSpec{Bridge: name, Device: fmt.Sprintf("eth%d", i), MAC: core.MAC{2, 0, 0, 0, 0xfd, byte(i)}})
	}
	for _, vm := range r.World.VMs {
		for _, n := range vm.NICs {
			for _, d := range n.Binding.Devices {
				r.place(d, n.Binding.Bridge, policy.AtNIC(core.NICKey{VM: vm.Key, MAC: n.MAC}))
				add(d, lab.PortSpec{Bridge: n.Binding.Bridge, Device: d, MAC: n.MAC})
			}
		}
	}
	for i, d := range r.World.Closed {
		r.place(d, "br0", policy.Closed)
		add(d, lab.PortSpec{Bridge: "br0", Device: d, MAC: core.MAC{2, 0, 0, 0, 0xfc, byte(i)}})
	}
	for i, d := range r.World.Plain {
		r.place(d, "br0", policy.Uplink)
		add(d, lab.PortSpec{Bridge: "br0", Device: d, MAC: core.MAC{2, 0, 0, 0, 0xfb, byte(i)}})
	}
	for i, d := range r.World.Unmanaged {
		r.bridge[d] = "other0"
		add(d, lab.PortSpec{Bridge: "other0", Device: d, MAC: core.MAC{2, 0, 0, 0, 0xfa, byte(i)}})
	}
	if r.World.Routed {
		r.place("x", "", policy.Routed)
		add("x", lab.PortSpec{Device: "eth99", MAC: core.MAC{2, 0, 0, 0, 0xf9, 0},
			HostAddresses: prefixes("192.0.2.254/24", "2001:db8:99::fe/64"), Addresses: prefixes("192.0.2.9/24", "2001:db8:99::9/64")})
	}
	for i, s := range r.Host.AddStations(specs...) {
		r.ports[specs[i].Name] = s.Port(0)
	}
	r.ports["uplink"], r.model["uplink"], r.bridge["uplink"] = r.ports["uplink:br0"], policy.Uplink, "br0"
	r.ports["host"], r.model["host"] = r.Host.Stack(), policy.Host
	var watched []*lab.Port
	for _, p := range r.ports {
		if !slices.Contains(watched, p) {
			watched = append(watched, p)
		}
	}
	r.watch = labtest.Observe(r.t, watched...)
}

func (r *Running) place(label, bridge string, p policy.Port) {
	r.model[label], r.bridge[label] = p, bridge
}

func prefixes(all ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, s := range all {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Step plays one step. The error says in what the table, the evaluator and the
// packets disagree.
func (r *Running) Step(ctx context.Context, i int, s Step) error {
	switch {
	case s.Change != nil:
		return r.Change(ctx, s.Change)
	case s.Act != nil:
		return s.Act(r)
	}
	from, to := r.ports[s.From], r.ports[s.To]
	if from == nil || to == nil {
		return fmt.Errorf("no port %q or %q", s.From, s.To)
	}
	token := fmt.Sprintf("step-%d-%s", i, s.Name)
	probes, whole, err := r.probes(s, from, token)
	if err != nil {
		return err
	}
	verdict := policy.Verdict{Allowed: true, Opinion: policy.Opinion{Reason: s.Reason}} // of a bridge that is not ours
	if r.bridge[s.From] == "other0" {
	} else if s.Fragments != nil {
		verdict = r.Tracker.StepDatagram(s.Fragments, r.model[s.From], r.model[s.To])
	} else {
		verdict = r.Tracker.Step(whole, r.model[s.From], r.model[s.To])
	}
	seen, err := r.watch.Send(ctx, probes...)
	if err != nil {
		return err
	}
	arrived := slices.ContainsFunc(seen, func(x lab.Sighting) bool { return x.At(to) })
	var wrong []string
	if verdict.Allowed != s.Want {
		wrong = append(wrong, fmt.Sprintf("the evaluator says %v", verdict))
	}
	if s.Reason != "" && verdict.Reason != s.Reason {
		wrong = append(wrong, fmt.Sprintf("the evaluator's reason is %s, not %s", verdict.Reason, s.Reason))
	}
	if arrived != s.Want {
		wrong = append(wrong, fmt.Sprintf("on the wire: arrived is %v", arrived))
	}
	wrong = append(wrong, r.leaks(s, whole, seen, from, to)...)
	if len(wrong) > 0 {
		return fmt.Errorf("%s from %s to %s, want %v: %s", whole, s.From, s.To, s.Want, strings.Join(wrong, "; "))
	}
	return nil
}

func (r *Running) probes(s Step, from *lab.Port, token string) ([]lab.Probe, policy.Frame, error) {
	frames := []frame.Frame{}
	whole := s.Frame
	if s.Fragments != nil {
		var err error
		if frames, err = encodeDatagram(s.Fragments, token); err != nil {
			return nil, whole, err
		}
		whole = s.Fragments[0]
	} else {
		b, err := Encode(s.Frame, token)
		if err != nil {
			return nil, whole, err
		}
		frames = append(frames, b)
	}
	var probes []lab.Probe
	for i, b := range frames {
		if s.Raw != nil {
			b = s.Raw(b)
		}
		p := lab.Probe{Name: fmt.Sprintf("%s/%d", s.Name, i), From: from, Frame: b}
		if s.Fragments != nil {
			p.Match = lab.HasToken(token)
		}
		probes = append(probes, p)
	}
	return probes, whole, nil
}

// leaks looks at every other port that the frame came to: the evaluator must
// allow it there as well.
func (r *Running) leaks(s Step, f policy.Frame, seen []lab.Sighting, from, to *lab.Port) []string {
	if s.Fragments != nil {
		return nil
	}
	var out []string
	for label, port := range r.ports {
		if port == to || port == from || label == "host" || label == "uplink" || r.model[label].Kind == policy.PortRouted {
			continue
		}
		if r.bridge[label] == "other0" || !slices.ContainsFunc(seen, func(x lab.Sighting) bool { return x.At(port) }) {
			continue
		}
		if r.bridge[label] != r.bridge[s.From] {
			continue // routed on: another frame
		}
		if v := policy.Evaluate(r.ruleset.Ruleset, f, r.model[s.From], r.model[label], policy.StateNew); !v.Allowed {
			out = append(out, fmt.Sprintf("it leaked to %s, where the evaluator says %v", label, v))
		}
	}
	return out
}

// Change alters the world, tells the backend by difference, and sweeps.
func (r *Running) Change(ctx context.Context, change func(*World)) error {
	change(&r.World)
	next := r.compile()
	delta := policy.Diff(r.ruleset, next)
	if !delta.Empty() {
		if err := r.Backend.Apply(ctx, delta); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	r.ruleset = next
	r.Tracker.SetRuleset(next.Ruleset)
	r.Tracker.Sweep()
	o, err := r.Backend.Observe(ctx)
	if err != nil {
		return err
	}
	if len(o.Drift) > 0 || o.Fingerprint != next.Fingerprint {
		return fmt.Errorf("after the change the backend observes fingerprint %s, want %s, drift %+v", o.Fingerprint.Short(), next.Fingerprint.Short(), o.Drift)
	}
	return r.Sweep(ctx)
}

// Sweep revokes and gives back flows, until none is left to.
func (r *Running) Sweep(ctx context.Context) error {
	b, ok := r.Backend.(core.FlowBackend)
	if !ok {
		return nil
	}
	for {
		flows, err := b.Flows(ctx)
		if err != nil {
			return err
		}
		revoke, restore := policy.StaleFlows(r.ruleset.Ruleset, flows)
		n, err := b.RevokeFlows(ctx, revoke, restore)
		if err != nil || n == 0 {
			return err
		}
	}
}

// Port finds a port by its label.
func (r *Running) Port(label string) *lab.Port { return r.ports[label] }

func (r *Running) describe() string {
	counters, err := r.Backend.Counters(context.Background())
	var b strings.Builder
	fmt.Fprintf(&b, "counters (%v):\n", err)
	for _, c := range counters {
		if c.Packets > 0 && c.Reason != core.ReasonPassed {
			fmt.Fprintf(&b, "  %-8s %-8s %-14s %d\n", c.Device, c.Direction, c.Reason, c.Packets)
		}
	}
	return b.String()
}
