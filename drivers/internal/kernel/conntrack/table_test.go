package conntrack_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/netlink"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/conntrack"
	"github.com/ringwall/ringwall/drivers/internal/kernel/kerneltest"
	timo "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// The zones hang on a port, so that the same addresses are in each.
const zoneRules = `table inet test {
	chain output {
		type filter hook output priority raw
		th dport 5007 ct zone set 7
		th sport 5007 ct zone set 7
		th dport 5008 ct zone set 8
		th sport 5008 ct zone set 8
		th dport 5009 ct original zone set 9
		th dport 5010 ct reply zone set 10
		th sport 5010 ct zone set 10
		icmp type { echo-request, echo-reply } icmp id 7 ct zone set 7
		icmpv6 type { echo-request, echo-reply } icmpv6 id 7 ct zone set 7
	}
	chain late {
		type filter hook output priority 0
		th dport 5007 ct state new ct label set 3
		th dport 5008 ct mark set 0xaa00bb00
		ct state new
	}
}`

// table opens the connection tracking of a namespace with the rules above.
func table(t testing.TB) (*conntrack.Table, *kerneltest.Namespace) {
	t.Helper()
	ns := kerneltest.New(t)
	ns.NFT(zoneRules)
	tab, err := conntrack.Open(conntrack.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tab.Close() })
	return tab, ns
}

var hosts = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

// echo opens a TCP or UDP connection and has one answer over it. It stays open.
func echo(t *testing.T, ns *kerneltest.Namespace, network string, host netip.Addr, port uint16) (client netip.AddrPort) {
	t.Helper()
	server := netip.AddrPortFrom(host, port).String()
	ns.Do(func() error {
		var c net.Conn
		switch network {
		case "tcp":
			l, err := net.Listen(network, server)
			if err != nil {
				return err
			}
			defer l.Close()
			if c, err = net.Dial(network, server); err != nil {
				return err
			}
			s, err := l.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { s.Close() })
			if _, err := s.Write([]byte("x")); err != nil {
				return err
			}
		case "udp":
			l, err := net.ListenPacket(network, server)
			if err != nil {
				return err
			}
			defer l.Close()
			if c, err = net.Dial(network, server); err != nil {
				return err
			}
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			_, from, err := l.ReadFrom(make([]byte, 1))
			if err != nil {
				return err
			}
			if _, err := l.WriteTo([]byte("x"), from); err != nil {
				return err
			}
		}
		t.Cleanup(func() { c.Close() })
		client = netip.MustParseAddrPort(c.LocalAddr().String())
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	})
	return client
}

// raw sends one packet of a protocol over the loopback.
func raw(t *testing.T, ns *kerneltest.Namespace, p core.Protocol, host netip.Addr, payload []byte) {
	t.Helper()
	ns.Do(func() error {
		family := unix.AF_INET
		var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if host.Is6() {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: host.As16()}
		}
		s, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(p))
		if err != nil {
			return err
		}
		defer unix.Close(s)
		return unix.Sendto(s, payload, 0, to)
	})
}

// ping is an echo request; the kernel answers and fills in ICMPv6's checksum.
func ping(t *testing.T, ns *kerneltest.Namespace, host netip.Addr, id uint16) {
	b := []byte{8, 0, 0, 0, 0, 0, 0, 1}
	p := core.ProtocolICMP
	if host.Is6() {
		b[0], p = 128, core.ProtocolICMPv6
	}
	binary.BigEndian.PutUint16(b[4:], id)
	if host.Is4() {
		sum := uint32(0)
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	}
	raw(t, ns, p, host, b)
}

func list(t testing.TB, tab *conntrack.Table, f conntrack.Filter) []conntrack.Entry {
	t.Helper()
	all, err := tab.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b conntrack.Entry) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Zone.ID, b.Zone.ID), a.Orig.Dst.Compare(b.Orig.Dst),
			cmp.Compare(a.Orig.DstPort, b.Orig.DstPort), cmp.Compare(a.Orig.SrcPort, b.Orig.SrcPort))
	})
	return all
}

// open makes one connection of every sort and lists what the table should say.
func open(t *testing.T, ns *kerneltest.Namespace) (want []conntrack.Entry) {
	t.Helper()
	for _, p := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP} {
		for zone, port := range map[conntrack.Zone]uint16{{}: 5000, {ID: 7}: 5007, {ID: 8}: 5008, {ID: 9, Direction: conntrack.ZoneOrig}: 5009, {ID: 10, Direction: conntrack.ZoneReply}: 5010} {
			for _, host := range hosts {
				client := echo(t, ns, p.String(), host, port)
				e := conntrack.Entry{
					Protocol: p, Zone: zone,
					Orig:   conntrack.Tuple{Src: host, Dst: host, SrcPort: client.Port(), DstPort: port},
					Reply:  conntrack.Tuple{Src: host, Dst: host, SrcPort: port, DstPort: client.Port()},
					Status: conntrack.Confirmed | conntrack.SeenReply,
				}
				switch port {
				case 5007:
					e.Labels[0] = 1 << 3
				case 5008:
					e.Mark = 0xaa00bb00
				}
				if p == core.ProtocolTCP {
					e.Status |= conntrack.Assured
				}
				want = append(want, e)
			}
		}
	}
	for _, host := range hosts {
		for _, id := range []uint16{6, 7} {
			ping(t, ns, host, id)
			e := conntrack.Entry{
				Protocol: core.ProtocolICMP,
				Orig:     conntrack.Tuple{Src: host, Dst: host, SrcPort: id, DstPort: 8 << 8},
				Reply:    conntrack.Tuple{Src: host, Dst: host, SrcPort: id, DstPort: 0},
				Status:   conntrack.Confirmed | conntrack.SeenReply,
			}
			if host.Is6() {
				e.Protocol, e.Orig.DstPort, e.Reply.DstPort = core.ProtocolICMPv6, 128<<8, 129<<8
			}
			if id == 7 {
				e.Zone.ID = 7
			}
			want = append(want, e)
		}
	}
	// SCTP's INIT: ports, tag 0, the chunk. Its checksum is nobody's business on the way out.
	raw(t, ns, core.ProtocolSCTP, hosts[0], append([]byte{0x10, 0, 0x13, 0x8f, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1))
	want = append(want, conntrack.Entry{
		Protocol: core.ProtocolSCTP, Zone: conntrack.Zone{ID: 7},
		Orig:   conntrack.Tuple{Src: hosts[0], Dst: hosts[0], SrcPort: 4096, DstPort: 5007},
		Reply:  conntrack.Tuple{Src: hosts[0], Dst: hosts[0], SrcPort: 5007, DstPort: 4096},
		Status: conntrack.Confirmed,
		Labels: conntrack.Labels{0: 1 << 3},
	})
	// A protocol that the kernel knows no ports of.
	raw(t, ns, 99, hosts[0], []byte("xxxxxxxx"))
	want = append(want, conntrack.Entry{
		Protocol: 99,
		Orig:     conntrack.Tuple{Src: hosts[0], Dst: hosts[0]},
		Reply:    conntrack.Tuple{Src: hosts[0], Dst: hosts[0]},
		Status:   conntrack.Confirmed,
	})
	return want
}

// volatile is what no test can foretell. An unreachable that answers a raw
// packet makes no entry.
var volatile = gocmp.Options{
	cmpopts.IgnoreFields(conntrack.Entry{}, "Timeout", "ID"),
	gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.SortSlices(func(a, b conntrack.Entry) bool { return a.String() < b.String() }),
}

func TestEntries(t *testing.T) {
	tab, ns := table(t)
	want := open(t, ns)
	got := list(t, tab, conntrack.Filter{})
	if diff := gocmp.Diff(want, got, volatile); diff != "" {
		t.Error(diff)
	}
	for _, e := range got {
		if e.Timeout <= 0 || e.Timeout > 6*24*time.Hour || e.ID == 0 {
			t.Errorf("%s: timeout %s, id %d", e, e.Timeout, e.ID)
		}
	}
}

func TestFilter(t *testing.T) {
	tab, ns := table(t)
	all := open(t, ns)
	for _, f := range []conntrack.Filter{
		{Zones: []uint16{7}}, {Zones: []uint16{0}}, {Zones: []uint16{9}}, {Zones: []uint16{10}}, {Zones: []uint16{7, 8}}, {Zones: []uint16{}}, {Zones: []uint16{77}},
		{Mark: conntrack.Mark{Value: 0x0000bb00, Mask: 0x0000ff00}},
		{Mark: conntrack.Mark{Value: 0, Mask: 0x0000ff00}},
		{Zones: []uint16{8}, Mark: conntrack.Mark{Value: 0xaa000000, Mask: 0xff000000}},
	} {
		want := []conntrack.Entry{}
		for _, e := range all {
			if (f.Zones == nil || slices.Contains(f.Zones, e.Zone.ID)) && (e.Mark^f.Mark.Value)&f.Mark.Mask == 0 {
				want = append(want, e)
			}
		}
		if len(want) == 0 != (len(f.Zones) == 0 && f.Zones != nil || slices.Equal(f.Zones, []uint16{77})) {
			t.Fatalf("%+v: a test of nothing", f)
		}
		if diff := gocmp.Diff(want, list(t, tab, f), volatile, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%+v: %s", f, diff)
		}
	}
}

// Each entry can be marked without its neighbours: in every zone, protocol and
// family there is one of the same kind beside it.
func TestSetMark(t *testing.T) {
	tab, ns := table(t)
	open(t, ns)
	mark := conntrack.Mark{Value: 0x00010000, Mask: 0x00ff0000}
	for _, e := range list(t, tab, conntrack.Filter{}) {
		n, err := tab.SetMark(t.Context(), []conntrack.Entry{e}, mark)
		if err != nil || n != 1 {
			t.Errorf("%s: %d changed: %v", e, n, err)
		}
		marked := list(t, tab, conntrack.Filter{Mark: mark})
		want := e
		want.Mark = e.Mark&^mark.Mask | mark.Value
		if diff := gocmp.Diff([]conntrack.Entry{want}, marked, volatile); diff != "" {
			t.Errorf("%s: %s", e, diff)
		}
		if n, err := tab.SetMark(t.Context(), marked, conntrack.Mark{Mask: mark.Mask}); err != nil || n != 1 {
			t.Errorf("%s: %d given back: %v", e, n, err)
		}
	}
	if left := list(t, tab, conntrack.Filter{Mark: mark}); len(left) > 0 {
		t.Errorf("still marked: %v", left)
	}
}

func TestGoneIsNoError(t *testing.T) {
	tab, ns := table(t)
	open(t, ns)
	all := list(t, tab, conntrack.Filter{})
	gone := list(t, tab, conntrack.Filter{Zones: []uint16{7}})
	if n, err := tab.Delete(t.Context(), gone); err != nil || n != len(gone) {
		t.Fatalf("%d of %d deleted: %v", n, len(gone), err)
	}
	left := list(t, tab, conntrack.Filter{})
	if len(left) != len(all)-len(gone) {
		t.Errorf("%d entries left, want %d", len(left), len(all)-len(gone))
	}
	mark := conntrack.Mark{Value: 1, Mask: 1}
	if n, err := tab.SetMark(t.Context(), all, mark); err != nil || n != len(left) {
		t.Errorf("%d marked, want %d: %v", n, len(left), err)
	}
	if again := list(t, tab, conntrack.Filter{}); len(again) != len(left) {
		t.Errorf("marking made entries: %d, were %d", len(again), len(left))
	}
	if n, err := tab.Delete(t.Context(), gone); err != nil || n != 0 {
		t.Errorf("%d deleted twice: %v", n, err)
	}
	// An entry of another life: the same tuple, another id.
	other := left[0]
	other.ID++
	if n, err := tab.Delete(t.Context(), []conntrack.Entry{other}); err != nil || n != 0 {
		t.Errorf("%d deleted by a stale id: %v", n, err)
	}
}

// What the kernel refuses is named, and the others are done all the same.
func TestRefusal(t *testing.T) {
	tab, ns := table(t)
	open(t, ns)
	all := list(t, tab, conntrack.Filter{})
	bad := all[3]
	bad.Orig.Dst = netip.MustParseAddr("::9") // half of each family
	if bad.Orig.Src.Is6() {
		bad.Orig.Dst = netip.MustParseAddr("9.9.9.9")
	}
	mark := conntrack.Mark{Value: 1, Mask: 1}
	n, err := tab.SetMark(t.Context(), append([]conntrack.Entry{bad}, all...), mark)
	if err == nil || !strings.Contains(err.Error(), "1 of") || !strings.Contains(err.Error(), bad.Orig.Dst.String()) {
		t.Errorf("error: %v", err)
	}
	if n != len(all) {
		t.Errorf("%d marked, want %d", n, len(all))
	}
}

// fill makes n entries by the means of another library, over all that tells
// entries apart.
func fill(t testing.TB, ns *kerneltest.Namespace, n int) {
	t.Helper()
	c, err := timo.Dial(&netlink.Config{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		src, dst := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), netip.MustParseAddr("10.9.0.1")
		if i%2 == 1 {
			src, dst = netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}), netip.MustParseAddr("fd09::1")
		}
		proto := []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[i/2%2]
		f := timo.NewFlow(proto, timo.StatusConfirmed|timo.StatusAssured|timo.StatusSeenReply, src, dst, uint16(1024+i%50000), 80, 600, uint32(i%4)<<28)
		f.Zone = uint16(i % 5)
		if err := c.Create(f); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTenThousands(t *testing.T) {
	tab, ns := table(t)
	const n = 20_000
	fill(t, ns, n)
	all := list(t, tab, conntrack.Filter{})
	if len(all) != n {
		t.Fatalf("%d entries, want %d", len(all), n)
	}
	mark := conntrack.Mark{Value: 5, Mask: 15}
	if got, err := tab.SetMark(t.Context(), all, mark); err != nil || got != n {
		t.Fatalf("%d marked: %v", got, err)
	}
	marked := list(t, tab, conntrack.Filter{Mark: mark})
	if len(marked) != n {
		t.Fatalf("%d entries have the mark", len(marked))
	}
	for i, e := range marked {
		want := all[i]
		want.Mark, want.Timeout = want.Mark|5, e.Timeout
		if e != want {
			t.Fatalf("%s is now %+v, want %+v", all[i], e, want)
		}
	}
	if got, err := tab.Delete(t.Context(), all[:n/2]); err != nil || got != n/2 {
		t.Fatalf("%d deleted: %v", got, err)
	}
	if left := list(t, tab, conntrack.Filter{}); len(left) != n/2 {
		t.Errorf("%d entries left", len(left))
	}
}

func TestContextEnds(t *testing.T) {
	tab, ns := table(t)
	fill(t, ns, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, failed := 0, error(nil)
	for _, err := range tab.Entries(ctx, conntrack.Filter{}) {
		if err != nil {
			failed = err
			break
		}
		if seen++; seen == 1 {
			cancel()
		}
	}
	if failed == nil || seen == 1000 {
		t.Errorf("went on to the end: %d entries, error %v", seen, failed)
	}
	for range tab.Entries(t.Context(), conntrack.Filter{}) {
		break // leaving early is allowed
	}
}

func BenchmarkTable(b *testing.B) {
	tab, ns := table(b)
	const n = 20_000
	fill(b, ns, n)
	all := list(b, tab, conntrack.Filter{})
	b.Run(fmt.Sprintf("list-%d", n), func(b *testing.B) {
		for b.Loop() {
			if _, err := tab.List(b.Context(), conntrack.Filter{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(fmt.Sprintf("mark-%d", n), func(b *testing.B) {
		for b.Loop() {
			if _, err := tab.SetMark(b.Context(), all, conntrack.Mark{Value: 1, Mask: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
