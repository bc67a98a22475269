package plugins_test

import (
	"context"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
)

// The scenarios that the driver passes in process, across the boundary.
func TestNFTablesScenarios(t *testing.T) {
	program := plugintest.Build(t, "./ringwall-plugin-nftables")
	scenarios.Run(t, scenarios.Target{Start: func(ctx context.Context, t testing.TB) (core.BackendDriver, error) {
		p, err := plugintest.Start(ctx, t, program)
		if err != nil {
			return nil, err
		}
		return p.Backend(ctx)
	}}, scenarios.All()...)
}
