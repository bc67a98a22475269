package cloudstack_test

import "testing"

// TestExecsOnIPTables: on a driver that needs programs, a VM's rules take as
// many starts for a thousand CIDRs as for one, and few.
func TestExecsOnIPTables(t *testing.T) {
	r := newRig(t, rigOptions{driver: "iptables", more: "  mode: standalone\n", idle: true})
	a := r.boot(1, 1)
	t.Logf("a host's first default_network_rules: %d", r.execs(a.defaults(0)...))
	r.execs(a.rules(1, port(80))...)
	one, thousand := r.execs(a.rules(2, many(1))...), r.execs(a.rules(3, many(1000))...)
	if one != thousand || thousand > 8 {
		t.Errorf("%d programs for one CIDR, %d for a thousand", one, thousand)
	}
	b := r.boot(2, 1)
	t.Logf("another VM's default_network_rules: %d", r.execs(b.defaults(0)...))
}
