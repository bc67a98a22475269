package cloudstack_test

import (
	"testing"
	"time"
)

// TestSpeed: 100 VMs, one call at a time through the command and the agent, are
// programmed 50 times as fast as with one program start a rule. Both run here,
// one after the other; of the other way a tenth is measured.
func TestSpeed(t *testing.T) {
	const vms = 100
	var ours, theirs time.Duration
	t.Run("command", func(t *testing.T) { ours = byCommand(t, "nftables", vms) })
	t.Run("incumbent", func(t *testing.T) { theirs = byIncumbent(t, vms/10) * 10 })
	if t.Failed() {
		return
	}
	ratio := float64(theirs) / float64(ours)
	t.Logf("%d VMs: %s by the command, %s with one program a rule: %.0f times", vms, ours.Round(time.Millisecond), theirs.Round(time.Millisecond), ratio)
	if ratio < 50 {
		t.Errorf("only %.1f times as fast", ratio)
	}
}
