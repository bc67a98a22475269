package cloudstack_test

import (
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/cloudstack"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
)

// benchRules is what a VM has: 100 CIDRs in one group.
var benchRules = many(100)

// programmed times count VMs on a host: one after the other, default rules and
// then rules, as CloudStack's agent has them programmed.
func (r *rig) programmed(count int, one func(*guest)) time.Duration {
	r.t.Helper()
	guests := make([]*guest, count)
	for i := range guests {
		guests[i] = r.boot(i+1, 1)
	}
	start := time.Now()
	for _, g := range guests {
		one(g)
	}
	took := time.Since(start)
	last := guests[count-1]
	in := between(r.outside.Port(0), last.Port(0))
	r.send(probe{"allowed", r.outside.Port(0), last.Port(0), in.SYN(1, 22), true}, probe{"not allowed", r.outside.Port(0), last.Port(0), in.SYN(1, 23), false})
	return took
}

func byCommand(t testing.TB, driver string, count int) time.Duration {
	return newRig(t, rigOptions{driver: driver}).programmed(count, func(g *guest) { g.program(1, benchRules) })
}

func byIncumbent(t testing.TB, count int) time.Duration {
	r := newRig(t, rigOptions{idle: true})
	s := &cloudstack.Incumbent{Bridge: "cloudbr0", Uplink: "eth0"}
	return r.programmed(count, func(g *guest) {
		labtest.Check(t, r.host.Do(func() error {
			if err := s.Default(g.asVM()); err != nil {
				return err
			}
			return s.Add(g.asVM(), 1, benchRules)
		}))
	})
}
