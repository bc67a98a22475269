package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// TestEveryFrameKindArrives sends one of each kind over a bridge without a
// firewall: all must come out at the other port, byte for byte.
func TestEveryFrameKindArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, b := s.a.Port(0), s.b.Port(0)
	o := labtest.Observe(t, b, s.up.Port(0))
	var probes []lab.Probe
	for _, k := range kinds(a, b) {
		if k.frame.Dst().IsBridgeReserved() {
			continue // see TestBridgeReservedStaysOnTheHost
		}
		probes = append(probes, lab.Probe{Name: k.name, From: a, Frame: k.frame})
	}
	start := time.Now()
	for _, seen := range labtest.Send(t, o, probes...) {
		if !seen.At(b) {
			t.Errorf("%s", seen)
			continue
		}
		if got := seen.Packets[0].Frame; string(got) != string(seen.Probe.Frame) {
			t.Errorf("%s: came out as %x, went in as %x", seen.Probe.Name, got, seen.Probe.Frame)
		}
	}
	t.Logf("%d probes in %v", len(probes), time.Since(start))
}

func TestBatchOfHundredsIsFast(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, b := s.a.Port(0), s.b.Port(0)
	o := labtest.Observe(t, s.ports()...)
	fl := lab.FlowBetween(a, b, core.IPv4)
	var probes []lab.Probe
	for i := range 400 {
		probes = append(probes, lab.Probe{Name: fmt.Sprint(i), From: a, Frame: fl.UDP(1, uint16(i), "x").To(frameTo(i, b))})
	}
	// Learn b's port, so that what is for b is not flooded.
	labtest.Send(t, o, lab.Probe{From: b, Frame: frame.GratuitousARP(b.MAC(), b.Addr(core.IPv4))})
	start := time.Now()
	seen := labtest.Send(t, o, probes...)
	took := time.Since(start)
	for i, s := range seen {
		if want := i%2 == 0; s.At(b) != want {
			t.Fatalf("%s, want at %s: %v", s, b, want)
		}
	}
	t.Logf("400 probes, half of them negative, in %v", took)
	if took > 5*time.Second {
		t.Errorf("400 probes took %v", took)
	}
}

// frameTo addresses every second frame to the host, where it dies.
func frameTo(i int, b *lab.Port) core.MAC {
	if i%2 == 0 {
		return b.MAC()
	}
	return mac(0xfe)
}

func TestUnknownDestinationIsSeenAtEveryPort(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	fl := lab.FlowBetween(s.a.Port(0), s.b.Port(0), core.IPv6)
	fl.DstMAC = mac(0x77)
	seen := labtest.Send(t, labtest.Observe(t, s.ports()...), lab.Probe{From: s.a.Port(0), Frame: fl.UDP(1, 2, "leak")})
	if got := fmt.Sprint(seen[0].Ports()); got != "[b/eth0 fabric/eth0]" {
		t.Errorf("seen at %s", got)
	}
}

// TestRoutedProbes sends into another bridge and to a neighbour with a kernel of
// its own, both of which cost the host an ARP or ND exchange first.
func TestRoutedProbes(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	br0 := s.Host.Port("br0")
	a, c, x := s.a.Port(0), s.c.Port(0), s.x.Port(0)
	o := labtest.Observe(t, s.ports()...)
	seen := labtest.Send(t, o,
		lab.Probe{Name: "a to c", From: a, Frame: lab.FlowVia(a, c, br0, core.IPv4).UDP(1, 2, "x")},
		lab.Probe{Name: "a to c, v6", From: a, Frame: lab.FlowVia(a, c, br0, core.IPv6).UDP(1, 2, "x")},
		lab.Probe{Name: "a to x", From: a, Frame: lab.FlowVia(a, x, br0, core.IPv4).UDP(1, 2, "x")},
		lab.Probe{Name: "a to x, v6", From: a, Frame: lab.FlowVia(a, x, br0, core.IPv6).UDP(1, 2, "x")},
	)
	for i, to := range []*lab.Port{c, c, x, x} {
		if !seen[i].At(to) {
			t.Errorf("%s, want %s", seen[i], to)
		}
	}
}

// TestAlikeProbesAreToldApart sends the same packet three times, once where it
// cannot arrive.
func TestAlikeProbesAreToldApart(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, b := s.a.Port(0), s.b.Port(0)
	f := lab.FlowBetween(a, b, core.IPv4).UDP(1, 2, "same")
	seen := labtest.Send(t, labtest.Observe(t, b),
		lab.Probe{Name: "first", From: a, Frame: f},
		lab.Probe{Name: "to the host", From: a, Frame: f.To(mac(0xfe))},
		lab.Probe{Name: "tagged", From: a, Frame: f.Tagged(frame.VLAN{ID: 7})})
	for i, want := range []int{1, 0, 1} {
		if got := len(seen[i].Packets); got != want {
			t.Errorf("%s: %d times, want %d", seen[i], got, want)
		}
	}
}

// TestTagsAreRestored checks that what the kernel strips is put back.
func TestTagsAreRestored(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, b := s.a.Port(0), s.b.Port(0)
	f := lab.FlowBetween(a, b, core.IPv4).UDP(1, 2, "tagged")
	var probes []lab.Probe
	for _, tags := range [][]frame.VLAN{
		{{ID: 5}}, {{ID: 0, Priority: 3}}, {{TPID: frame.TypeQinQ, ID: 5}, {ID: 6, DropEligible: true}},
		{{ID: 5}, {ID: 6}, {ID: 7}},
	} {
		probes = append(probes, lab.Probe{Name: fmt.Sprint(tags), From: a, Frame: f.Tagged(tags...)})
	}
	for _, seen := range labtest.Send(t, labtest.Observe(t, b), probes...) {
		if !seen.At(b) || string(seen.Packets[0].Frame) != string(seen.Probe.Frame) {
			t.Errorf("%s\n sent %x\n got  %x", seen, seen.Probe.Frame, seen.Packets)
		}
	}
}

// TestHostStackSeesWhatIsForTheHost uses INPUT's far side.
func TestHostStackSeesWhatIsForTheHost(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, br0, stack := s.a.Port(0), s.Host.Port("br0"), s.Host.Stack()
	o := labtest.Observe(t, br0, stack)
	var probes []lab.Probe
	for _, f := range core.Families {
		fl := lab.FlowBetween(a, br0, f)
		probes = append(probes,
			lab.Probe{Name: f.String() + " udp", From: a, Frame: fl.UDP(1, 53, "x")},
			lab.Probe{Name: f.String() + " tcp", From: a, Frame: fl.SYN(1, 80)},
			lab.Probe{Name: f.String() + " sctp", From: a, Frame: fl.SCTP(1, 80)},
			lab.Probe{Name: f.String() + " echo", From: a, Frame: fl.Echo(1, 1, "x")})
	}
	fl := lab.FlowBetween(a, br0, core.IPv4)
	fl.Dst = addr("10.0.0.77") // reaches the bridge, not the stack
	probes = append(probes, lab.Probe{Name: "foreign", From: a, Frame: fl.UDP(1, 53, "x")})
	for i, seen := range labtest.Send(t, o, probes...) {
		if want := i < len(probes)-1; !seen.At(br0) || seen.At(stack) != want {
			t.Errorf("%s; want at %s, and at %s: %v", seen, br0, stack, want)
		}
	}
}

// TestBridgeReservedStaysOnTheHost: a bridge forwards nothing to
// 01:80:c2:00:00:0X, except BPDUs while STP is off, but hands an IP packet in
// such a frame to the host's own stack.
func TestBridgeReservedStaysOnTheHost(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	a, b, stack := s.a.Port(0), s.b.Port(0), s.Host.Stack()
	fl := lab.FlowBetween(a, s.Host.Port("br0"), core.IPv4)
	fl.DstMAC = frame.LLDPGroupMAC
	seen := labtest.Send(t, labtest.Observe(t, b, stack),
		lab.Probe{Name: "LLDP", From: a, Frame: frame.LLDP(a.MAC())},
		lab.Probe{Name: "BPDU", From: a, Frame: frame.BPDU(a.MAC())},
		lab.Probe{Name: "IP", From: a, Frame: fl.UDP(1, 5000, "bypass")})
	for i, want := range []string{"[]", "[b/eth0]", "[host/stack]"} {
		if got := fmt.Sprint(seen[i].Ports()); got != want {
			t.Errorf("%s, want %s", seen[i], want)
		}
	}
}

func TestFragmentsAreReassembled(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	a, b := s.a.Port(0), s.b.Port(0)
	for _, family := range core.Families {
		conn := labtest.Must(s.b.ListenPacket(t.Context(), "udp", fmt.Sprintf("[::]:%d", 5000+int(family))))(t)
		text := strings.Repeat("0123456789abcdef", 100)
		f := lab.FlowBetween(a, b, family).UDP(1, 5000+uint16(family), text)
		pieces := f.Fragments(512, 77)
		if len(pieces) < 3 {
			t.Fatalf("%d pieces", len(pieces))
		}
		labtest.Check(t, a.SendFrames(pieces...))
		buf := make([]byte, 2000)
		conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := conn.ReadFrom(buf)
		if err != nil || string(buf[:n]) != text {
			t.Errorf("%s: got %d bytes, %v", family, n, err)
		}
		conn.Close()
	}
}

func TestArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	f := lab.FlowBetween(s.a.Port(0), s.b.Port(0), core.IPv4).UDP(1, 2, "x")
	for to, want := range map[*lab.Port]bool{s.b.Port(0): true, s.c.Port(0): false} {
		if got := labtest.Must(lab.Arrives(t.Context(), s.a.Port(0), to, f))(t); got != want {
			t.Errorf("at %s: %v, want %v", to, got, want)
		}
	}
}
