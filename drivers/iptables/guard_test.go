package iptables_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/iptables"
)

// guarded waits until exactly these devices have a chain, which is named after
// the index that the device has.
func (s site) guarded(devices ...string) {
	s.t.Helper()
	var want, have string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		want = s.run("for d in " + strings.Join(devices, " ") + "; do echo $d-$(ip -o link show $d | cut -d: -f1); done | sort")
		have = s.run("nft list chains netdev | sed -n 's/^\tchain \\(.*\\) {$/\\1/p' | sort")
		if have == want {
			return
		}
	}
	s.t.Errorf("there are chains\n%swant\n%s", have, want)
}

// Ports come and go and are made anew; what somebody edits is noticed and put
// right; Teardown leaves other tables alone.
func TestGuards(t *testing.T) {
	s := newSite(t)
	b := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
	r := compile(t, two(3))
	labtest.Check(t, b.Sync(t.Context(), r.Ruleset))
	s.guarded("vnet0", "vnet1")
	plug := "ip link add vnet5 type veth peer name p5; ip link set vnet5 master cloudbr0 up"
	s.run(plug)
	s.guarded("vnet0", "vnet1", "vnet5")
	s.run("ip link del vnet5; " + plug)
	s.guarded("vnet0", "vnet1", "vnet5")
	s.run("ip link del vnet5")
	s.guarded("vnet0", "vnet1")

	for _, edit := range []string{"nft delete table netdev ringwall-ports", "nft flush table netdev ringwall-ports"} {
		s.run(edit)
		if o := labtest.Must(b.Observe(t.Context()))(t); len(o.Drift) != 2 {
			t.Errorf("%s: drift %+v", edit, o.Drift)
		}
		labtest.Check(t, b.Sync(t.Context(), r.Ruleset))
		insync(t, b, r)
	}

	in := two(3)
	in.Options.CountOnly = true
	labtest.Check(t, b.Apply(t.Context(), policy.Diff(r, compile(t, in))))
	s.guarded()

	s.run("nft add table netdev theirs")
	labtest.Check(t, b.Teardown(t.Context()))
	if left := s.run("nft list tables netdev"); left != "table netdev theirs\n" {
		t.Errorf("left over: %s", left)
	}
}

// A set that could not be destroyed, since somebody's rule named it, stands in
// nobody's way when that is over.
func TestSetLeftOver(t *testing.T) {
	s := newSite(t)
	b := s.open(iptables.Driver(), core.Settings{"variant": "nft"})
	in := two(3)
	in.VMs[0].NICs[0].Pairs = []core.AddressPair{{Prefix: netip.MustParsePrefix("10.9.0.0/16")}}
	with, without := compile(t, in), compile(t, two(3))
	labtest.Check(t, b.Sync(t.Context(), with.Ruleset))
	set := strings.TrimSpace(s.run("ipset list -n | grep -- -net$"))
	s.run("iptables-nft -A FORWARD -m set --match-set " + set + " src -j DROP")
	labtest.Check(t, b.Apply(t.Context(), policy.Diff(with, without)))
	if s.run("ipset list -n | grep -- -net$ || true") == "" {
		t.Fatal("the set is gone, although a rule names it")
	}
	s.run("iptables-nft -D FORWARD -m set --match-set " + set + " src -j DROP")
	labtest.Check(t, b.Apply(t.Context(), policy.Diff(without, with)))
	insync(t, b, with)
}
