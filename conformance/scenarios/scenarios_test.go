package scenarios_test

import (
	"flag"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables"
)

var datapath = flag.String("datapath", "auto", "the nftables driver's setting of that name")

func TestNFTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: nftables.Driver(), Settings: core.Settings{"datapath": *datapath}}, scenarios.All()...)
}
