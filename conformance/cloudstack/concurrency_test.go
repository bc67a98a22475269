package cloudstack_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core/api"
)

// allowedPort is the only port that a VM's group lets in, as the agent has it.
func (r *rig) allowedPorts() map[string]string {
	r.t.Helper()
	o, err := r.client().Objects(r.t.Context(), api.ObjectsRequest{All: true})
	labtest.Check(r.t, err)
	out := map[string]string{}
	for _, g := range o.Manifest.Groups {
		if len(g.Rules) == 1 && len(g.Rules[0].Ports) == 1 {
			out[strings.TrimPrefix(g.Name, "cloudstack/")] = fmt.Sprint(g.Rules[0].Ports[0].First)
		}
	}
	return out
}

func port(n int) string { return fmt.Sprintf("I:tcp;%d;%d;0.0.0.0/0,NEXT;", n, n) }

// TestConcurrentCalls: calls for two hundred different VMs at once, then ten
// for one; none is lost, and what is told agrees with what is in force.
func TestConcurrentCalls(t *testing.T) {
	r := newRig(t, rigOptions{})
	const vms = 200
	guests := make([]*guest, vms)
	for i := range guests {
		guests[i] = r.boot(i+1, 1)
	}
	var all sync.WaitGroup
	var failed sync.Map
	at := func(args ...string) {
		all.Go(func() {
			if res := run(r.command(context.Background(), args...)); res.code != 0 {
				failed.Store(fmt.Sprint(args), fmt.Sprint(res))
			}
		})
	}
	for _, g := range guests {
		at(g.defaults(0)...)
	}
	all.Wait()
	for _, g := range guests {
		for seq := range 2 {
			at(g.rules(10+seq, port(1000+10+seq))...)
		}
	}
	all.Wait()
	failed.Range(func(k, v any) bool { t.Errorf("%v: %v", k, v); return true })

	// A call that came behind a higher number was refused, so the highest of
	// those that were taken is what stands; the last to come may be any.
	logs, ports := r.logs(), r.allowedPorts()
	var probes []probe
	for _, g := range guests {
		seq := logs[g.name]
		if len(seq) != 2 || seq < "10" || seq > "11" || ports[g.name] != "10"+seq {
			t.Errorf("%s: number %s, port %s", g.name, seq, ports[g.name])
			continue
		}
		in := between(r.outside.Port(0), g.Port(0))
		var dport uint16
		fmt.Sscan(ports[g.name], &dport)
		probes = append(probes, probe{g.name, r.outside.Port(0), g.Port(0), in.SYN(1, dport), true}, probe{g.name + " closed", r.outside.Port(0), g.Port(0), in.SYN(1, 9), false})
	}
	r.send(probes...)

	one := guests[0]
	for seq := range 10 {
		at(one.rules(100+seq, port(1100+seq))...)
	}
	all.Wait()
	if seq, port := r.logs()[one.name], r.allowedPorts()[one.name]; len(seq) != 3 || port != "1"+seq {
		t.Errorf("number %s, port %s", seq, port)
	}
	if !r.verified() {
		t.Error("the kernel holds something else")
	}
}

// TestKilledCall: wherever the command dies, the VM has its old or its new
// rules, and the log says which.
func TestKilledCall(t *testing.T) {
	for _, mode := range []string{"agent", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			r := newRig(t, rigOptions{more: "  mode: " + mode + "\n", idle: mode == "standalone"})
			a, out := r.boot(1, 1), r.outside.Port(0)
			inHost := func(args ...string) result { // standalone, the command is the one that enforces
				var res result
				labtest.Check(t, r.host.Do(func() error { res = run(r.command(context.Background(), args...)); return nil }))
				return res
			}
			for _, args := range [][]string{a.defaults(0), a.rules(1, port(2001))} {
				if res := inHost(args...); res.code != 0 {
					t.Fatalf("%+v", res)
				}
			}
			start := time.Now()
			inHost(a.rules(1, port(2001))...)
			took := time.Since(start)
			killed := 0
			for seq := 2; seq < 32; seq++ {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(took))))
				var res result
				labtest.Check(t, r.host.Do(func() error { res = run(r.command(ctx, a.rules(seq, port(2000+seq))...)); return nil }))
				cancel()
				if res.code != 0 {
					killed++
				}
				in := between(out, a.Port(0))
				o := labtest.Must(lab.Observe(a.Port(0)))(t)
				seen := labtest.Must(o.Send(t.Context(), // old and new, each a packet
					lab.Probe{Name: "new", From: out, Frame: in.SYN(uint16(seq), uint16(2000+seq))},
					lab.Probe{Name: "never", From: out, Frame: in.SYN(uint16(seq), 9)}))(t)
				o.Close()
				if seen[1].At(a.Port(0)) {
					t.Errorf("call %d killed: the VM is open", seq)
				}
				if res.code == 0 && !seen[0].At(a.Port(0)) {
					t.Errorf("call %d has ended well, but its rule is not in force", seq)
				}
			}
			if killed < 5 {
				t.Errorf("only %d of 30 calls were killed", killed)
			}
			if res := inHost(a.rules(50, port(2050))...); res.code != 0 {
				t.Fatalf("%+v", res)
			}
			if res := inHost("get_rule_logs_for_vms"); !strings.Contains(res.stdout, ",50\n") {
				t.Errorf("%+v", res)
			}
			r.send(probe{"the last rules", out, a.Port(0), between(out, a.Port(0)).SYN(1, 2050), true},
				probe{"and not the first", out, a.Port(0), between(out, a.Port(0)).SYN(1, 2001), false})
		})
	}
}
