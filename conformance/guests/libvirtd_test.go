package guests_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
)

var (
	macA  = core.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	macA2 = core.MAC{0x52, 0x54, 0, 0, 1, 0xa}
	macB  = core.MAC{0x52, 0x54, 0, 0, 0, 0xb}
)

func prefixes(ss ...string) (out []netip.Prefix) {
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// frame is an Ethernet frame of a local experimental type.
func frame(to, from core.MAC, text string) []byte {
	f := append(append(to[:], from[:]...), 0x88, 0xb5)
	return append(append(f, text...), bytes.Repeat([]byte{0}, 46-len(text))...)
}

// site is a libvirtd with a bridge br0 on a host of the packet lab.
type site struct {
	t      *testing.T
	ctx    context.Context
	host   *lab.Host
	daemon *guests.Libvirtd
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	s := &site{t: t, ctx: ctx}
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
	s.must(err)
	s.host, err = lab.New(ctx, lab.Options{})
	s.must(err)
	t.Cleanup(func() { s.host.Close() })
	s.must(s.host.AddBridge(lab.BridgeSpec{Name: "br0"}))
	s.daemon, err = guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Namespace: s.host.Namespace, Image: image})
	s.must(err)
	t.Cleanup(func() {
		dir := s.daemon.Dir("")
		if err := s.daemon.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left behind", dir)
		}
	})
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestGuestsDoWhatTheyAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hello := frame(macB, macA, "from the first instruction")
	a, err := s.daemon.StartGuest(s.ctx, guests.Spec{Name: "a", NICs: []guests.NIC{{MAC: macA, Bridge: "br0", Device: "tap-a"}},
		Boot: probe.Config{
			Links: []probe.Link{{NIC: macA, Addresses: prefixes("10.0.0.1/24", "fd00::1/64")}},
			Flood: &probe.Flood{NIC: macA, Frame: hello, Interval: 10 * time.Millisecond},
		}})
	s.must(err)
	b, err := s.daemon.StartGuest(s.ctx, guests.Spec{Name: "b", NICs: []guests.NIC{{MAC: macB, Bridge: "br0"}}})
	s.must(err)
	s.must(b.Probe().Configure(s.ctx, probe.Link{NIC: macB, Addresses: prefixes("10.0.0.2/24", "fd00::2/64")}))

	t.Log("flood and capture")
	s.must(b.Probe().Capture(s.ctx, macB))
	s.awaitFrame(b, macB, hello)
	s.must(a.Probe().StopFlood(s.ctx))
	counters, err := a.Probe().Counters(s.ctx)
	s.must(err)
	again, err := a.Probe().Counters(s.ctx)
	s.must(err)
	if counters.Flooded == 0 || counters != again {
		t.Errorf("flooded %d frames, then %d", counters.Flooded, again.Flooded)
	}

	t.Log("raw frames")
	crafted := frame(macB, core.MAC{2, 0, 0, 0, 0, 1}, "from another MAC")
	s.must(a.Probe().Send(s.ctx, macA, crafted))
	s.awaitFrame(b, macB, crafted)

	t.Log("ping, TCP and UDP, both families")
	s.reaches(b, "10.0.0.1", true)
	s.reaches(b, "fd00::1", true)
	s.reaches(b, "10.0.0.99", false)
	for _, network := range []string{"tcp", "udp"} {
		s.must(a.Probe().Listen(s.ctx, probe.Listen{Network: network, Port: 80}))
		for _, to := range []string{"10.0.0.1", "fd00::1"} {
			for port, want := range map[uint16]bool{80: true, 81: false} {
				r, err := b.Probe().Dial(s.ctx, probe.Dial{Network: network, Payload: "hello", Timeout: 2 * time.Second,
					To: netip.AddrPortFrom(netip.MustParseAddr(to), port)})
				s.must(err)
				if r.OK() != want || want && r.Reply != "hello" {
					t.Errorf("%s to %s port %d: %+v", network, to, port, r)
				}
			}
		}
	}

	t.Log("another MAC and address")
	s.must(b.Probe().Configure(s.ctx, probe.Link{NIC: macB, MAC: core.MAC{2, 0, 0, 0, 0, 0xb}, Addresses: prefixes("10.0.0.3/24")}))
	s.reaches(b, "10.0.0.1", true)
	s.reaches(a, "10.0.0.2", false)
	s.reaches(a, "10.0.0.3", true)

	t.Log("a second NIC, plugged and unplugged")
	second := guests.NIC{MAC: macA2, Bridge: "br0"}
	s.must(a.Plug(second))
	s.must(a.Probe().Configure(s.ctx, probe.Link{NIC: macA2, Addresses: prefixes("10.0.1.1/24")}))
	h, err := a.Probe().Hello(s.ctx)
	s.must(err)
	if d := cmp.Diff([]core.MAC{macA, macA2}, h.NICs, cmpopts.SortSlices(func(x, y core.MAC) bool { return x.String() < y.String() })); d != "" {
		t.Errorf("NICs inside (-want +got):\n%s", d)
	}
	device, err := a.Device(macA2)
	s.must(err)
	if _, err := s.link(device); err != nil {
		t.Errorf("tap %q: %v", device, err)
	}
	s.must(a.Unplug(s.ctx, second))
	if _, err := s.link(device); err == nil {
		t.Errorf("tap %q is still there", device)
	}

	t.Log("suspended and resumed")
	s.must(a.Suspend())
	s.reaches(b, "10.0.0.1", false)
	s.must(a.Resume())
	s.reaches(b, "10.0.0.1", true)

	t.Log("libvirtd restarts, guests run on")
	s.must(s.daemon.Restart(s.ctx))
	s.reaches(b, "10.0.0.1", true)
	s.must(a.Destroy())
	s.reaches(b, "10.0.0.1", false)
	if _, err := s.link("tap-a"); err == nil {
		t.Error("the tap of a destroyed guest is still there")
	}
	s.must(a.StartAgain(s.ctx))
	s.reaches(b, "10.0.0.1", true)
}

func (s *site) reaches(from *guests.Guest, to string, want bool) {
	s.t.Helper()
	got, err := from.Probe().Reaches(s.ctx, netip.MustParseAddr(to))
	s.must(err)
	if got != want {
		s.t.Errorf("%s reaches %s: %v, want %v", from.Name(), to, got, want)
	}
}

func (s *site) awaitFrame(g *guests.Guest, nic core.MAC, want []byte) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got, err := g.Probe().Captured(s.ctx, nic)
		s.must(err)
		for _, f := range got.Frames {
			if bytes.Equal(f, want) {
				return
			}
		}
	}
	s.t.Errorf("%s never got %x", g.Name(), want)
}

func (s *site) link(name string) (string, error) {
	nl, err := s.host.Links()
	s.must(err)
	l, err := nl.LinkByName(name)
	if err != nil {
		return "", err
	}
	return l.Type(), nil
}

func TestDefineRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, spec := range map[string]guests.Spec{
		"a name that is a path": {Name: "../x"},
		"a long boot config":    {Name: "x", Boot: probe.Config{Flood: &probe.Flood{NIC: macA, Frame: make([]byte, 2000)}}},
	} {
		if _, err := s.daemon.DefineGuest(spec); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	g, err := s.daemon.DefineGuest(guests.Spec{Name: "x", NICs: []guests.NIC{{MAC: macA, Bridge: "none"}}})
	s.must(err)
	if err := g.Launch(); err == nil {
		t.Error("a guest on a bridge that is not there was started")
	}
}

// crashEnv makes this test binary a program that starts guests and waits to be
// killed.
const crashEnv = "GUESTS_TEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		if err := startAndWait(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
