package generated_test

import (
	"os"
	"testing"

	"github.com/ringwall/ringwall/conformance/generated"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

func TestNFTables(t *testing.T) {
	generated.Run(t, scenarios.Target{Driver: nftables.Driver()})
}
