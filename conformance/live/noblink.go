package live

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// What floods are made of, and how often the rules of a NIC are replaced under
// them.
const (
	floodRate    = 5000 // datagrams a second, each flood
	ruleCount    = 1000 // of the NIC
	replacements = 50

	alwaysPort, neverPort = 6000, 6001
)

// NoBlink replaces the 1,000 rules of a NIC 50 times under floods of 5,000
// packets a second, into it and out of it. Nothing ever answers, so that the
// rules are asked about every packet. What both the old and the new rules allow
// loses no more than in a run of the same length without changes; of what
// neither allows not one packet gets through.
func NoBlink(t *testing.T, target scenarios.Target) {
	t.Run("by difference", func(t *testing.T) {
		noBlink(t, target, core.IPv4, func(s *site, rules []core.Rule) error {
			before := s.ruleset
			s.input.Groups[1].Rules = rules
			s.compile(t)
			return s.backend.Apply(t.Context(), policy.Diff(before, s.ruleset))
		})
	})
	t.Run("whole", func(t *testing.T) {
		noBlink(t, target, core.IPv6, func(s *site, rules []core.Rule) error {
			s.input.Groups[1].Rules = rules
			s.compile(t)
			return s.backend.Sync(t.Context(), s.ruleset.Ruleset)
		})
	})
}

// thousand is a NIC's rules, of which those of two kinds have none in common.
// What is always allowed is so by another rule in each kind.
func thousand(kind int) []core.Rule {
	everybody := &core.Peers{CIDRs: prefixes("0.0.0.0/0", "::/0")}
	neighbours := &core.Peers{CIDRs: prefixes("10.0.0.0/24", "fd00::/64")}
	always := []core.Rule{allow(core.Ingress, core.ProtocolUDP, 5900, alwaysPort, everybody), allow(core.Egress, core.ProtocolUDP, alwaysPort, alwaysPort, neighbours)}
	if kind == 1 {
		always = []core.Rule{allow(core.Ingress, core.ProtocolUDP, alwaysPort, alwaysPort, neighbours), allow(core.Egress, core.ProtocolUDP, 5900, alwaysPort, everybody)}
	}
	rules := always
	for i := range ruleCount - len(always) {
		d := []core.Direction{core.Ingress, core.Egress}[i%2]
		port := uint16(10000 + 2000*kind + i)
		peer := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(1 + kind), byte(i), 0}), 24)
		if i%4 >= 2 {
			peer = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1: byte(1 + kind), 2: byte(i >> 8), 3: byte(i)}), 32)
		}
		rules = append(rules, allow(d, core.ProtocolTCP, port, port, &core.Peers{CIDRs: []netip.Prefix{peer}}))
	}
	return rules
}

// noBlink floods b in a family, and from b in the other.
func noBlink(t *testing.T, target scenarios.Target, in core.Family, replace func(*site, []core.Rule) error) {
	out := map[core.Family]core.Family{core.IPv4: core.IPv6, core.IPv6: core.IPv4}[in]
	s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: thousand(0)})
	kind := 0
	changes := func() error {
		for range replacements {
			kind = 1 - kind
			if err := replace(s, thousand(kind)); err != nil {
				return err
			}
		}
		return nil
	}
	never := s.startNever(t, in, out)
	start := time.Now()
	changed := s.flood(t, in, out, changes)
	took := time.Since(start)
	control := s.flood(t, in, out, func() error { time.Sleep(took); return nil })
	s.compare(t, fmt.Sprintf("%d replacements in %v", replacements, took.Round(time.Millisecond)), changed, control)
	never()
}

// compare fails the test when floods lost more under changes than without.
func (s *site) compare(t *testing.T, what string, changed, control []lab.FloodStats) {
	t.Helper()
	for i, way := range []string{"into", "out of"} {
		t.Logf("%s the NIC: %s: %v; control: %v", way, what, changed[i], control[i])
		if lost, usual := missing(changed[i]), missing(control[i]); lost > usual {
			t.Errorf("%s the NIC: of an always allowed flood %d packets were lost, without changes %d", way, lost, usual)
		}
	}
}

// missing is what got lost after the sender's own kernel had taken it.
func missing(f lab.FloodStats) int { return f.LostTotal() - f.Refused }

// flood runs always allowed floods into b and out of it while something is done.
// When the kernel of this machine itself ran out of room meanwhile, which may be
// anybody's doing, it is done once more.
func (s *site) flood(t *testing.T, in, out core.Family, do func() error) []lab.FloodStats {
	t.Helper()
	for range 5 {
		before := backlogDrops(t)
		var floods []*lab.Flood
		for _, spec := range []lab.FloodSpec{
			{From: s.u, To: s.b, Service: lab.UDP(alwaysPort).Over(in), Rate: floodRate},
			{From: s.b, To: s.u, Service: lab.UDP(alwaysPort).Over(out), Rate: floodRate},
		} {
			floods = append(floods, labtest.Must(lab.StartFlood(t.Context(), spec))(t))
		}
		err := do()
		var stats []lab.FloodStats
		for _, f := range floods {
			stats = append(stats, f.Stop())
		}
		labtest.Check(t, err)
		if backlogDrops(t) == before {
			return stats
		}
		t.Logf("the backlog of this machine overflowed; once more. It was: %v", stats)
	}
	t.Fatal("the backlog of this machine (/proc/net/softnet_stat) overflows all the time: keep other load away")
	return nil
}

// startNever keeps sending what no rules allow, into b and out of it, and fails
// the test if any of it arrives before the returned function is called.
func (s *site) startNever(t *testing.T, in, out core.Family) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	type way struct {
		from, to *lab.Station
		f        core.Family
		got      atomic.Int64
	}
	ways := []*way{{from: s.u, to: s.b, f: in}, {from: s.b, to: s.u, f: out}}
	for _, w := range ways {
		dst := netip.AddrPortFrom(w.to.Addr(w.f), neverPort)
		network := map[core.Family]string{core.IPv4: "udp4", core.IPv6: "udp6"}[w.f]
		receiver := labtest.Must(w.to.ListenPacket(ctx, network, dst.String()))(t)
		sender := labtest.Must(w.from.Dial(ctx, network, dst.String()))(t)
		go func() {
			for buf := make([]byte, 64); ; w.got.Add(1) {
				if _, _, err := receiver.ReadFrom(buf); err != nil {
					return
				}
			}
		}()
		go func() {
			defer receiver.Close()
			defer sender.Close()
			const burst = 5
			tick := time.NewTicker(time.Second * burst / floodRate)
			defer tick.Stop()
			for ctx.Err() == nil {
				for range burst {
					_, _ = sender.Write([]byte("never")) // "refused" comes back when it arrives
				}
				<-tick.C
			}
		}()
	}
	return func() {
		defer cancel()
		for i, w := range ways {
			if n := w.got.Load(); n > 0 {
				t.Errorf("%d packets of a never allowed flood got through, %s the NIC", n, []string{"into", "out of"}[i])
			}
		}
		// The flood must have been one: opened to, it comes in.
		s.change(t, func(in *policy.Input) {
			in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolUDP, neverPort, neverPort, nil), allow(core.Egress, core.ProtocolUDP, neverPort, neverPort, nil)}
		})
		for deadline := time.Now().Add(5 * time.Second); ways[0].got.Load() == 0 || ways[1].got.Load() == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the never allowed flood does not arrive when it is allowed: it proves nothing")
			}
		}
	}
}

// backlogDrops sums what the backlogs of all CPUs had no room for.
func backlogDrops(t *testing.T) (sum uint64) {
	t.Helper()
	b := labtest.Must(os.ReadFile("/proc/net/softnet_stat"))(t)
	for line := range strings.Lines(string(b)) {
		columns := strings.Fields(line) // hexadecimal: processed, dropped, ...
		if len(columns) < 2 {
			t.Fatal(fmt.Errorf("/proc/net/softnet_stat: %q", line))
		}
		sum += labtest.Must(strconv.ParseUint(columns[1], 16, 64))(t)
	}
	return sum
}
