package generated_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/generated"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/drivers/iptables"
)

func TestIPTables(t *testing.T) {
	generated.Run(t, scenarios.Target{Driver: iptables.Driver()})
}
