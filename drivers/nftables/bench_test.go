package nftables

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// manyNICs is n VMs with a NIC and a group of 20 rules each. Every group lets
// the group "all", which every NIC has, in on port 22.
func manyNICs(n int) policy.Input {
	in := policy.Input{Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}}}
	all := core.Group{Name: "all", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolTCP,
		Ports: []core.Span{{First: 22, Last: 22}}, Peers: &core.Peers{Groups: []string{"all"}}}}}
	in.Groups = append(in.Groups, all)
	for i := range n {
		g := core.Group{Name: fmt.Sprintf("g%d", i)}
		for r := range 20 {
			g.Rules = append(g.Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolTCP,
				Ports: []core.Span{{First: uint16(1000 + r), Last: uint16(1000 + r)}},
				Peers: &core.Peers{CIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r), byte(i), 0}), 24)}}})
		}
		in.Groups = append(in.Groups, g)
		in.VMs = append(in.VMs, core.VM{Key: core.VMKey(fmt.Sprintf("vm%d", i)), Name: fmt.Sprintf("vm%d", i), NICs: []core.NIC{{
			MAC:       core.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})},
			Groups:    []string{"all", g.Name},
			Binding:   core.Binding{Bridge: "br0", Devices: []string{fmt.Sprintf("vnet%d", i)}},
		}}})
	}
	return in
}

func benchBackend(b *testing.B) *Backend {
	b.Helper()
	h := labtest.New(b, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0"})
	return openBackend(b, h)
}

func openBackend(t testing.TB, h *labtest.Host) *Backend {
	t.Helper()
	var backend *Backend
	labtest.Check(t, h.Do(func() error {
		opened, err := Driver().Open(context.Background(), nil)
		if err == nil {
			backend = opened.(*Backend)
		}
		return err
	}))
	t.Cleanup(func() { backend.Close() })
	return backend
}

func compiled(t testing.TB, in policy.Input) core.Ruleset {
	t.Helper()
	return labtest.Must(policy.Compile(in))(t)
}

// BenchmarkSync makes 1,000 NICs x 20 rules from nothing. The yardstick in the
// same run is nft, with the same ruleset as text.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{100, 1000} {
		in := manyNICs(n)
		r := compiled(b, in)
		b.Run(fmt.Sprintf("nics=%d", n), func(b *testing.B) {
			backend := benchBackend(b)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				labtest.Check(b, backend.Teardown(b.Context()))
				b.StartTimer()
				labtest.Check(b, backend.Sync(b.Context(), r))
			}
		})
		b.Run(fmt.Sprintf("nics=%d/in-sync", n), func(b *testing.B) {
			backend := benchBackend(b)
			labtest.Check(b, backend.Sync(b.Context(), r))
			b.ReportAllocs()
			for b.Loop() {
				labtest.Check(b, backend.Sync(b.Context(), r))
			}
		})
		b.Run(fmt.Sprintf("nics=%d/nft", n), func(b *testing.B) {
			h := labtest.New(b, lab.Options{})
			h.AddBridge(lab.BridgeSpec{Name: "br0"})
			backend := openBackend(b, h)
			labtest.Check(b, backend.Sync(b.Context(), r))
			var text []byte
			labtest.Check(b, h.Do(func() error {
				out, err := exec.Command("nft", "list", "table", "bridge", TableName).Output()
				text = policiesOf(out)
				return err
			}))
			for b.Loop() {
				b.StopTimer()
				labtest.Check(b, backend.Teardown(b.Context()))
				b.StartTimer()
				labtest.Check(b, h.Do(func() error {
					cmd := exec.Command("nft", "-f", "-")
					cmd.Stdin = bytes.NewReader(text)
					out, err := cmd.CombinedOutput()
					if err != nil {
						return fmt.Errorf("%w: %.300s", err, out)
					}
					return nil
				}))
			}
		})
	}
}

// policiesOf leaves of a listed table what grows with the policies: sets, and
// the chains of groups and NICs. Some of the others nft 1.0.6 lists in a form
// that it does not read.
func policiesOf(listed []byte) []byte {
	for offset, field := range map[string]string{"@nh,96,32": "ip saddr", "@nh,128,32": "ip daddr", "@nh,64,128": "ip6 saddr", "@nh,192,128": "ip6 daddr"} {
		listed = bytes.ReplaceAll(listed, []byte(offset), []byte(field))
	}
	var out []byte
	for block := range bytes.SplitSeq(listed, []byte("\n\n")) {
		text := bytes.TrimSpace(bytes.TrimPrefix(block, []byte("table bridge ringwall {\n")))
		isPolicy := bytes.HasPrefix(text, []byte("set ")) || bytes.HasPrefix(text, []byte("map ")) ||
			bytes.HasPrefix(text, []byte("chain nic/")) || bytes.HasPrefix(text, []byte("chain group/")) || bytes.HasPrefix(text, []byte("chain deny/"))
		if !isPolicy || bytes.HasPrefix(text, []byte("set "+fingerprintName)) {
			continue
		}
		out = append(append(out, text...), '\n')
	}
	return append(append([]byte("table bridge ringwall {\n"), out...), '}')
}

// BenchmarkApply changes one thing with 1,000 NICs present.
func BenchmarkApply(b *testing.B) {
	in := manyNICs(1000)
	member := in
	member.VMs = append(append([]core.VM(nil), in.VMs...), core.VM{Key: "far", Name: "far", NICs: []core.NIC{{MAC: core.MAC{2, 9}, Groups: []string{"all"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.1")}, Binding: core.Binding{Point: "elsewhere"}}}})
	rules := in
	rules.Groups = append([]core.Group(nil), in.Groups...)
	changed := core.Group{Name: "g7"}
	for r := range 20 {
		changed.Rules = append(changed.Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolUDP, Ports: []core.Span{{First: uint16(2000 + r), Last: uint16(2000 + r)}},
			Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}})
	}
	rules.Groups[8] = changed
	for name, other := range map[string]policy.Input{"one-member": member, "one-nics-rules": rules} {
		b.Run(name, func(b *testing.B) {
			backend := benchBackend(b)
			from, to := policy.Version(compiled(b, in)), policy.Version(compiled(b, other))
			there, back := policy.Diff(from, to), policy.Diff(to, from)
			labtest.Check(b, backend.Sync(b.Context(), from.Ruleset))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d := there
				if i%2 == 1 {
					d = back
				}
				labtest.Check(b, backend.Apply(b.Context(), d))
			}
		})
	}
}

// TestChangesAreSmall: what a change costs does not grow with the NICs.
func TestChangesAreSmall(t *testing.T) {
	in := manyNICs(200)
	from := policy.Version(compiled(t, in))
	r := renderer{settings: settings{marks: marks{mask: 0xf00, flow: 7 << 29}}}
	messages := func(next policy.Input) *nft.Tx {
		to := policy.Version(compiled(t, next))
		old := newEnforced(from.Ruleset, from.Fingerprint)
		e, sc, err := old.advance(policy.Diff(from, to))
		labtest.Check(t, err)
		before, after := r.part(old, sc, true), r.part(e, sc, false)
		e.keepShared(before, after)
		return nft.Diff(before, after)
	}
	member := in
	member.VMs = append(append([]core.VM(nil), in.VMs...), core.VM{Key: "far", Name: "far", NICs: []core.NIC{{MAC: core.MAC{2, 9}, Groups: []string{"all"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.1")}, Binding: core.Binding{Point: "elsewhere"}}}})
	if n := messages(member).Len(); n != 3 { // the element; the fingerprint, taken out and put in
		t.Errorf("a member more is %d messages, want 3", n)
	}
}
