package cloudstack_test

import (
	"testing"
	"time"
)

// BenchmarkProgramming times 100 VMs, one call at a time through the command and
// the agent, on each driver, and before them a tenth as many with one program
// start a rule. "times" says how much faster a driver is, in this run.
func BenchmarkProgramming(b *testing.B) {
	const vms = 100
	report := func(b *testing.B, took time.Duration, count int) time.Duration {
		each := took / time.Duration(count)
		b.ReportMetric(each.Seconds()*1000, "ms/VM")
		b.ReportMetric(0, "ns/op") // it has the time of the set-up in it
		return each
	}
	var theirs time.Duration
	b.Run("incumbent", func(b *testing.B) {
		for range b.N {
			theirs = report(b, byIncumbent(b, vms/10), vms/10)
		}
	})
	for _, driver := range []string{"nftables", "iptables"} {
		b.Run(driver, func(b *testing.B) {
			for range b.N {
				ours := report(b, byCommand(b, driver, vms), vms)
				b.ReportMetric(float64(theirs)/float64(ours), "times")
			}
		})
	}
}
