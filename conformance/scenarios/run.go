package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Run plays the scenarios on a backend, each in a host of its own.
func Run(t *testing.T, target Target, all ...Scenario) {
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			r := Start(t, target, s.World)
			needs, err := s.features()
			if err != nil {
				t.Fatal(err)
			}
			SkipWithout(t, r.Backend, needs...)
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, step := range s.Steps {
				if err := r.Step(t.Context(), i, step); err != nil {
					t.Errorf("step %d %s: %v", i, step.Name, err)
				}
			}
			if t.Failed() {
				t.Log(r.Describe())
			}
		})
	}
}

// features are those that the scenario says it needs, and those that its
// rulesets need from beginning to end.
func (s Scenario) features() ([]core.Feature, error) {
	m, err := NewModel(s.World)
	if err != nil {
		return nil, err
	}
	needs := slices.Concat(s.Needs, m.Ruleset.Ruleset.RequiredFeatures())
	for _, step := range s.Steps {
		if step.Change == nil {
			continue
		}
		if _, err := m.Change(step.Change); err != nil {
			return nil, fmt.Errorf("%s: %w", step.Name, err)
		}
		needs = append(needs, m.Ruleset.Ruleset.RequiredFeatures()...)
	}
	return needs, nil
}

// Step plays one step. The error says in what the table, the evaluator and the
// packets disagree.
func (r *Running) Step(ctx context.Context, i int, s Step) error {
	switch {
	case s.Change != nil:
		return r.Change(ctx, s.Change)
	case s.Restart:
		return r.Restart(ctx)
	case s.Netfilter != nil:
		return r.switchNetfilter(ctx, *s.Netfilter)
	}
	verdict, err := r.Judge(s)
	if err != nil {
		return err
	}
	drops := !verdict.Allowed || verdict.WouldDrop
	if !drops {
		r.last = nil // what passes is not looked up, and may be counted elsewhere
	} else if r.last == nil {
		if r.last, err = r.counted(ctx); err != nil {
			return err
		}
	}
	seen, err := r.deliver(ctx, s, fmt.Sprintf("step-%d", i))
	if err != nil {
		return err
	}
	to, err := r.find(s.To)
	if err != nil {
		return err
	}
	arrived := slices.Contains(seen, to.label)
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
	wrong = append(wrong, r.leaks(s, seen)...)
	if drops {
		before := r.last
		if r.last, err = r.counted(ctx); err != nil {
			return err
		}
		if complaint := r.miscounted(s, verdict, before, r.last); complaint != "" {
			wrong = append(wrong, complaint)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s from %s to %s, want %v: %s", s.First(), s.From, s.To, s.Want, strings.Join(wrong, "; "))
	}
	return nil
}

// First is the frame, or the first fragment.
func (s Step) First() policy.Frame {
	if s.Fragments != nil {
		return s.Fragments[0]
	}
	return s.Frame
}

// deliver sends a step's frames and says at which ports they came in.
func (r *Running) deliver(ctx context.Context, s Step, token string) ([]string, error) {
	if s.From == "host" {
		return r.deliverFromHost(ctx, s, token)
	}
	from := r.ports[s.From]
	if from == nil || r.ports[s.To] == nil {
		return nil, fmt.Errorf("no port %q or %q", s.From, s.To)
	}
	frames, err := s.encode(token)
	if err != nil {
		return nil, err
	}
	probes := make([]lab.Probe, len(frames))
	for i, f := range frames {
		probes[i] = lab.Probe{Name: fmt.Sprintf("%s/%d", s.Name, i), From: from, Frame: f}
		switch {
		case s.Fragments != nil:
			probes[i].Match = lab.HasToken(token)
		case s.Pieces != nil:
			probes[i].Match = sameEnds6(f)
		}
	}
	seen, err := r.watch.Send(ctx, probes...)
	if err != nil {
		return nil, err
	}
	var labels []string
	for _, x := range seen {
		for _, p := range x.Ports() {
			labels = append(labels, r.labels[p])
		}
	}
	return labels, nil
}

func (s Step) encode(token string) ([]frame.Frame, error) {
	var frames []frame.Frame
	var err error
	if s.Fragments != nil {
		frames, err = EncodeDatagram(s.Fragments, token)
	} else {
		var f frame.Frame
		f, err = Encode(s.Frame, token)
		frames = append(frames, f)
	}
	if s.Raw != nil {
		for i := range frames {
			frames[i] = s.Raw(frames[i])
		}
	}
	if s.Pieces != nil && err == nil {
		frames = s.Pieces(frames[0])
	}
	return frames, err
}

// sameEnds6 matches every IPv6 packet from and to the same addresses: pieces
// may come out in another number.
func sameEnds6(f frame.Frame) func(lab.Captured) bool {
	const src, end = 8, 40 // in the IPv6 header
	return func(c lab.Captured) bool {
		b := c.Frame.Body()
		return c.Frame.EtherType() == frame.TypeIPv6 && len(b) >= end && bytes.Equal(b[src:end], f.Body()[src:end])
	}
}

// leaks looks at every other port that the frame came to: the evaluator must
// allow it there as well.
func (r *Running) leaks(s Step, seen []string) []string {
	from, err := r.find(s.From)
	if err != nil || s.Fragments != nil {
		return nil
	}
	var out []string
	for _, label := range seen {
		at, err := r.find(label)
		if err != nil || label == from.label || label == s.To || at.unmanaged || at.isHost() || at.bridge != from.bridge || r.isRouted(s.Frame, from, at) {
			continue
		}
		if v := policy.Evaluate(r.Ruleset.Ruleset, s.Frame, from.port, at.port, policy.StateNew); !v.Allowed {
			out = append(out, fmt.Sprintf("it leaked to %s, where the evaluator says %v", label, v))
		}
	}
	return out
}

// tally is what a backend counted, in packets.
type tally map[counterKey]uint64

type counterKey struct {
	nic       core.NICKey
	device    string // of a closed port
	direction core.Direction
	reason    core.Reason
}

func (r *Running) counted(ctx context.Context) (tally, error) {
	if _, lacks := Lacks(r.Backend, core.FeatureCounters); lacks || r.stopped {
		return nil, nil
	}
	cs, err := r.Backend.Counters(ctx)
	if err != nil {
		return nil, fmt.Errorf("counters: %w", err)
	}
	t := tally{}
	for _, c := range cs {
		k := counterKey{c.NIC, "", c.Direction, c.Reason}
		if c.NIC == (core.NICKey{}) {
			k.device = c.Device
		}
		t[k] += c.Packets
	}
	return t, nil
}

// miscounted says whether a port that dropped a frame, or would have, did so
// for another reason than the evaluator's. Fragments may be dropped in pieces.
func (r *Running) miscounted(s Step, v policy.Verdict, before, after tally) string {
	if before == nil || s.Fragments != nil || s.Pieces != nil || s.Uncounted {
		return ""
	}
	k := counterKey{direction: core.Ingress, reason: v.Reason}
	label := s.To
	if v.At == policy.AtSender {
		k.direction, label = core.Egress, s.From
	}
	at, err := r.find(label)
	if err != nil {
		return err.Error()
	}
	switch at.port.Kind {
	case policy.PortNIC:
		k.nic = at.port.NIC
	case policy.PortClosed:
		k.device = label
	default:
		return ""
	}
	if after[k] > before[k] {
		return ""
	}
	var grew []string
	for k, n := range after {
		if n > before[k] && k.reason != core.ReasonPassed {
			grew = append(grew, fmt.Sprintf("%s %s at %s%s", k.direction, k.reason, k.nic, k.device))
		}
	}
	slices.Sort(grew)
	return fmt.Sprintf("%s was not counted at %s, but %v", v.Reason, label, grew)
}

// Describe says what is wanted, and what was counted.
func (r *Running) Describe() string {
	var b strings.Builder
	b.WriteString(r.Model.Describe())
	counters, err := r.Backend.Counters(context.Background())
	fmt.Fprintf(&b, "counters (%v):\n", err)
	for _, c := range counters {
		if c.Packets > 0 && c.Reason != core.ReasonPassed {
			fmt.Fprintf(&b, "  %-8s %-8s %-14s %d\n", c.Device, c.Direction, c.Reason, c.Packets)
		}
	}
	return b.String()
}
