package state

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/core"
)

var compareNetip = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

var (
	addrs = rapid.OneOf(
		rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
		}),
		rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6")))
		}))
	prefixes = rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := addrs.Draw(t, "addr")
		return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
	})
	spans = rapid.Custom(func(t *rapid.T) core.Span {
		a, b := rapid.Uint16().Draw(t, "a"), rapid.Uint16().Draw(t, "b")
		return core.Span{First: min(a, b), Last: max(a, b)}
	})
	names = rapid.StringMatching(`[a-z]{1,3}`)
	rules = rapid.Custom(func(t *rapid.T) core.Rule {
		r := core.Rule{
			Direction: rapid.SampledFrom([]core.Direction{core.Ingress, core.Egress}).Draw(t, "direction"),
			Protocol:  rapid.SampledFrom([]core.Protocol{core.AnyProtocol, 1, 6, 17, 58, 132, 2, 255}).Draw(t, "protocol"),
			Ports:     rapid.SliceOfN(spans, 0, 3).Draw(t, "ports"),
		}
		if rapid.Bool().Draw(t, "icmp") {
			r.ICMP = &core.ICMPMatch{Type: rapid.Ptr(rapid.Byte(), true).Draw(t, "type"), Code: rapid.Ptr(rapid.Byte(), true).Draw(t, "code")}
		}
		if rapid.Bool().Draw(t, "peers") {
			r.Peers = &core.Peers{CIDRs: rapid.SliceOfN(prefixes, 0, 3).Draw(t, "cidrs"), Groups: rapid.SliceOfN(names, 0, 2).Draw(t, "groups")}
		}
		return r
	})
	nics = rapid.Custom(func(t *rapid.T) core.NIC {
		n := core.NIC{
			MAC:             mac(rapid.ByteRange(1, 9).Draw(t, "mac")),
			Addresses:       rapid.SliceOfN(addrs, 0, 3).Draw(t, "addresses"),
			Groups:          rapid.SliceOfN(names, 0, 3).Draw(t, "groups"),
			SpoofingAllowed: rapid.Bool().Draw(t, "spoofing"),
		}
		for _, p := range rapid.SliceOfN(prefixes, 0, 2).Draw(t, "pairs") {
			pair := core.AddressPair{Prefix: p}
			if rapid.Bool().Draw(t, "own") {
				pair.MAC = mac(0x5e)
			}
			n.Pairs = append(n.Pairs, pair)
		}
		if rapid.Bool().Draw(t, "bound") {
			n.Binding = core.Binding{Bridge: "br0", Devices: []string{"vif1.0", "tap1.0"}}
		}
		return n
	})
)

// change does one random thing, and the same to the model.
func change(t *rapid.T, tx *Tx, m *Snapshot) error {
	name := names.Draw(t, "name")
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0:
		g := Group{core.Group{Name: name, Rules: rapid.SliceOfN(rules, 0, 3).Draw(t, "rules")}, SourceAPI}
		m.Groups[name] = g.clone()
		return tx.PutGroup(g)
	case 1:
		_, had := m.Groups[name]
		delete(m.Groups, name)
		if err := tx.DeleteGroup(SourceAPI, name); had || !errors.Is(err, core.ErrNotFound) {
			return err
		}
	case 2:
		v := VM{core.VM{Key: core.VMKey(name), Name: name, Kind: core.VMKind(rapid.IntRange(0, 1).Draw(t, "kind")),
			NICs: rapid.SliceOfNDistinct(nics, 0, 3, func(n core.NIC) core.MAC { return n.MAC }).Draw(t, "nics")}, SourceAPI}
		m.VMs[v.Key] = v.clone()
		return tx.PutVM(v)
	case 3:
		_, had := m.VMs[core.VMKey(name)]
		delete(m.VMs, core.VMKey(name))
		if err := tx.DeleteVM(SourceAPI, core.VMKey(name)); had || !errors.Is(err, core.ErrNotFound) {
			return err
		}
	case 4:
		b := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "value")
		m.Values[ValueKey{"s", name}] = b
		return tx.PutValue("s", name, b)
	case 5:
		delete(m.Values, ValueKey{"s", name})
		tx.DeleteValue("s", name)
	}
	return nil
}

// What goes in comes back, whatever the file went through.
func TestRoundTrip(t *testing.T) {
	dirs := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(dirs, "")
		if err != nil {
			t.Fatal(err)
		}
		model := &Snapshot{Groups: map[string]Group{}, VMs: map[core.VMKey]VM{}, Values: map[ValueKey][]byte{}}
		for range rapid.IntRange(1, 3).Draw(t, "openings") {
			s, err := Open(context.Background(), Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(0, 3).Draw(t, "transactions") {
				if err := s.Update(func(tx *Tx) error {
					for range rapid.IntRange(1, 6).Draw(t, "changes") {
						if err := change(t, tx, model); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(context.Background(), Options{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			got := s.Snapshot()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(model, got, compareNetip, cmpopts.IgnoreFields(Snapshot{}, "Revision"), cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("the file holds something else (-want +got):\n%s", d)
			}
		}
	})
}

// A file with wrong bytes or a missing end is refused, or reads as before
// (where nobody looks at what was hit); it never reads as something else.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	for round := range 4 { // leaves free pages and both meta pages used
		if err := s.Update(func(tx *Tx) error {
			for i := range 60 {
				v := vm(SourceAPI, fmt.Sprintf("vm-%d", i))
				v.NICs[0].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(round), byte(i)})}
				g := group(SourceAPI, fmt.Sprintf("g-%d", i))
				g.Rules = []core.Rule{{Direction: core.Ingress, Protocol: 6, Ports: []core.Span{{First: 80, Last: uint16(80 + round)}}}}
				if err := errors.Join(tx.PutVM(v), tx.PutGroup(g)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	want := s.Snapshot()
	closed(t, s)
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	refused := 0
	try := func(t *rapid.T, content []byte) {
		path := filepath.Join(scratch, FileName)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(context.Background(), Options{Dir: scratch})
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("error is %v, want ErrDamaged", err)
			}
			refused++
			return
		}
		got := s.Snapshot()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, compareNetip, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("a damaged file was believed (-want +got):\n%s", d)
		}
	}
	t.Run("bytes", rapid.MakeCheck(func(t *rapid.T) {
		content := append([]byte{}, whole...)
		at := rapid.IntRange(2*os.Getpagesize(), len(content)-1).Draw(t, "at")
		n := rapid.IntRange(1, 64).Draw(t, "length")
		fill := rapid.Byte().Draw(t, "with")
		for i := at; i < min(at+n, len(content)); i++ {
			content[i] = fill
		}
		try(t, content)
	}))
	t.Run("end", rapid.MakeCheck(func(t *rapid.T) {
		n := rapid.IntRange(1, len(whole)-1).Draw(t, "length")
		try(t, whole[:n])
	}))
	if refused == 0 {
		t.Error("no damage was ever found")
	}
}
