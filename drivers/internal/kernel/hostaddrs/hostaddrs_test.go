package hostaddrs_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/drivers/internal/kernel/hostaddrs"
	"github.com/ringwall/ringwall/drivers/internal/kernel/kerneltest"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestWatch(t *testing.T) {
	ns := kerneltest.New(t)
	ns.Run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
	ns.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "e0")
	ns.Run("ip", "addr", "add", "10.0.0.1", "peer", "10.0.0.2", "dev", "e0")
	ns.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "e0", "nodad")

	o := hostaddrs.Options{NetNS: ns.FD()}
	sets, err := hostaddrs.Watch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	now := <-sets
	listed, err := hostaddrs.List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	want := []netip.Addr{addr("10.0.0.1"), addr("127.0.0.1"), addr("192.0.2.1"), addr("::1"), addr("2001:db8::1")}
	for what, s := range map[string]hostaddrs.Set{"watched": now, "listed": listed} {
		if diff := cmp.Diff(want, s.All(), same); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	for a, own := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "10.0.0.1": true, "2001:db8::1": true, "127.5.5.5": true, "::1": true,
		"192.0.2.2": false, "192.0.2.255": false, "10.0.0.2": false, "2001:db8::2": false, "0.0.0.0": false,
	} {
		if got := now.Contains(addr(a)); got != own {
			t.Errorf("%s is own: %v", a, got)
		}
	}

	until := func(a string, own bool) {
		t.Helper()
		for deadline := time.After(10 * time.Second); now.Contains(addr(a)) != own; {
			select {
			case now = <-sets:
			case <-deadline:
				t.Fatalf("%s never became own=%v: %v", a, own, now.All())
			}
		}
	}
	// One address on two interfaces stays until the second one loses it.
	ns.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "e0")
	ns.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "e1")
	ns.Run("ip", "addr", "del", "198.51.100.1/24", "dev", "e0")
	ns.Run("ip", "addr", "add", "198.51.100.9/24", "dev", "e0")
	until("198.51.100.9", true)
	if !now.Contains(addr("198.51.100.1")) {
		t.Error("198.51.100.1 is still on e1")
	}
	ns.Run("ip", "addr", "del", "198.51.100.1/24", "dev", "e1")
	until("198.51.100.1", false)
	ns.Run("ip", "addr", "add", "fe80::1/64", "dev", "e1", "nodad")
	until("fe80::1%e1", true)
	ns.Run("ip", "link", "del", "e0")
	until("192.0.2.1", false)
	until("2001:db8::1", false)
}

// A reader that is away finds one set, the newest.
func TestOnlyTheNewestWaits(t *testing.T) {
	ns := kerneltest.New(t)
	sets, err := hostaddrs.Watch(t.Context(), hostaddrs.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		ns.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/32", i+1), "dev", "lo")
	}
	time.Sleep(100 * time.Millisecond)
	if now := <-sets; !now.Contains(addr("192.0.2.100")) {
		t.Errorf("an old set: %v", now.All())
	}
	select {
	case s := <-sets:
		t.Errorf("another one: %v", s.All())
	default:
	}
}
