package generated_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/ringwall/ringwall/conformance/generated"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/drivers/iptables"
)

// TestIPTables plays a quarter of the policies, for this driver starts programs
// for each change; all of them with CERTIFY set.
func TestIPTables(t *testing.T) {
	const policies = "CONFORMANCE_POLICIES"
	if n, err := strconv.Atoi(os.Getenv(policies)); os.Getenv("CERTIFY") == "" && (err == nil || os.Getenv(policies) == "") {
		if err != nil {
			n = 200
		}
		t.Setenv(policies, strconv.Itoa(max(1, n/4)))
	}
	generated.Run(t, scenarios.Target{Driver: iptables.Driver()})
}
