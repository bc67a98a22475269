package scenarios_test

import (
	"flag"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables"
)

var datapath = flag.String("datapath", "auto", "the nftables driver's setting of that name")

func TestNFTables(t *testing.T) {
	all := scenarios.All()
	if *datapath == "native" {
		// It does not hang on the switches that these play with.
		all = slices.DeleteFunc(all, func(s scenarios.Scenario) bool {
			return slices.ContainsFunc(s.Steps, func(s scenarios.Step) bool { return s.Netfilter != nil })
		})
	}
	scenarios.Run(t, scenarios.Target{Driver: nftables.Driver(), Settings: core.Settings{"datapath": *datapath}}, all...)
}
