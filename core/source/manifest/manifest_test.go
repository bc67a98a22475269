package manifest

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var sameValue = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}

// TestBad: every file in testdata/bad is refused with the one line beside it.
func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	if len(files) < 45 {
		t.Fatalf("only %d bad manifests; the corpus was larger", len(files))
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(data)
			if err == nil {
				t.Fatalf("accepted as %+v", m)
			}
			if !errors.Is(err, core.ErrInvalid) {
				t.Errorf("not an ErrInvalid: %v", err)
			}
			var f *core.FieldError
			if !errors.As(err, &f) || f.Path == "" {
				t.Errorf("names no field: %v", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line:\n%v", err)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".error"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestGood: every file in testdata/good is written back as the file beside it,
// which reads as the same manifest, in YAML and in JSON.
func TestGood(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.yaml")
	if len(files) == 0 {
		t.Fatal("no good manifests")
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			out := roundTrip(t, m)
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, out, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(out)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func roundTrip(t *testing.T, m Manifest) []byte {
	t.Helper()
	out, err := Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(out)
	if err != nil {
		t.Fatalf("does not read back what it wrote: %v\n%s", err, out)
	}
	if diff := cmp.Diff(m, again, sameValue); diff != "" {
		t.Fatalf("reads back another manifest (-first +second):\n%s\n%s", diff, out)
	}
	asJSON, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var fromJSON Manifest
	if err := json.Unmarshal(asJSON, &fromJSON); err != nil {
		t.Fatalf("does not read back the JSON it wrote: %v\n%s", err, asJSON)
	}
	if diff := cmp.Diff(m, fromJSON, sameValue); diff != "" {
		t.Fatalf("reads back another manifest from JSON:\n%s\n%s", diff, asJSON)
	}
	return out
}

func TestParseMeaning(t *testing.T) {
	m, err := Parse([]byte(`
groups:
- name: web
  rules:
  - {direction: ingress, protocol: tcp, ports: [80, 8000-8099], from: {cidrs: [10.1.2.3/8, "::/0"], groups: [web]}}
  - {direction: egress, protocol: icmp, icmp: {type: 8, code: 0}, to: {}}
  - {direction: egress, protocol: 47}
vms:
- name: a
  kind: system
  nics:
  - {mac: 02:00:00:00:00:01, bridge: br0, device: [vif1.0, tap1.0], addresses: [10.0.0.1, "fd00::1"], anti_spoofing: false,
     groups: [web], allowed_pairs: [{address: 10.0.0.9, mac: "00:00:5e:00:01:01"}, {address: 10.9.1.1/16}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	eight, zero := uint8(8), uint8(0)
	want := Manifest{
		Groups: []core.Group{{Name: "web", Rules: []core.Rule{
			{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 80}, {First: 8000, Last: 8099}},
				Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0")}, Groups: []string{"web"}}},
			{Direction: core.Egress, Protocol: core.ProtocolICMP, ICMP: &core.ICMPMatch{Type: &eight, Code: &zero}, Peers: &core.Peers{}},
			{Direction: core.Egress, Protocol: 47},
		}}},
		VMs: []core.VM{{Key: "a", Name: "a", Kind: core.SystemVM, NICs: []core.NIC{{
			MAC: core.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
			Pairs: []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.9/32"), MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}},
				{Prefix: netip.MustParsePrefix("10.9.0.0/16")}},
			Groups: []string{"web"}, SpoofingAllowed: true,
			Binding: core.Binding{Bridge: "br0", Devices: []string{"vif1.0", "tap1.0"}},
		}}}},
	}
	if diff := cmp.Diff(want, m, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestAllErrors: several mistakes are told at once, in order, and not without end.
func TestAllErrors(t *testing.T) {
	_, err := Parse([]byte("groups:\n- {name: a, rulez: []}\n- {nmae: b}\nvmz: []\n"))
	want := `groups[0].rulez: unknown key; did you mean rules?
groups[1].nmae: unknown key; did you mean name?
vmz: unknown key; did you mean vms?`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse([]byte("groups:\n" + strings.Repeat("- {nmae: b}\n", 1000)))
	if n := strings.Count(err.Error(), "\n"); n != maxErrors {
		t.Errorf("%d lines", n+1)
	}
}

func TestLimits(t *testing.T) {
	if _, err := Parse(make([]byte, MaxBytes+1)); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("too long: %v", err)
	}
	if _, err := Parse([]byte(strings.Repeat("[", 1<<20))); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("too deep: %v", err)
	}
	// 2,000 groups of 2,000 rules, each an alias.
	bomb := "groups:\n- &g\n  name: g\n  rules:\n  - &r {direction: ingress, protocol: tcp}\n" +
		strings.Repeat("  - *r\n", 2000) + strings.Repeat("- *g\n", 2000)
	if _, err := Parse([]byte(bomb)); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("alias bomb: %v", err)
	}
}

func TestCheckGroups(t *testing.T) {
	m, err := Parse([]byte("groups: [{name: a, rules: [{direction: egress, protocol: any, to: {groups: [a, elsewhere, nowhere]}}]}]\n" +
		"vms: [{name: v, nics: [{mac: 02:00:00:00:00:01, groups: [a, nowhere]}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	err = m.CheckGroups(func(name string) bool { return name == "elsewhere" })
	want := "groups[0].rules[0].to.groups[2]: nowhere: there is no such group\nvms[0].nics[0].groups[1]: nowhere: there is no such group"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if err := m.CheckGroups(func(string) bool { return true }); err != nil {
		t.Error(err)
	}
}

// FuzzParse: no input panics, and what is accepted is written back as a
// manifest of equal value.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) {
				t.Fatalf("not an ErrInvalid: %v", err)
			}
			return
		}
		roundTrip(t, m)
	})
}
