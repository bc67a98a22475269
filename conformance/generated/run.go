package generated

import (
	"context"
	"flag"
	"os"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy/policytest"
)

// Environment variables: how many policies are played, and from which seed.
const (
	policiesEnv, defaultPolicies = "CONFORMANCE_POLICIES", 200
	seedEnv                      = "CONFORMANCE_SEED"
)

// Run plays CONFORMANCE_POLICIES policies (200 by default) from CONFORMANCE_SEED
// (another one each time by default; it is printed) on a backend. A play that
// fails is cut down to what it takes to fail, and printed.
func Run(t *testing.T, target scenarios.Target) {
	n := number(t, policiesEnv, defaultPolicies)
	if testing.Short() {
		n = max(1, n/10)
	}
	shape := policytest.Shape{Bridges: bridges, NICs: places, Managed: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}}
	s := build(t, target, shape)
	shape.Only = s.Backend.Info().Features
	// rapid takes its numbers from flags alone.
	settings := map[string]string{"rapid.checks": strconv.Itoa(n), "rapid.nofailfile": "true", "rapid.shrinktime": "30s"}
	if seed := number(t, seedEnv, 0); seed != 0 {
		settings["rapid.seed"] = strconv.Itoa(seed)
	}
	for name, value := range settings {
		labtest.Check(t, flag.Set(name, value))
	}
	t.Logf("%d policies; should one fail, %s=<the -rapid.seed below> plays it first", n, seedEnv)
	var failed *Play // the last that did, which is the smallest that rapid found
	defer func() {
		if failed != nil {
			p, err := s.reduce(context.WithoutCancel(t.Context()), *failed)
			t.Logf("the smallest play that fails:\n%s%v", p, err)
		}
	}()
	plays := Plays(shape)
	rapid.Check(t, func(rt *rapid.T) {
		p := plays.Draw(rt, "play")
		if err := s.judge(t.Context(), t, p); err != nil {
			failed = &p
			rt.Fatal(err)
		}
	})
}

// reduce leaves out every event without which a play still fails.
func (s *stage) reduce(ctx context.Context, p Play) (Play, error) {
	err := s.play(ctx, p)
	for i := len(p.Events) - 1; i >= 0; i-- {
		less := Play{World: p.World, Events: slices.Delete(slices.Clone(p.Events), i, i+1)}
		if e := s.play(ctx, less); e != nil {
			p, err = less, e
		}
	}
	return p, err
}

func number(t *testing.T, env string, or int) int {
	t.Helper()
	text := os.Getenv(env)
	if text == "" {
		return or
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: not a number", env, text)
	}
	return n
}
