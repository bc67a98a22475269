package scenarios_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/drivers/iptables"
)

func TestIPTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: iptables.Driver()}, scenarios.All()...)
}
