package cloudstack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestDropIn is the agent's day with a VM: start, rules, a ping, a stop.
func TestDropIn(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.boot(1, 1), r.boot(2, 1)
	out := r.outside.Port(0)
	closed := func(when string, pass bool) {
		t.Helper()
		r.send(
			probe{when + ": ssh from outside", out, a.Port(0), between(out, a.Port(0)).SYN(1000, 22), pass},
			probe{when + ": ssh from a neighbour", b.Port(0), a.Port(0), between(b.Port(0), a.Port(0)).SYN(1000, 22), pass},
			probe{when + ": telnet from outside", out, a.Port(0), between(out, a.Port(0)).SYN(1000, 23), false},
		)
	}
	r.must(a.defaults(0)...)
	b.program(1, "")
	closed("before rules", false)
	r.send(probe{"before rules: web out", a.Port(0), out, between(a.Port(0), out).SYN(1, 80), false},
		probe{"before rules: DNS out", a.Port(0), out, between(a.Port(0), out).UDP(1, 53, "q"), true})
	r.must(a.rules(7, "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;I:icmp;-1;-1;10.1.250.0/24,NEXT;")...)
	closed("with rules", true)
	r.send(probe{"with rules: web out", a.Port(0), out, between(a.Port(0), out).SYN(2, 80), true},
		probe{"with rules: ping", out, a.Port(0), between(out, a.Port(0)).Echo(1, 1, "x"), true})
	if got := r.logs(); got[a.name] != "7" || got[b.name] != "1" || len(got) != 2 {
		t.Errorf("%v", got)
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "cloud", a.name+".log"))
	var domain string
	if _, scan := fmt.Sscanf(string(text), a.name+",1,10.1.0.1,%s", &domain); err != nil || scan != nil {
		t.Errorf("%q, %v", text, err)
	}
	r.must("destroy_network_rules_for_vm", "--vmname", a.name, "--vif", device(1, 0))
	closed("leaving", true)
	r.must("cleanup_rules")
	closed("gone", false)
	if log, err := os.ReadFile(filepath.Join(r.dir, "log")); err != nil || len(log) == 0 {
		t.Errorf("the log: %q, %v", log, err)
	}
}
