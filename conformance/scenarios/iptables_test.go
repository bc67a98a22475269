package scenarios_test

import (
	"slices"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
)

func TestIPTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: iptables.Driver()}, scenarios.All()...)
}

// The legacy tables go through the same rules: what the two variants could differ
// in is shown by a part of the scenarios.
func TestIPTablesLegacy(t *testing.T) {
	all := slices.Concat(scenarios.Rules(), scenarios.SourceChecks(), scenarios.Receiving(), scenarios.Routed(), scenarios.Families())
	scenarios.Run(t, scenarios.Target{Driver: iptables.Driver(), Settings: core.Settings{"variant": "legacy"}}, all...)
}
