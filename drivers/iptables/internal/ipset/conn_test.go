package ipset_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/kerneltest"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) (*kerneltest.Namespace, *ipset.Conn) {
	ns := kerneltest.New(t)
	c, err := ipset.Open(ns.FD())
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return ns, c
}

func set(t ipset.Type, f core.Family, members ...string) *ipset.Set {
	s := ipset.New(t, f)
	for _, m := range members {
		s.Add(netip.MustParsePrefix(m))
	}
	return s
}

func TestSetsAreReadAsTheyWereMade(t *testing.T) {
	_, c := open(t)
	want := ipset.Sets{
		"a":   set(ipset.HashIP, core.IPv4, "10.0.0.1/32", "10.0.0.2/32"),
		"a-6": set(ipset.HashNet, core.IPv6, "fd00::1/128", "fd00:1::/64", "::/0"),
		"n":   set(ipset.HashNet, core.IPv4, "10.0.0.0/8", "0.0.0.0/0"),
		"e":   set(ipset.HashNet, core.IPv4),
	}
	check(t, c.Create(t.Context(), want))
	got, err := c.List(t.Context())
	check(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestEverythingIsTwoHalves(t *testing.T) {
	ns, c := open(t)
	check(t, c.Create(t.Context(), ipset.Sets{"n": set(ipset.HashNet, core.IPv4, "0.0.0.0/0")}))
	if out := ns.Run("ipset", "list", "n"); !strings.Contains(out, "0.0.0.0/1") || !strings.Contains(out, "128.0.0.0/1") {
		t.Error(out)
	}
}

func TestChangesByElement(t *testing.T) {
	_, c := open(t)
	have := ipset.Sets{"n": set(ipset.HashNet, core.IPv4, "10.0.0.0/8", "10.1.0.0/16"), "gone": set(ipset.HashIP, core.IPv4)}
	want := ipset.Sets{"n": set(ipset.HashNet, core.IPv4, "10.0.0.0/8", "10.2.0.0/16"), "new": set(ipset.HashIP, core.IPv6, "fd00::1/128")}
	check(t, c.Create(t.Context(), have))
	change := ipset.Diff(have, want)
	if n := len(change.Add["n"]) + len(change.Remove["n"]); n != 2 {
		t.Errorf("%d elements change, not 2", n)
	}
	check(t, c.Create(t.Context(), change.Create))
	check(t, c.Remove(t.Context(), change.Remove, want))
	check(t, c.Add(t.Context(), change.Add, want))
	check(t, c.Destroy(t.Context(), change.Destroy))
	got, err := c.List(t.Context())
	check(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if rest := ipset.Diff(got, want); !rest.Empty() {
		t.Errorf("something is left to do: %+v", rest)
	}
}

func TestManyElements(t *testing.T) {
	_, c := open(t)
	s := ipset.New(ipset.HashIP, core.IPv4)
	for i := range 20000 {
		s.AddAddr(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	check(t, c.Create(t.Context(), ipset.Sets{"many": s}))
	got, err := c.List(t.Context())
	check(t, err)
	if n := len(got["many"].Members); n != 20000 {
		t.Errorf("the kernel holds %d of 20000", n)
	}
}

func TestNoteIsReplaced(t *testing.T) {
	_, c := open(t)
	for _, text := range []string{strings.Repeat("a", 64), strings.Repeat("b", 64), ""} {
		check(t, c.WriteNote(t.Context(), "note", text))
		got, err := c.List(t.Context())
		check(t, err)
		if got.Note("note") != text {
			t.Errorf("the note is %q, not %q", got.Note("note"), text)
		}
	}
}

func TestRefusalsNameTheSet(t *testing.T) {
	ns, c := open(t)
	check(t, c.Create(t.Context(), ipset.Sets{"used": set(ipset.HashIP, core.IPv4)}))
	ns.Run("iptables", "-A", "FORWARD", "-m", "set", "--match-set", "used", "src", "-j", "DROP")
	err := c.Destroy(t.Context(), []string{"used", "not-there"})
	if err == nil || !strings.Contains(err.Error(), "IP set used: a rule still names the set") {
		t.Error(err)
	}
}
