package policy_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func entry(d core.Direction, p core.Protocol, first, last uint16, peer string) core.Entry {
	e := core.Entry{Direction: d, Protocol: p, Span: core.Span{First: first, Last: last}}
	if pre, err := netip.ParsePrefix(peer); err == nil {
		e.Peer.Prefix, e.Family = pre, core.FamilyOf(pre.Addr())
	} else {
		e.Peer.Group = peer
	}
	return e
}

func in(f core.Family, e core.Entry) core.Entry { e.Family = f; return e }

func TestEntriesOfRules(t *testing.T) {
	const tcp, any = core.ProtocolTCP, core.AnyProtocol
	echo, zero := uint8(8), uint8(0)
	for _, c := range []struct {
		name  string
		rules []core.Rule
		want  []core.Entry
	}{
		{"no peers are anybody of both families", []core.Rule{allow(core.Ingress, tcp, nil, port(80))},
			[]core.Entry{entry(core.Ingress, tcp, 80, 80, "0.0.0.0/0"), entry(core.Ingress, tcp, 80, 80, "::/0")}},
		{"an empty list is nobody", []core.Rule{allow(core.Ingress, tcp, &core.Peers{}, port(80))}, nil},
		{"families are those of the CIDRs", []core.Rule{allow(core.Egress, any, cidrs("10.0.0.0/8"))},
			[]core.Entry{entry(core.Egress, any, 0, 65535, "10.0.0.0/8")}},
		{"no peer of a family is not anybody of it", []core.Rule{allow(core.Egress, any, cidrs("::/0"))},
			[]core.Entry{entry(core.Egress, any, 0, 65535, "::/0")}},
		{"CIDRs are masked and deduplicated", []core.Rule{allow(core.Ingress, tcp, cidrs("10.1.2.3/8", "10.0.0.0/8"))},
			[]core.Entry{entry(core.Ingress, tcp, 0, 65535, "10.0.0.0/8")}},
		{"remote groups count for both families", []core.Rule{allow(core.Ingress, tcp, &core.Peers{Groups: []string{"web"}})},
			[]core.Entry{in(core.IPv4, entry(core.Ingress, tcp, 0, 65535, "web")), in(core.IPv6, entry(core.Ingress, tcp, 0, 65535, "web"))}},
		{"icmp is IPv4", []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolICMP}},
			[]core.Entry{entry(core.Ingress, core.ProtocolICMP, 0, 65535, "0.0.0.0/0")}},
		{"icmp is IPv4 whatever the CIDRs", []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolICMP, Peers: cidrs("10.0.0.0/8", "::/0")}},
			[]core.Entry{entry(core.Ingress, core.ProtocolICMP, 0, 65535, "10.0.0.0/8")}},
		{"icmpv6 of a group is IPv6", []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolICMPv6, Peers: &core.Peers{Groups: []string{"web"}}}},
			[]core.Entry{in(core.IPv6, entry(core.Ingress, core.ProtocolICMPv6, 0, 65535, "web"))}},
		{"ICMP type", []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolICMP, ICMP: &core.ICMPMatch{Type: &echo}}},
			[]core.Entry{entry(core.Ingress, core.ProtocolICMP, 8<<8, 8<<8|255, "0.0.0.0/0")}},
		{"ICMP type and code", []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolICMP, ICMP: &core.ICMPMatch{Type: &echo, Code: &zero}}},
			[]core.Entry{entry(core.Ingress, core.ProtocolICMP, 8<<8, 8<<8, "0.0.0.0/0")}},
		{"ports that overlap or touch are joined", []core.Rule{
			allow(core.Ingress, tcp, cidrs("10.0.0.0/8"), core.Span{First: 1, Last: 10}, core.Span{First: 5, Last: 7}, port(11)),
			allow(core.Ingress, tcp, cidrs("10.0.0.0/8"), port(13), port(65535))},
			[]core.Entry{entry(core.Ingress, tcp, 1, 11, "10.0.0.0/8"), entry(core.Ingress, tcp, 13, 13, "10.0.0.0/8"), entry(core.Ingress, tcp, 65535, 65535, "10.0.0.0/8")}},
		{"ports of different peers are not", []core.Rule{
			allow(core.Ingress, tcp, cidrs("10.0.0.0/8"), port(1)), allow(core.Ingress, tcp, cidrs("10.0.0.0/9"), port(2))},
			[]core.Entry{entry(core.Ingress, tcp, 1, 1, "10.0.0.0/8"), entry(core.Ingress, tcp, 2, 2, "10.0.0.0/9")}},
		{"all ports at last", []core.Rule{allow(core.Ingress, tcp, cidrs("10.0.0.0/8"), core.Span{First: 0, Last: 99}, core.Span{First: 100, Last: 65535})},
			[]core.Entry{entry(core.Ingress, tcp, 0, 65535, "10.0.0.0/8")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rs := compile(t, func(in *policy.Input) { in.Groups[0].Rules = c.rules })
			if d := diff(c.want, rs.Groups["web"].Entries); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEgressDefault(t *testing.T) {
	out := func(peers *core.Peers) func(*policy.Input) {
		return func(in *policy.Input) {
			in.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.AnyProtocol, nil), allow(core.Egress, core.ProtocolTCP, peers)}
		}
	}
	for _, c := range []struct {
		name       string
		change     []func(*policy.Input)
		want4, in6 bool
	}{
		{"explicit", nil, true, true},
		{"explicit without groups", with(leaveGroups), true, true},
		{"until rules without groups", with(untilRules, leaveGroups), false, false},
		{"until rules with ingress only", with(untilRules, out(&core.Peers{})), false, false},
		{"until rules of IPv4", with(untilRules, out(cidrs("10.0.0.0/8"))), true, false},
		{"until rules of IPv6", with(untilRules, out(cidrs("::/0"))), false, true},
		{"until rules of anybody", with(untilRules, out(nil)), true, true},
		{"system VM", with(system), false, false},
		{"until rules of an empty group", with(untilRules, out(&core.Peers{Groups: []string{"none"}})), true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := compile(t, c.change...).NICs[keyA]
			if n.EgressDeny4 != c.want4 || n.EgressDeny6 != c.in6 {
				t.Errorf("denied: ipv4 %v, ipv6 %v; want %v, %v", n.EgressDeny4, n.EgressDeny6, c.want4, c.in6)
			}
		})
	}
}

func TestMembers(t *testing.T) {
	rs := compile(t, func(in *policy.Input) {
		in.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.AnyProtocol, &core.Peers{Groups: []string{"web", "none"}})}
		b := &in.VMs[1].NICs[0]
		b.Addresses = append(b.Addresses, ip("fe80::5"))
		b.Pairs = []core.AddressPair{{Prefix: cidr("169.254.1.1/32")}, {Prefix: cidr("10.0.0.100/32")}}
		far := core.NIC{MAC: macX, Addresses: []netip.Addr{x4, b4}, Groups: []string{"none"}, Binding: core.Binding{Bridge: "br0", Point: "other-host"}}
		in.VMs = append(in.VMs, core.VM{Key: "far", NICs: []core.NIC{far}})
	})
	want := map[string]core.AddressSet{
		"web":  {Members: []netip.Addr{a4, vip4, vrrp4, a6, vrrp6}},
		"none": {Members: []netip.Addr{b4, vip4, x4, b6}},
	}
	if d := diff(want, rs.Sets); d != "" {
		t.Error(d)
	}
	if len(rs.NICs) != 2 {
		t.Errorf("%d NICs, want those on this point only", len(rs.NICs))
	}
}

func TestCompileTakesWhatIsHere(t *testing.T) {
	rs := compile(t, func(in *policy.Input) {
		in.Options.Unmanaged = []core.Pattern{"br1"}
		in.Groups = append(in.Groups, core.Group{Name: "unused"})
		nic := func(bridge string, m byte) core.NIC {
			return core.NIC{MAC: core.MAC{2, 9, 0, 0, 0, m}, Groups: []string{"unused"}, Binding: core.Binding{Bridge: bridge}}
		}
		in.VMs = append(in.VMs, core.VM{Key: "c", NICs: []core.NIC{nic("br1", 1), nic("virbr0", 2), nic("", 3)}})
	})
	if len(rs.NICs) != 2 {
		t.Errorf("%d NICs; those on unmanaged or no bridges are none of ours", len(rs.NICs))
	}
	if _, ok := rs.Groups["unused"]; ok || len(rs.Groups) != 2 {
		t.Errorf("groups %v; want those of NICs here only", rs.Groups)
	}
}

func TestCompileNormalisesNICs(t *testing.T) {
	rs := compile(t, func(in *policy.Input) {
		n := &in.VMs[0].NICs[0]
		n.Addresses = []netip.Addr{a6, a4, a6}
		n.Groups = []string{"web", "none", "web"}
		n.Binding.Devices = []string{"vif1.0", "tap1.0"}
		n.Pairs = []core.AddressPair{{Prefix: cidr("10.9.0.7/24")}, {Prefix: cidr("10.9.0.0/24"), MAC: macA}}
	})
	want := core.NICPolicy{Key: keyA, VM: "a", Bridge: "br0", Devices: []string{"tap1.0", "vif1.0"}, Addresses: []netip.Addr{a4, a6},
		Pairs: []core.AddressPair{{Prefix: cidr("10.9.0.0/24")}}, Groups: []string{"none", "web"}, EgressDeny4: true, EgressDeny6: true}
	if d := diff(want, rs.NICs[keyA]); d != "" {
		t.Error(d)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*policy.Input)
		want   error
		nics   int
	}{
		{"one device, two NICs", func(in *policy.Input) { in.VMs[1].NICs[0].Binding.Devices = []string{"vnet0"} }, core.ErrConflict, 2},
		{"a group nobody defined", func(in *policy.Input) { in.VMs[1].NICs[0].Groups = []string{"nope"} }, core.ErrInvalid, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := policy.Compile(input(c.change))
			var object *core.ObjectError
			if !errors.Is(err, c.want) || !errors.As(err, &object) || len(object.NICs) != c.nics {
				t.Errorf("got %v, want %v that names %d NICs", err, c.want, c.nics)
			}
		})
	}
}
