package live

import (
	"errors"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Late is the group that comes in Refusal.
const Late = "late"

// Refusal has the system refuse a part of a change, because another program has
// put something in the way of the group Late: obstruct, on a thread inside the
// host's network namespace. The error must name that group and no other object,
// and the former ruleset be in force, all of it. Sync clears the way.
func Refusal(t *testing.T, target scenarios.Target, obstruct func() error) {
	s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: []core.Rule{allow(core.Ingress, core.ProtocolTCP, 80, 80, nil)}})
	reach := func(changed bool) {
		t.Helper()
		m := lab.NewMatrix(s.a, s.b, s.u)
		for _, f := range core.Families {
			m.Expect("u", "b", lab.TCP(80).Over(f), !changed).Expect("u", "b", lab.TCP(22).Over(f), changed).Expect("a", "b", lab.TCP(25).Over(f), changed)
		}
		labtest.Verify(t, m)
	}
	labtest.Check(t, s.host.Do(obstruct))
	former := s.ruleset
	s.input.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, 22, 22, nil), allow(core.Ingress, core.ProtocolTCP, 25, 25, &core.Peers{Groups: []string{Late}})}
	s.input.Groups = append(s.input.Groups, core.Group{Name: Late})
	s.input.VMs[0].NICs[0].Groups = []string{"ga", Late}
	s.compile(t)

	err := s.backend.Apply(t.Context(), policy.Diff(former, s.ruleset))
	object := (*core.ObjectError)(nil)
	if !errors.As(err, &object) || !slices.Equal(slices.Compact(object.Groups), []string{Late}) || len(object.NICs) > 0 {
		t.Errorf("the error is %v, about %+v", err, object)
	}
	if o := labtest.Must(s.backend.Observe(t.Context()))(t); o.Fingerprint != former.Fingerprint {
		t.Errorf("after the refusal %s is in force, want %s", o.Fingerprint.Short(), former.Fingerprint.Short())
	}
	reach(false)
	labtest.Check(t, s.backend.Sync(t.Context(), s.ruleset.Ruleset))
	s.insync(t)
	reach(true)
}
