package scenarios_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func TestNFTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: nftables.Driver()}, scenarios.All()...)
}
