package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
	"pgregory.net/rapid"
)

func drawWorld(t *rapid.T) policytest.World {
	return policytest.Worlds(policytest.Shape{}).Draw(t, "world")
}

func TestWorldsAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for range 3 {
			if err := core.Validate(w.Input.Groups, w.Input.VMs); err != nil {
				t.Fatal(err)
			}
			w = w.Change().Draw(t, "change")
		}
	})
}

func TestCompileOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		got, err := policy.Compile(shuffled(r, w.Input))
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(w.Ruleset, got); d != "" {
			t.Error(d)
		}
		if got.Fingerprint() != w.Ruleset.Fingerprint() {
			t.Error("equal rulesets with different fingerprints")
		}
	})
}

func shuffled(r *rand.Rand, in policy.Input) policy.Input {
	in = policytest.Clone(in)
	shuffle(r, in.Groups)
	shuffle(r, in.VMs)
	for i := range in.Groups {
		shuffle(r, in.Groups[i].Rules)
		for j := range in.Groups[i].Rules {
			rule := &in.Groups[i].Rules[j]
			rule.Ports = shuffle(r, slices.Clone(rule.Ports))
			if p := rule.Peers; p != nil {
				rule.Peers = &core.Peers{CIDRs: shuffle(r, slices.Clone(p.CIDRs)), Groups: shuffle(r, slices.Clone(p.Groups))}
			}
		}
	}
	for i := range in.VMs {
		shuffle(r, in.VMs[i].NICs)
		for j := range in.VMs[i].NICs {
			n := &in.VMs[i].NICs[j]
			n.Addresses = shuffle(r, slices.Clone(n.Addresses))
			n.Pairs = shuffle(r, slices.Clone(n.Pairs))
			n.Groups = shuffle(r, slices.Clone(n.Groups))
		}
	}
	return in
}

func shuffle[T any](r *rand.Rand, s []T) []T {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

func TestNormalForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := drawWorld(t).Ruleset
		for name, g := range rs.Groups {
			for i, e := range g.Entries {
				if e.Peer.Group == "" && (e.Peer.Prefix != e.Peer.Prefix.Masked() || core.FamilyOf(e.Peer.Prefix.Addr()) != e.Family) {
					t.Errorf("%s: prefix of %v", name, e)
				}
				if _, ok := rs.Sets[e.Peer.Group]; e.Peer.Group != "" && (!ok || e.Peer.Prefix.IsValid()) {
					t.Errorf("%s: remote group of %v", name, e)
				}
				if !e.Protocol.In(e.Family) || e.Span != core.AnySpan && !e.Protocol.HasPorts() && !e.Protocol.IsICMP() {
					t.Errorf("%s: protocol of %v", name, e)
				}
				if i == 0 {
					continue
				}
				last := g.Entries[i-1]
				if last.Compare(e) >= 0 {
					t.Errorf("%s: %v before %v", name, last, e)
				}
				same := last
				same.Span = e.Span
				if same == e && int(e.Span.First) <= int(last.Span.Last)+1 {
					t.Errorf("%s: %v and %v are one", name, last, e)
				}
			}
		}
		for k, n := range rs.NICs {
			for _, g := range n.Groups {
				if _, ok := rs.Groups[g]; !ok {
					t.Errorf("%s refers to %s, which is not there", k, g)
				}
			}
		}
		for name, s := range rs.Sets {
			if !slices.IsSortedFunc(s.Members, netip.Addr.Compare) || len(slices.Compact(slices.Clone(s.Members))) != len(s.Members) {
				t.Errorf("set %s: %v", name, s.Members)
			}
		}
	})
}

func TestDiffThenApplyIsTheNewRuleset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		next := w
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			next = next.Change().Draw(t, "change")
		}
		from, to := policy.Version(w.Ruleset), policy.Version(next.Ruleset)
		d := policy.Diff(from, to)
		got, err := d.Apply(w.Ruleset, from.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		if x := diff(to.Ruleset, got); x != "" {
			t.Error(x)
		}
		if got.Fingerprint() != d.To {
			t.Error("the delta names another fingerprint than it leads to")
		}
		if d.Empty() != (from.Fingerprint == to.Fingerprint) {
			t.Errorf("empty: %v, though fingerprints say otherwise", d.Empty())
		}
		if !policy.Diff(to, to).Empty() {
			t.Error("a ruleset differs from itself")
		}
	})
}

// Rules only allow: one more never takes away, but for egress rules that close
// the default of their family.
func TestAddingARuleNeverDenies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		more := policytest.Clone(w.Input)
		r := w.Shape.Rule([]string{"g0"}).Draw(t, "rule")
		g := &more.Groups[rapid.IntRange(0, len(more.Groups)-1).Draw(t, "group")]
		g.Rules = append(g.Rules, r)
		after, err := policy.Compile(more)
		if err != nil {
			t.Fatal(err)
		}
		p := w.Passages().Draw(t, "passage")
		state := policytest.States().Draw(t, "state")
		before := policy.Evaluate(w.Ruleset, p.Frame, p.From, p.To, state)
		now := policy.Evaluate(after, p.Frame, p.From, p.To, state)
		flipped := before.Sender.Reason == core.ReasonDefault && r.Direction == core.Egress && now.Sender.Reason == core.ReasonEgressRules
		if before.Allowed && !now.Allowed && !flipped {
			t.Errorf("%v: %v, with the rule %v: %v", p.Frame, before, r, now)
		}
	})
}

// Nothing that anti-spoofing, the guards or a revocation forbid passes for any
// rules.
func TestRulesNeverOutweighGuards(t *testing.T) {
	guards := []core.Reason{core.ReasonClosedPort, core.ReasonEtherType, core.ReasonVLAN, core.ReasonLinkLocal, core.ReasonMACSpoof,
		core.ReasonIPSpoof, core.ReasonARPSpoof, core.ReasonNDSpoof, core.ReasonRAGuard, core.ReasonDHCPGuard, core.ReasonDestination,
		core.ReasonRevoked, core.ReasonInvalid, core.ReasonNotOwner, core.ReasonUnfiltered}
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		p := w.Passages().Draw(t, "passage")
		state := policytest.States().Draw(t, "state")
		before := policy.Evaluate(w.Ruleset, p.Frame, p.From, p.To, state)
		open := policytest.Clone(w.Input)
		for i := range open.Groups {
			open.Groups[i].Rules = []core.Rule{{Direction: core.Ingress, Protocol: core.AnyProtocol}, {Direction: core.Egress, Protocol: core.AnyProtocol}}
		}
		rs, err := policy.Compile(open)
		if err != nil {
			t.Fatal(err)
		}
		if now := policy.Evaluate(rs, p.Frame, p.From, p.To, state); slices.Contains(guards, before.Reason) && now.Allowed {
			t.Errorf("%v: %v, with open rules: %v", p.Frame, before, now)
		}
	})
}

// CountOnly passes everything that is whole, and names the same culprit.
func TestCountOnlyNamesTheSameReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		p := w.Passages().Draw(t, "passage")
		state := policytest.States().Draw(t, "state")
		strict := policy.Evaluate(w.Ruleset, p.Frame, p.From, p.To, state)
		w.Ruleset.Options.CountOnly = true
		lax := policy.Evaluate(w.Ruleset, p.Frame, p.From, p.To, state)
		if !lax.Allowed || lax.WouldDrop == strict.Allowed || lax.Reason != strict.Reason || lax.At != strict.At {
			t.Errorf("%v: strict %v, counted %v", p.Frame, strict, lax)
		}
	})
}

// The rule that a verdict names is one that a user wrote, on a group of the NIC
// that was asked.
func TestVerdictsNameRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		p := w.Passages().Draw(t, "passage")
		v := policy.Evaluate(w.Ruleset, p.Frame, p.From, p.To, policy.StateNew)
		for o, port := range map[policy.Opinion]policy.Port{v.Sender: p.From, v.Receiver: p.To} {
			if (o.Reason == core.ReasonRule) != (o.Rule != nil) {
				t.Errorf("reason %s with rule %v", o.Reason, o.Rule)
			}
			if o.Rule == nil {
				continue
			}
			if !slices.Contains(w.Ruleset.NICs[port.NIC].Groups, o.Rule.Group) {
				t.Errorf("%v is no rule of %v", o.Rule, port)
			}
			if len(policy.RuleOf(w.Input.Groups, *o.Rule)) == 0 {
				t.Errorf("no user's rule for %v", o.Rule)
			}
		}
	})
}
