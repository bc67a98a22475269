package scenarios

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// Target is a backend under test.
type Target struct {
	// Driver makes backends. Open is called on a thread inside the network
	// namespace of the host that is to be enforced on.
	Driver   core.BackendDriver
	Settings core.Settings
	// Start, when set, gives the driver for a host, in Driver's place. It is
	// called on a thread inside the host's network namespace, so that a process
	// that it starts there (a plugin) lives in it. It ends with t.
	Start func(ctx context.Context, t testing.TB) (core.BackendDriver, error)
}

// Open starts the target in a host of the lab.
func (g Target) Open(ctx context.Context, t testing.TB, h *labtest.Host) (b core.SecurityGroupBackend, err error) {
	// What is opened outlives the call, and the test's context ends before its
	// cleanups.
	ctx = context.WithoutCancel(ctx)
	err = h.Do(func() error {
		d := g.Driver
		if g.Start != nil {
			if d, err = g.Start(ctx, t); err != nil {
				return fmt.Errorf("start the driver: %w", err)
			}
		}
		b, err = d.Open(ctx, g.Settings)
		return err
	})
	return b, err
}

// Lacks names the first of the features that a backend does not have.
func Lacks(b core.SecurityGroupBackend, need ...core.Feature) (core.Feature, bool) {
	for _, f := range need {
		if !slices.Contains(b.Info().Features, f) {
			return f, true
		}
	}
	return "", false
}

// SkipWithout skips the test when the backend lacks a feature that it is about.
func SkipWithout(t testing.TB, b core.SecurityGroupBackend, need ...core.Feature) {
	t.Helper()
	if f, lacks := Lacks(b, need...); lacks {
		t.Skipf("the backend lacks the feature %s", f)
	}
}
