package cloudstack_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/cloudstack"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
)

func (g *guest) asVM() cloudstack.VM {
	return cloudstack.VM{Name: g.name, ID: g.n, MAC: mac(g.n, 0), IP: addr(g.n, 0), IP6: addr6(g.n, 0), Device: device(g.n, 0)}
}

// TestIncumbent: the other way filters, and starts as many programs as the
// stock script: 117 to 139 for the default rules, 8 and one a CIDR for rules.
func TestIncumbent(t *testing.T) {
	r := newRig(t, rigOptions{idle: true})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	s := &cloudstack.Incumbent{Bridge: "cloudbr0", Uplink: "eth0"}
	labtest.Check(t, r.host.Do(func() error { return s.Default(b.asVM()) })) // the bridge's own part is made once
	for _, step := range []struct {
		what        string
		do          func() error
		least, most int
	}{
		{"default rules", func() error { return s.Default(a.asVM()) }, 117, 139},
		{"one CIDR", func() error { return s.Add(a.asVM(), 1, ssh) }, 9, 9},
		{"a hundred CIDRs", func() error { return s.Add(a.asVM(), 1, many(100)) }, 108, 108},
	} {
		s.Execs = 0
		labtest.Check(t, r.host.Do(step.do))
		if s.Execs < step.least || s.Execs > step.most {
			t.Errorf("%s: %d programs, want %d to %d", step.what, s.Execs, step.least, step.most)
		}
	}
	in := between(out, a.Port(0))
	r.send(probe{"allowed", out, a.Port(0), in.SYN(1, 22), true}, probe{"not allowed", out, a.Port(0), in.SYN(1, 23), false})
}
