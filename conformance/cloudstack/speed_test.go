package cloudstack_test

import (
	"testing"
	"time"
)

// BenchmarkProgramming times 100 VMs, one call at a time through the command and
// the agent, and a tenth of them with one program start a rule; "times" says
// how much faster the former is, in this run.
func BenchmarkProgramming(b *testing.B) {
	const vms = 100
	for b.Loop() {
		var ours, theirs time.Duration
		b.Run("nftables", func(b *testing.B) { ours = byCommand(b, "nftables", vms) })
		b.Run("incumbent", func(b *testing.B) { theirs = byIncumbent(b, vms/10) * 10 })
		b.ReportMetric(float64(theirs)/float64(ours), "times")
		b.ReportMetric(ours.Seconds()*1000/vms, "ms/VM")
	}
}
