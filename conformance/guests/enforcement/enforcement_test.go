package enforcement

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

var (
	macA  = core.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	macA2 = core.MAC{0x52, 0x54, 0, 0, 1, 0xa}
	macB  = core.MAC{0x52, 0x54, 0, 0, 0, 0xb}
	macC  = core.MAC{0x52, 0x54, 0, 0, 0, 0xc}
	macD  = core.MAC{0x52, 0x54, 0, 0, 0, 0xd}
)

// manifest: web serves HTTP to all and answers the admin's pings; its second NIC
// is for the admin's ssh. quiet may send HTTPS only, and talks before that.
const manifest = `
groups:
- name: admin
- name: web
  rules:
  - {direction: ingress, protocol: tcp, ports: [80]}
  - {direction: ingress, protocol: icmp, from: {groups: [admin]}}
- name: maintenance
  rules:
  - {direction: ingress, protocol: tcp, ports: [22], from: {groups: [admin]}}
- name: quiet
  rules:
  - {direction: egress, protocol: tcp, ports: [80, 443]}
- name: talker
  rules:
  - {direction: egress, protocol: udp, ports: [5000]}
vms:
- name: a
  nics:
  - {mac: "52:54:00:00:00:0a", addresses: [10.0.0.1, "fd00::1"], groups: [web]}
  - {mac: "52:54:00:00:01:0a", addresses: [10.0.1.1], groups: [maintenance]}
- name: b
  nics: [{mac: "52:54:00:00:00:0b", addresses: [10.0.0.2, 10.0.1.2, "fd00::2"], groups: [admin]}]
- name: c
  nics: [{mac: "52:54:00:00:00:0c", addresses: [10.0.0.3, "fd00::3"], groups: [quiet]}]
- name: d
  nics: [{mac: "52:54:00:00:00:0d", addresses: [10.0.0.4], groups: [talker]}]
`

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// toU is a flow from a guest's NIC, with any source, to the station.
func toU(mac core.MAC, src string) frame.Flow {
	return frame.Flow{SrcMAC: mac, DstMAC: macU, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(addrU)}
}

// flood sends a datagram from the guest's first instruction on.
func flood(mac core.MAC, src string, port uint16, mark string) *probe.Flood {
	return &probe.Flood{NIC: mac, Frame: toU(mac, src).UDP(5000, port, mark), Interval: 2 * time.Millisecond}
}

// guests of the test; c and d send before anybody could have told them.
func (s *site) spec(name string) guests.Spec {
	link := func(mac core.MAC, addresses ...string) []probe.Link {
		return []probe.Link{{NIC: mac, Addresses: prefixes(addresses...)}}
	}
	nic := func(mac core.MAC) []guests.NIC { return []guests.NIC{{MAC: mac, Bridge: "br0"}} }
	return map[string]guests.Spec{
		"a": {Name: "a", NICs: nic(macA), Boot: probe.Config{Links: link(macA, "10.0.0.1/24", "fd00::1/64")}},
		"b": {Name: "b", NICs: nic(macB), Boot: probe.Config{Links: link(macB, "10.0.0.2/24", "10.0.1.2/24", "fd00::2/64")}},
		"c": {Name: "c", NICs: nic(macC), Boot: probe.Config{Links: link(macC, "10.0.0.3/24", "fd00::3/64"), Flood: flood(macC, "10.0.0.3", 6000, "denied-flood")}},
		"d": {Name: "d", NICs: nic(macD), Boot: probe.Config{Links: link(macD, "10.0.0.4/24"), Flood: flood(macD, "10.0.0.4", 5000, "allowed-flood")}},
	}[name]
}

// TestGuests is the life of a host; its guests boot once for all of it.
func TestGuests(t *testing.T) {
	s := newSite(t)
	a, b, c := s.launch(s.spec("a")), s.launch(s.spec("b")), s.launch(s.spec("c"))
	s.ready(a, b, c)
	s.nic("a", macA, engine.Closed)

	s.must(a.Probe().Listen(s.ctx, probe.Listen{Network: "tcp", Port: 80}))
	s.must(a.Probe().Listen(s.ctx, probe.Listen{Network: "tcp", Port: 22}))
	s.must(b.Probe().Listen(s.ctx, probe.Listen{Network: "tcp", Port: 80}))
	everything := []try{{b, "tcp", "10.0.0.1", 80, false}, {c, "tcp", "10.0.0.1", 80, false}, {b, "tcp", "fd00::1", 80, false},
		{b, "ping", "10.0.0.1", 0, false}, {a, "ping", "10.0.0.2", 0, false}, {a, "ping", addrU, 0, false}}
	s.expect("before any policy", everything...)
	s.denied("before any policy, without the hook", c, macC)

	s.apply(manifest)
	policy := []try{
		{b, "tcp", "10.0.0.1", 80, true}, {c, "tcp", "10.0.0.1", 80, true}, {b, "tcp", "fd00::1", 80, true}, {c, "tcp", "fd00::1", 80, true},
		{b, "tcp", "10.0.0.1", 22, false}, {b, "ping", "10.0.0.1", 0, true}, {c, "ping", "10.0.0.1", 0, false},
		{a, "tcp", "10.0.0.2", 80, false}, {a, "ping", "10.0.0.2", 0, false}, {a, "ping", addrU, 0, true}, {c, "ping", addrU, 0, false},
	}
	s.expect("by the manifest", policy...)
	s.denied("by the manifest, without the hook", c, macC)

	s.spoofs(c, a)
	s.plugs(a, b)
	s.pauses(a, b, c)
	s.restartsLibvirt(a, b)
	s.expect("after libvirtd's restart", policy...)
	s.destroys(c)
	s.firstPackets(c)
	s.expect("at the end", policy[0], policy[2], policy[4], policy[5], policy[7])
}

// denied checks that a guest's flood goes into its tap and nowhere else.
func (s *site) denied(when string, g *guests.Guest, mac core.MAC) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for s.received(g, mac) < 100 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if sent := s.received(g, mac); sent < 100 {
		s.t.Errorf("%s: %s has sent %d frames; this shows nothing", when, g.Name(), sent)
	}
	if n := s.heard.count("denied-flood"); n != 0 {
		s.t.Errorf("%s: %d frames that are denied have arrived", when, n)
	}
}

// spoofs: a guest takes other addresses.
func (s *site) spoofs(liar, victim *guests.Guest) {
	s.t.Helper()
	other := core.MAC{0x52, 0x54, 0, 0, 0xbb, 0xbb}
	configure := func(l probe.Link) {
		l.NIC = macC
		s.must(liar.Probe().Configure(s.ctx, l))
	}
	web := try{liar, "tcp", "10.0.0.1", 80, false}
	configure(probe.Link{MAC: other, Addresses: prefixes("10.0.0.3/24")})
	s.expect("with another MAC", web)
	configure(probe.Link{Addresses: prefixes("10.0.0.33/24")})
	s.expect("with a free address", web)
	configure(probe.Link{Addresses: prefixes("10.0.0.2/24")})
	s.expect("with b's address", web, try{liar, "ping", "10.0.0.1", 0, false})
	configure(probe.Link{Addresses: prefixes("10.0.0.3/24", "fd00::3/64")})
	web.want = true
	s.expect("with its own again", web)

	// It answers for b, unasked and to the victim, in both families.
	claim := frame.Flow{SrcMAC: macC, DstMAC: macA, Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("10.0.0.1")}
	claim6 := frame.Flow{SrcMAC: macC, DstMAC: macA, Src: netip.MustParseAddr("fd00::2"), Dst: netip.MustParseAddr("fd00::1")}
	own := frame.GratuitousARP(macC, netip.MustParseAddr("10.0.0.3"))
	lies := []frame.Frame{claim.ARPReply(), frame.GratuitousARP(macC, claim.Src), claim6.Advertise(), frame.UnsolicitedNA(macC, claim6.Src),
		frame.ARPRequest(macC, claim.Src, claim.Dst)}
	s.must(victim.Probe().Capture(s.ctx, macA))
	for _, f := range append(lies, own) {
		s.must(liar.Probe().Send(s.ctx, macC, f))
	}
	// What it may say is sent last, so that when it is there the rest is not
	// merely late.
	got := s.captured(victim, macA, own)
	for i, f := range lies {
		if contains(got, f) || s.heard.has(f) {
			s.t.Errorf("lie %d has arrived: %x", i, f)
		}
	}
}

// captured waits for a frame at a guest's NIC and gives all that is there.
func (s *site) captured(g *guests.Guest, nic core.MAC, f []byte) [][]byte {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got := labtest.Must(g.Probe().Captured(s.ctx, nic))(s.t)
		if contains(got.Frames, f) {
			return got.Frames
		}
	}
	s.t.Fatalf("%s never got %x", g.Name(), f)
	return nil
}

func contains(frames [][]byte, f []byte) bool {
	for _, got := range frames {
		if bytes.HasPrefix(got, f) {
			return true
		}
	}
	return false
}

// plugs: a second NIC has a policy of its own, and neither NIC speaks with the
// other's addresses.
func (s *site) plugs(a, b *guests.Guest) {
	s.t.Helper()
	s.must(a.Plug(guests.NIC{MAC: macA2, Bridge: "br0"}))
	s.nic("a", macA2, engine.Enforced)
	s.must(a.Probe().Configure(s.ctx, probe.Link{NIC: macA2, Addresses: prefixes("10.0.1.1/24")}))
	s.expect("a second NIC",
		try{b, "tcp", "10.0.1.1", 22, true}, try{b, "tcp", "10.0.1.1", 80, false}, try{b, "ping", "10.0.1.1", 0, false},
		try{b, "tcp", "10.0.0.1", 80, true}, try{b, "tcp", "10.0.0.1", 22, false})

	allowed := func(i int, nic core.MAC, src string) frame.Frame {
		return toU(nic, src).UDP(uint16(7000+i), 7000, fmt.Sprint("frame ", i))
	}
	for i, x := range []struct {
		through, mac core.MAC
		src          string
		want         bool
	}{
		{macA, macA2, "10.0.1.1", false}, // wholly the other's
		{macA2, macA, "10.0.0.1", false},
		{macA, macA, "10.0.1.1", false}, // the other's address
		{macA2, macA2, "10.0.0.1", false},
		{macA, macA, "10.0.0.1", true},
		{macA2, macA2, "10.0.1.1", true},
	} {
		f := allowed(i, x.mac, x.src)
		s.must(a.Probe().Send(s.ctx, x.through, f))
		if x.want {
			for deadline := time.Now().Add(patience); !s.heard.has(f) && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
		}
		if got := s.heard.has(f); got != x.want {
			s.t.Errorf("through %s from %s %s: passes %v, want %v", x.through, x.mac, x.src, got, x.want)
		}
	}
	if f := allowed(0, macA2, "10.0.1.1"); s.heard.has(f) { // sent long before what has arrived
		s.t.Errorf("a refused frame was late")
	}
}

// pauses: a paused guest keeps its policy.
func (s *site) pauses(a, b, c *guests.Guest) {
	s.t.Helper()
	s.must(a.Suspend())
	s.nic("a", macA, engine.Enforced)
	s.expect("paused", try{b, "ping", "10.0.0.1", 0, false})
	s.nic("a", macA, engine.Enforced)
	s.must(a.Resume())
	s.expect("resumed", try{b, "ping", "10.0.0.1", 0, true}, try{c, "ping", "10.0.0.1", 0, false}, try{b, "tcp", "10.0.0.1", 22, false})
}

// restartsLibvirt puts the hook in, for which libvirtd has to look anew. Guests
// and what holds them run on, and changes are made while it is away.
func (s *site) restartsLibvirt(a, b *guests.Guest) {
	s.t.Helper()
	i := hook.Installer{Dir: s.daemon.Dir("/etc/libvirt/hooks"), Binary: s.bin + "/" + hook.Program}
	r := labtest.Must(i.Install(9_000_000, hook.DefaultConfig()))(s.t)
	if !r.RestartLibvirt {
		s.t.Errorf("the first hook needs no restart: %+v", r)
	}
	points := func() api.Verification {
		all := labtest.Must(s.api.Verify(s.ctx, api.Empty{}))(s.t)
		if len(all) != 1 || len(all[0].Differences) != 0 || all[0].Wanted != all[0].Enforced {
			s.t.Errorf("what is enforced: %+v", all)
		}
		return all[0]
	}
	before := points()
	pings := make(chan probe.PingResult, 1)
	go func() {
		// A lost one would be waited for, and miss the count.
		r, err := b.Probe().Ping(s.ctx, probe.Ping{To: netip.MustParseAddr("10.0.0.1"), Count: 200, Timeout: patience})
		if err != nil {
			s.t.Error(err)
		}
		pings <- r
	}()
	s.must(s.daemon.Stop(s.ctx))
	closed := strings.Replace(manifest, "ports: [80]", "ports: [81]", 1)
	s.apply(closed)
	s.expect("while libvirtd is away", try{b, "tcp", "10.0.0.1", 80, false})
	s.apply(manifest)
	s.must(s.daemon.Start(s.ctx))
	if p := <-pings; p.Sent != 200 || p.Received != p.Sent {
		s.t.Errorf("%d of %d pings are answered over libvirtd's restart", p.Received, p.Sent)
	}
	if after := points(); after.Enforced != before.Enforced {
		s.t.Errorf("enforced is %s, before the restart %s", after.Enforced.Short(), before.Enforced.Short())
	}
}

// destroys: nothing in the kernel names a guest that is gone.
func (s *site) destroys(g *guests.Guest) {
	s.t.Helper()
	traces := []string{macC.String(), "10.0.0.3", "fd00::3", labtest.Must(g.Device(macC))(s.t)}
	found := func() (out []string) {
		text := s.rules()
		for _, x := range traces {
			for _, end := range []string{" ", ",", "\"", "\n", "}"} {
				if strings.Contains(text, x+end) {
					out = append(out, x)
					break
				}
			}
		}
		return out
	}
	if n := len(found()); n != len(traces) {
		s.t.Errorf("the rules name only %v of %v; so this shows nothing", found(), traces)
	}
	s.must(g.Destroy())
	s.nic("c", macC, engine.Pending)
	deadline := time.Now().Add(patience)
	for len(found()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if left := found(); len(left) > 0 {
		s.t.Errorf("of a guest that is gone the rules still name %v", left)
	}
}

// firstPackets: with the hook, a guest's policy is in force before its first
// packet, what it allows and what it denies. The adapter stands still meanwhile:
// nothing but the hook can tell the agent.
func (s *site) firstPackets(c *guests.Guest) {
	s.t.Helper()
	thaw := s.freezeAdapter()
	defer thaw()
	s.must(c.Launch())
	d := s.launch(s.spec("d"))
	for name, mac := range map[string]core.MAC{"c": macC, "d": macD} {
		if state, reason := s.nicNow(name, mac); state != engine.Enforced {
			s.t.Errorf("when libvirt has started %s, it is %s: %s", name, state, reason)
		}
	}
	s.ready(c, d)
	s.must(d.Probe().StopFlood(s.ctx))
	sent := int(labtest.Must(d.Probe().Counters(s.ctx))(s.t).Flooded)
	for deadline := time.Now().Add(patience); s.heard.count("allowed-flood") < sent && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := s.heard.count("allowed-flood"); sent == 0 || got != sent {
		s.t.Errorf("of %d allowed frames %d have arrived: the policy was late", sent, got)
	}
	s.denied("with the hook", c, macC)
	thaw()
	s.nic("d", macD, engine.Enforced)
}
