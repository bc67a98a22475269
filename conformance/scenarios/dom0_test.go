package scenarios_test

import (
	"os"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
	"github.com/ringwall/ringwall/drivers/nftables"
)

// The tables on a XenServer host's names, by both drivers.
func TestDom0NFTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: nftables.Driver()}, dom0()...)
}

func TestDom0IPTables(t *testing.T) {
	scenarios.Run(t, scenarios.Target{Driver: iptables.Driver(), Settings: core.Settings{"layout": "xenserver"}}, dom0()...)
}

// dom0 is all of the scenarios with CERTIFY set. Without, it is those in which
// names and a NIC's second device weigh most: rules, source checks, closed ports,
// system VMs, several bridges and changes of what a device is.
func dom0() []scenarios.Scenario {
	if os.Getenv("CERTIFY") != "" {
		return scenarios.Dom0(scenarios.All())
	}
	return scenarios.Dom0(slices.Concat(scenarios.Rules(), scenarios.SourceChecks(), scenarios.Receiving(), scenarios.Modes(), scenarios.Families()))
}
