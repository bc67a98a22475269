package lab_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// TestHundredsOfPorts builds 200 VMs and reaches the last from the first.
func TestHundredsOfPorts(t *testing.T) {
	t.Parallel()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	var specs []lab.StationSpec
	for i := range 200 {
		specs = append(specs, lab.StationSpec{Name: fmt.Sprintf("vm%d", i), Mute: true, Ports: []lab.PortSpec{{
			Bridge: "br0", Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 16)}}}})
	}
	start := time.Now()
	vms := h.AddStations(specs...)
	t.Logf("200 VMs in %v", time.Since(start))
	first, last := vms[0].Port(0), vms[199].Port(0)
	if last.Device() != "vnet199" {
		t.Errorf("the last device is %s, want vnet199", last.Device())
	}
	var ports []*lab.Port
	for _, vm := range vms[1:] {
		ports = append(ports, vm.Port(0))
	}
	o := labtest.Observe(t, ports...)
	seen := labtest.Send(t, o,
		lab.Probe{Name: "broadcast", From: first, Frame: frame.GratuitousARP(first.MAC(), first.Addr(core.IPv4))},
		lab.Probe{Name: "flooded", From: first, Frame: lab.FlowBetween(first, last, core.IPv4).UDP(1, 2, "x")})
	for _, s := range seen {
		if len(s.Ports()) != 199 {
			t.Errorf("%s: seen at %d ports, want 199", s.Probe.Name, len(s.Ports()))
		}
	}
}

// TestOneStationManyPorts is the cheap way to a thousand NICs.
func TestOneStationManyPorts(t *testing.T) {
	t.Parallel()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	spec := lab.StationSpec{Name: "crowd", Mute: true}
	for range 200 {
		spec.Ports = append(spec.Ports, lab.PortSpec{Bridge: "br0"})
	}
	start := time.Now()
	crowd := h.AddStation(spec)
	t.Logf("200 ports of one station in %v", time.Since(start))
	from, to := crowd.Port(0), crowd.Port(199)
	fl := frame.Flow{SrcMAC: from.MAC(), DstMAC: to.MAC(), Src: addr("10.0.0.1"), Dst: addr("10.0.0.2")}
	if !labtest.Must(lab.Arrives(t.Context(), from, to, fl.UDP(1, 2, "x")))(t) {
		t.Error("port 199 is not reached from port 0")
	}
}

// TestHostsAreIndependent runs four of them with the same names and addresses.
func TestHostsAreIndependent(t *testing.T) {
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, true)
			a, b := s.a.Port(0), s.b.Port(0)
			o := labtest.Observe(t, s.ports()...)
			for range 20 {
				seen := labtest.Send(t, o, lab.Probe{Name: "mine", From: a, Frame: lab.FlowBetween(a, b, core.IPv4).UDP(1, 2, "x")})
				if n := len(seen[0].Packets); n < 1 || n > 2 { // 2: flooded to b and the uplink
					t.Fatalf("%s: %d times", seen[0], n)
				}
			}
		})
	}
}

func TestStopStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	index := func() int {
		nl := labtest.Must(s.Host.Links())(t)
		l, err := nl.LinkByName("vnetb")
		if err != nil {
			return 0
		}
		return l.Attrs().Index
	}
	before := index()
	labtest.Check(t, s.b.Stop())
	if i := index(); i != 0 {
		t.Errorf("vnetb is still there, with index %d", i)
	}
	labtest.Check(t, s.b.Start())
	if after := index(); after == 0 || after == before {
		t.Errorf("index %d before, %d after: a new tap has a new one", before, after)
	}
	if _, err := lab.Ping(t.Context(), s.a, s.b.Addr(core.IPv4), lab.PingOptions{Timeout: 3 * time.Second}); err != nil {
		t.Error(err)
	}
}

func TestHotPlugAndSecondAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	p := labtest.Must(s.b.AddPort(lab.PortSpec{Bridge: "br1", Device: "vnetb1", Addresses: prefixes("10.1.0.22/24", "10.1.0.23/24", "fd01::22/64")}))(t)
	if p.String() != "b/eth1" || p.Device() != "vnetb1" {
		t.Errorf("port %s on %s", p, p.Device())
	}
	for _, a := range []string{"10.1.0.22", "10.1.0.23", "fd01::22"} {
		if _, err := lab.Ping(t.Context(), s.c, addr(a), lab.PingOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// TestMuteStationsKeepQuiet listens for half a second to a bridge on which
// nobody was asked to speak.
func TestMuteStationsKeepQuiet(t *testing.T) {
	t.Parallel()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	st := h.AddStations(lab.StationSpec{Name: "a", Mute: true, Ports: []lab.PortSpec{{Bridge: "br0"}}},
		lab.StationSpec{Name: "b", Mute: true, Ports: []lab.PortSpec{{Bridge: "br0"}}})
	o := labtest.Observe(t, st[0].Port(0), st[1].Port(0))
	for _, c := range labtest.Must(o.Collect(t.Context(), 500*time.Millisecond))(t) {
		t.Errorf("%s heard %s", c.Port, c.Frame)
	}
}

// TestCableJoinsHosts: two hosts and a fabric between them.
func TestCableJoinsHosts(t *testing.T) {
	t.Parallel()
	fabric := labtest.New(t, lab.Options{Name: "fabric"})
	fabric.AddBridge(lab.BridgeSpec{Name: "switch"})
	var vms []*lab.Station
	for i := range 2 {
		h := labtest.New(t, lab.Options{Name: fmt.Sprintf("h%d", i)})
		h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: mac(byte(0xf0 + i))})
		labtest.Check(t, lab.Cable(lab.CableEnd{Host: h.Host, Bridge: "br0", Device: "eth1"},
			lab.CableEnd{Host: fabric.Host, Bridge: "switch", Device: fmt.Sprintf("port%d", i)}))
		vms = append(vms, h.AddStation(lab.StationSpec{Name: fmt.Sprintf("vm%d", i), Ports: []lab.PortSpec{{Bridge: "br0",
			MAC: mac(byte(i + 1)), Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1))}}}}))
	}
	if _, err := lab.Ping(t.Context(), vms[0], vms[1].Addr(core.IPv4), lab.PingOptions{}); err != nil {
		t.Error(err)
	}
}

func TestSysctlsAndSTP(t *testing.T) {
	t.Parallel()
	h := labtest.New(t, lab.Options{Forwarding: true, Sysctls: map[string]string{"net.ipv4.conf.all.log_martians": "1"}})
	h.AddBridge(lab.BridgeSpec{Name: "br.5", STP: true})
	for key, want := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1",
		"net.ipv4.conf.all.log_martians": "1", "net/ipv6/conf/br.5/disable_ipv6": "1"} {
		if got := labtest.Must(h.Sysctl(key))(t); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	if err := h.SetSysctl(map[string]string{"net.ipv4.no_such_thing": "1"}); err == nil || !strings.Contains(err.Error(), "no_such_thing") {
		t.Errorf("unknown sysctl: %v", err)
	}
}

// TestNamedNamespace shows one in /run/netns, usable by other programs, until
// the host closes.
func TestNamedNamespace(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("rwlab-%d-named", os.Getpid())
	path := filepath.Join("/run/netns", name)
	ctx, cancel := context.WithCancel(t.Context())
	h := labtest.Must(lab.New(ctx, lab.Options{NetnsName: name}))(t)
	labtest.Check(t, h.AddBridge(lab.BridgeSpec{Name: "br0"}))
	out, err := exec.CommandContext(ctx, "nsenter", "--net="+path, "ip", "-br", "link", "show", "br0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "br0") {
		t.Errorf("nsenter: %v: %s", err, out)
	}
	if _, err := lab.New(ctx, lab.Options{NetnsName: name}); err == nil {
		t.Error("the same name was given twice")
	}
	cancel() // as an interrupted program does
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s outlives its context", path)
		}
	}
}

// TestKilledProcessIsSweptUp kills a process that holds a name, and finds the
// name gone after the next look.
func TestKilledProcessIsSweptUp(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("rwlab-%d-killed", os.Getpid())
	if os.Getenv("LAB_HOLD_NAME") != "" {
		labtest.Must(lab.New(context.Background(), lab.Options{NetnsName: os.Getenv("LAB_HOLD_NAME")}))(t)
		fmt.Println("holding")
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcessIsSweptUp$")
	cmd.Env = append(os.Environ(), "LAB_HOLD_NAME="+name)
	stdout := labtest.Must(cmd.StdoutPipe())(t)
	labtest.Check(t, cmd.Start())
	buf := make([]byte, 8)
	if _, err := stdout.Read(buf); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("/run/netns", name)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("while its process lives: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	labtest.Check(t, lab.SweepPins())
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

// TestLeftoversAreFound makes one of each kind and takes it away again. It is
// serial: it must not see what other tests are at.
func TestLeftoversAreFound(t *testing.T) {
	before := labtest.Must(lab.TakeSnapshot())(t)
	h := labtest.Must(lab.New(t.Context(), lab.Options{NetnsName: fmt.Sprintf("rwlab-%d-left", os.Getpid())}))(t)
	l := labtest.Must(h.Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	release, inside := make(chan bool), make(chan bool)
	go h.Do(func() error { inside <- true; <-release; return nil })
	<-inside
	sleep := exec.Command("sleep", "60")
	labtest.Check(t, sleep.Start())

	left := strings.Join(labtest.Must(before.Leftovers(0))(t), "\n")
	for _, want := range []string{"net:[", "socket:[", "thread ", "child process: ", "name in /run/netns"} {
		if !strings.Contains(left, want) {
			t.Errorf("%q is not among the leftovers:\n%s", want, left)
		}
	}
	sleep.Process.Kill()
	sleep.Wait()
	close(release)
	l.Close()
	labtest.Check(t, h.Close())
	if left := labtest.Must(before.Leftovers(3 * time.Second))(t); len(left) > 0 {
		t.Errorf("all was taken away, yet there is left: %v", left)
	}
}

func TestErrorsNameTheObject(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	_, err := s.Host.Host.AddStation(lab.StationSpec{Name: "z", Ports: []lab.PortSpec{{Bridge: "nope"}}})
	if err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("unknown bridge: %v", err)
	}
	if _, err := s.Host.Host.Port("nope"); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("unknown interface: %v", err)
	}
	if err := s.Host.Stack().SendFrames(frame.LLDP(mac(1))); err == nil {
		t.Error("a stack sent a frame")
	}
}

// TestDoStaysOutOfOurNamespace enters a namespace and finds this thread's own
// unchanged.
func TestDoStaysOutOfOurNamespace(t *testing.T) {
	t.Parallel()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "rwlabdo0"})
	var inside bool
	labtest.Check(t, h.Do(func() error {
		_, err := net.InterfaceByName("rwlabdo0")
		inside = err == nil
		return nil
	}))
	if !inside {
		t.Error("Do does not run inside")
	}
	if _, err := netlink.LinkByName("rwlabdo0"); err == nil {
		t.Error("the bridge is in our own namespace")
	}
}
