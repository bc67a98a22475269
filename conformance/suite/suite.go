// Package suite is what a backend must pass: all of conformance in one call.
package suite

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/generated"
	"github.com/ringwall/ringwall/conformance/live"
	"github.com/ringwall/ringwall/conformance/scenarios"
)

// RunAll plays every scenario, policies drawn at random, and real traffic under
// changes on a backend. Tests of what it cannot do, by its features, skip and say
// so. It takes some minutes, needs root, and works in namespaces of its own.
//
// A driver adds live.Foreign, with what other programs may do to its own state.
func RunAll(t *testing.T, target scenarios.Target) {
	t.Run("scenarios", func(t *testing.T) { scenarios.Run(t, target, scenarios.All()...) })
	t.Run("generated", func(t *testing.T) { generated.Run(t, target) })
	t.Run("no blink", func(t *testing.T) { live.NoBlink(t, target) })
	t.Run("recreation", func(t *testing.T) { live.Recreation(t, target) })
	t.Run("untracked", func(t *testing.T) { live.Untracked(t, target) })
	t.Run("masquerade", func(t *testing.T) { live.Masquerade(t, target) })
	t.Run("spanning tree", func(t *testing.T) { live.SpanningTree(t, target) })
	t.Run("revocation", func(t *testing.T) { live.Revocation(t, target) })
}
