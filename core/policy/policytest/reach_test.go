package policytest_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
	"pgregory.net/rapid"
)

type drawn struct {
	world   policytest.World
	passage policytest.Passage
	state   policy.State
}

// A generator that never reaches a row tests nothing of it.
func TestPassagesReachEveryRow(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) drawn {
		w := policytest.Worlds(policytest.Shape{}).Draw(t, "world")
		return drawn{w, w.Passages().Draw(t, "passage"), policytest.States().Draw(t, "state")}
	})
	sender, receiver, allowed := map[int]int{}, map[int]int{}, 0
	const draws = 8000
	for seed := range draws {
		d := draw.Example(seed)
		v := policy.Evaluate(d.world.Ruleset, d.passage.Frame, d.passage.From, d.passage.To, d.state)
		sender[v.Sender.Row]++
		receiver[v.Receiver.Row]++
		if v.Allowed {
			allowed++
		}
	}
	for row := 1; row <= 26; row++ {
		// 12 is for fragments; 11 decides by dropping, as 10 does.
		if sender[row] == 0 && row != 12 {
			t.Errorf("sender row %d was never reached", row)
		}
	}
	for row := 1; row <= 17; row++ {
		if receiver[row] == 0 {
			t.Errorf("receiver row %d was never reached", row)
		}
	}
	if allowed < draws/10 || allowed > draws*9/10 {
		t.Errorf("%d of %d frames pass; one kind of verdict hardly ever happens", allowed, draws)
	}
	t.Log(show("sender", sender), show("receiver", receiver), allowed)
}

func show(side string, rows map[int]int) string {
	s := side
	for _, r := range slices.Sorted(maps.Keys(rows)) {
		s += fmt.Sprintf(" %d:%d", r, rows[r])
	}
	return s
}

// A world for a backend that can do little needs no more than that.
func TestWorldsNeedOnlyWhatTheyMay(t *testing.T) {
	little := []core.Feature{core.FeatureIPv4, core.FeatureAntiSpoof}
	optional := []core.Feature{core.FeatureIPv6, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP, core.FeatureProtocols,
		core.FeatureRemoteGroups, core.FeatureNoAntiSpoof, core.FeaturePairs, core.FeatureMultiNIC, core.FeatureSystemVM,
		core.FeatureMulticast, core.FeatureFailClosed}
	rapid.Check(t, func(t *rapid.T) {
		only := slices.Concat(little, rapid.SliceOfDistinct(rapid.SampledFrom(optional), rapid.ID[core.Feature]).Draw(t, "features"))
		w := policytest.Worlds(policytest.Shape{Only: only}).Draw(t, "world")
		for range 3 {
			if err := core.CheckFeatures("test", only, w.Ruleset); err != nil {
				t.Fatal(err)
			}
			p := w.Passages().Draw(t, "passage")
			if p.Frame.Family() == core.IPv6 && !slices.Contains(only, core.FeatureIPv6) {
				t.Errorf("an IPv6 packet for a backend without: %v", p.Frame)
			}
			w = w.Change().Draw(t, "change")
		}
	})
}
