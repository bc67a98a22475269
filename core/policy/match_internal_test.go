package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"pgregory.net/rapid"
)

// plainMatch is match as a reader would write it: every entry, one by one.
func plainMatch(rs *core.Ruleset, n core.NICPolicy, d core.Direction, p *IP, peer netip.Addr) *Match {
	for _, name := range n.Groups {
		for _, e := range rs.Groups[name].Entries {
			protocol := e.Protocol == core.AnyProtocol || p.Transport != nil && e.Protocol == p.Transport.Protocol()
			if e.Direction == d && e.Family == core.FamilyOf(peer) && protocol && selects(&e, p.Transport) &&
				(e.Peer.Prefix.Contains(peer) || e.Peer.Group != "" && isMember(rs, e.Peer.Group, peer)) {
				return &Match{name, e}
			}
		}
	}
	return nil
}

func TestMatchFindsWhatReadingAllWould(t *testing.T) {
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		low := rapid.Byte().Draw(t, "low")
		if rapid.Bool().Draw(t, "ipv6") {
			return netip.AddrFrom16([16]byte{0xfd, 15: low})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, low})
	})
	transport := rapid.Custom(func(t *rapid.T) Transport {
		port := rapid.Uint16Range(0, 12).Draw(t, "port")
		return rapid.SampledFrom([]Transport{TCP{DstPort: port}, UDP{DstPort: port}, ICMP{Code: uint8(port)}, ICMPv6{Code: uint8(port)},
			Raw(core.ProtocolTCP), Raw(47), nil}).Draw(t, "transport")
	})
	rule := rapid.Custom(func(t *rapid.T) core.Rule {
		r := core.Rule{Direction: rapid.SampledFrom([]core.Direction{core.Ingress, core.Egress}).Draw(t, "direction"),
			Protocol: rapid.SampledFrom([]core.Protocol{core.AnyProtocol, core.ProtocolTCP, core.ProtocolUDP, core.ProtocolICMP, core.ProtocolICMPv6, 47}).Draw(t, "protocol")}
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			first := rapid.Uint16Range(0, 12).Draw(t, "first")
			r.Ports = append(r.Ports, core.Span{First: first, Last: first + rapid.Uint16Range(0, 3).Draw(t, "more")})
		}
		switch rapid.IntRange(0, 3).Draw(t, "peers") {
		case 0:
			return r
		case 1:
			r.Peers = &core.Peers{Groups: []string{rapid.SampledFrom([]string{"g0", "g1"}).Draw(t, "remote")}}
			return r
		}
		r.Peers = &core.Peers{}
		for _, a := range rapid.SliceOfN(addr, 1, 6).Draw(t, "CIDRs") {
			r.Peers.CIDRs = append(r.Peers.CIDRs, netip.PrefixFrom(a, rapid.SampledFrom([]int{0, 8, 24, 27, 30, 31, 32}).Draw(t, "bits")))
		}
		return r
	})
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		in := Input{Options: core.Options{Bridges: []core.Pattern{"*"}}}
		for i := range 2 {
			name := fmt.Sprintf("g%d", i)
			in.Groups = append(in.Groups, core.Group{Name: name, Rules: rapid.SliceOfN(rule, 0, 8).Draw(t, "rules")})
			in.VMs = append(in.VMs, core.VM{Key: core.VMKey(name), NICs: []core.NIC{{MAC: core.MAC{2, 5: byte(i)}, Groups: []string{name, "g0"}[:2-i],
				Addresses: rapid.SliceOfN(addr, 0, 20).Draw(t, "addresses"), Binding: core.Binding{Bridge: "b"}}}})
		}
		rs, err := Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range rs.NICs {
			for range 10 {
				p := &IP{Transport: transport.Draw(t, "packet")}
				a := addr.Draw(t, "peer")
				want, got := plainMatch(&rs, n, core.Ingress, p, a), match(&rs, n, core.Ingress, p, a)
				if (want == nil) != (got == nil) || want != nil && *want != *got {
					t.Fatalf("%v from %v: got %v, want %v", p.Transport, a, got, want)
				}
				if got != nil {
					found++
				}
			}
		}
	})
	if found == 0 {
		t.Error("nothing ever matched")
	}
}
