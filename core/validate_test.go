package core_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
)

func validGroups() []core.Group {
	return []core.Group{
		{Name: "web", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 81}},
			Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8"), netip.MustParsePrefix("::/0")}, Groups: []string{"db"}}}}},
		{Name: "db"},
	}
}

func validVMs() []core.VM {
	nic := func(last byte, device string) core.NIC {
		return core.NIC{MAC: core.MAC{2, 0, 0, 0, 0, last}, Groups: []string{"web"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last}), netip.AddrFrom16([16]byte{0xfd, 15: last}), netip.MustParseAddr("fe80::1")},
			Pairs:     []core.AddressPair{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}, {Prefix: netip.MustParsePrefix("10.9.0.1/24"), MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}}},
			Binding:   core.Binding{Bridge: "cloudbr0", Devices: []string{device}}}
	}
	a := nic(1, "vnet0")
	b := nic(2, "vnet1")
	b.Addresses = b.Addresses[:2]
	return []core.VM{{Key: "a", Name: "my vm", NICs: []core.NIC{a}}, {Key: "b", Kind: core.SystemVM, NICs: []core.NIC{b}}}
}

func TestValidateAccepts(t *testing.T) {
	if err := core.Validate(validGroups(), validVMs()); err != nil {
		t.Error(err)
	}
	if err := core.Validate(nil, nil); err != nil {
		t.Error(err)
	}
	reserved := append(validGroups(), core.Group{Name: "cloudstack/i-2-7-VM"})
	if err := core.Validate(reserved, nil, core.AllowReserved); err != nil {
		t.Error(err)
	}
}

func TestValidateRefuses(t *testing.T) {
	u := func(n uint8) *uint8 { return &n }
	rule := func(change func(*core.Rule)) func([]core.Group, []core.VM) {
		return func(gs []core.Group, _ []core.VM) { change(&gs[0].Rules[0]) }
	}
	nic := func(change func(*core.NIC)) func([]core.Group, []core.VM) {
		return func(_ []core.Group, vms []core.VM) { change(&vms[1].NICs[0]) }
	}
	address := func(s string) func([]core.Group, []core.VM) {
		return nic(func(n *core.NIC) { n.Addresses[1] = netip.MustParseAddr(s) })
	}
	pair := func(s string) func([]core.Group, []core.VM) {
		return nic(func(n *core.NIC) { n.Pairs[1].Prefix = netip.MustParsePrefix(s) })
	}
	name := func(s string) func([]core.Group, []core.VM) {
		return func(gs []core.Group, _ []core.VM) { gs[1].Name, gs[0].Rules[0].Peers.Groups = s, nil }
	}
	mac := core.MAC{2, 0, 0, 0, 0, 1}
	v4only := func(r *core.Rule, p core.Protocol, cidr string) {
		*r = core.Rule{Direction: core.Egress, Protocol: p, Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}}}
	}
	for _, c := range []struct {
		name   string
		change func([]core.Group, []core.VM)
		want   string
	}{
		{"no group name", name(""), "groups[1].name: missing"},
		{"spaces in a group name", name("a b"), "groups[1].name: a b: not a group name"},
		{"a dash first", name("-a"), "groups[1].name: -a: not a group name"},
		{"a long group name", name(strings.Repeat("a", 64)), "groups[1].name: " + strings.Repeat("a", 64) + ": not a group name"},
		{"a line break in a group name", name("a\nb"), `groups[1].name: "a\nb": not a group name`},
		{"a reserved name", name("cloudstack/x"), "groups[1].name: cloudstack/x: names that start with cloudstack/"},
		{"a group twice", name("web"), "groups[1].name: web: is groups[0]'s name too"},
		{"no direction", rule(func(r *core.Rule) { r.Direction = 0 }), "groups[0].rules[0].direction: direction(0): use ingress or egress"},
		{"protocol 0", rule(func(r *core.Rule) { r.Protocol, r.Ports = 0, nil }), "groups[0].rules[0].protocol: 0: use any"},
		{"protocol 256", rule(func(r *core.Rule) { r.Protocol, r.Ports = 256, nil }), "groups[0].rules[0].protocol: 256: use any"},
		{"ports of any", rule(func(r *core.Rule) { r.Protocol = core.AnyProtocol }), "groups[0].rules[0].ports: any has no ports"},
		{"ports of icmp", rule(func(r *core.Rule) { r.Protocol = core.ProtocolICMP }), "groups[0].rules[0].ports: icmp has no ports"},
		{"ports backwards", rule(func(r *core.Rule) { r.Ports[0] = core.Span{First: 9, Last: 8} }), "groups[0].rules[0].ports[0]: 9-8: the range ends before it starts"},
		{"ICMP type of tcp", rule(func(r *core.Rule) { r.ICMP = &core.ICMPMatch{Type: u(8)} }), "groups[0].rules[0].icmp: tcp has no ICMP types"},
		{"a code alone", rule(func(r *core.Rule) { r.Protocol, r.Ports, r.ICMP = core.ProtocolICMP, nil, &core.ICMPMatch{Code: u(0)} }), "groups[0].rules[0].icmp.code: 0: a code needs a type"},
		{"icmp of IPv6 only", rule(func(r *core.Rule) { v4only(r, core.ProtocolICMP, "::/0") }), "groups[0].rules[0].to.cidrs: ::/0: the rule can never match"},
		{"icmpv6 of IPv4 only", rule(func(r *core.Rule) { v4only(r, core.ProtocolICMPv6, "10.0.0.0/8") }), "groups[0].rules[0].to.cidrs: 10.0.0.0/8: the rule can never match"},
		{"no CIDR", rule(func(r *core.Rule) { r.Peers.CIDRs[1] = netip.Prefix{} }), "groups[0].rules[0].from.cidrs[1]: not a CIDR"},
		{"4in6 CIDR", rule(func(r *core.Rule) { r.Peers.CIDRs[1] = netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104) }), "groups[0].rules[0].from.cidrs[1]: ::ffff:10.0.0.0/104: an IPv4 address in IPv6 clothes"},
		{"unknown remote group", rule(func(r *core.Rule) { r.Peers.Groups[0] = "nope" }), "groups[0].rules[0].from.groups[0]: nope: there is no such group"},
		{"too many CIDRs", rule(func(r *core.Rule) { r.Peers.CIDRs = make([]netip.Prefix, core.MaxCIDRs+1) }), "groups[0].rules[0].from.cidrs: 100001 CIDRs; a rule holds at most 100000"},
		{"too many combinations", rule(func(r *core.Rule) {
			r.Ports = make([]core.Span, 11)
			r.Peers.CIDRs = nil
			for range core.MaxCIDRs {
				r.Peers.CIDRs = append(r.Peers.CIDRs, netip.MustParsePrefix("10.0.0.0/8"))
			}
		}), "groups[0].rules: 1100011 combinations"},
		{"no key", func(_ []core.Group, vms []core.VM) { vms[1].Key = "" }, "vms[1].name: missing"},
		{"a line break in a key", func(_ []core.Group, vms []core.VM) { vms[1].Key = "a\nb" }, `vms[1].key: "a\nb": use at most`},
		{"a line break in a name", func(_ []core.Group, vms []core.VM) { vms[1].Name = "a\tb" }, `vms[1].name: "a\tb": use at most`},
		{"a VM twice", func(_ []core.Group, vms []core.VM) { vms[1].Key = "a" }, "vms[1].name: a: is vms[0] too"},
		{"a kind of VM", func(_ []core.Group, vms []core.VM) { vms[1].Kind = 7 }, "vms[1].kind: 7: use user or system"},
		{"a MAC twice", func(_ []core.Group, vms []core.VM) { vms[1].NICs = []core.NIC{{MAC: mac}, {MAC: mac}} }, "vms[1].nics[1].mac: 02:00:00:00:00:01: is nics[0]'s too"},
		{"no MAC", nic(func(n *core.NIC) { n.MAC = core.MAC{} }), "vms[1].nics[0].mac: 00:00:00:00:00:00: not a unicast"},
		{"a group MAC", nic(func(n *core.NIC) { n.MAC[0] |= 1 }), "vms[1].nics[0].mac: 03:00:00:00:00:02: not a unicast"},
		{"no address", nic(func(n *core.NIC) { n.Addresses[1] = netip.Addr{} }), "vms[1].nics[0].addresses[1]: missing or not"},
		{"0.0.0.0", address("0.0.0.0"), "vms[1].nics[0].addresses[1]: 0.0.0.0: the unspecified address"},
		{"::", address("::"), "vms[1].nics[0].addresses[1]: ::: the unspecified address"},
		{"IPv4 multicast", address("224.0.0.1"), "vms[1].nics[0].addresses[1]: 224.0.0.1: a multicast address"},
		{"IPv6 multicast", address("ff02::1"), "vms[1].nics[0].addresses[1]: ff02::1: a multicast address"},
		{"loopback", address("127.0.0.5"), "vms[1].nics[0].addresses[1]: 127.0.0.5: a loopback address"},
		{"IPv6 loopback", address("::1"), "vms[1].nics[0].addresses[1]: ::1: a loopback address"},
		{"broadcast", address("255.255.255.255"), "vms[1].nics[0].addresses[1]: 255.255.255.255: the broadcast address"},
		{"4in6", address("::ffff:10.0.0.9"), "vms[1].nics[0].addresses[1]: ::ffff:10.0.0.9: an IPv4 address in IPv6 clothes"},
		{"a zone", address("fe80::1%eth0"), "vms[1].nics[0].addresses[1]: fe80::1%eth0: a NIC's address has no zone; leave out %eth0"},
		{"another's address on the bridge", address("10.0.0.1"), "vms[1].nics[0].addresses[1]: 10.0.0.1: is vms[0].nics[0].addresses[0] too, on bridge cloudbr0"},
		{"no pair", nic(func(n *core.NIC) { n.Pairs[1].Prefix = netip.Prefix{} }), "vms[1].nics[0].allowed_pairs[1].address: missing"},
		{"multicast pair", pair("224.0.0.0/8"), "vms[1].nics[0].allowed_pairs[1].address: 224.0.0.0/8: a multicast address"},
		{"unspecified pair", pair("0.0.0.0/32"), "vms[1].nics[0].allowed_pairs[1].address: 0.0.0.0/32: the unspecified address"},
		{"a pair's group MAC", nic(func(n *core.NIC) { n.Pairs[1].MAC = core.BroadcastMAC }), "vms[1].nics[0].allowed_pairs[1].mac: ff:ff:ff:ff:ff:ff: not a unicast"},
		{"unknown group", nic(func(n *core.NIC) { n.Groups[0] = "nope" }), "vms[1].nics[0].groups[0]: nope: there is no such group"},
		{"a long device", nic(func(n *core.NIC) { n.Binding.Devices[0] = "vnet567890123456" }), "vms[1].nics[0].devices[0]: vnet567890123456: not an interface name"},
		{"a device twice", nic(func(n *core.NIC) { n.Binding.Devices[0] = "vnet0" }), "vms[1].nics[0].devices[0]: vnet0: is vms[0].nics[0].devices[0] too"},
		{"a bridge with a slash", nic(func(n *core.NIC) { n.Binding.Bridge = "a/b" }), "vms[1].nics[0].bridge: a/b: not an interface name"},
		{"a bridge called ..", nic(func(n *core.NIC) { n.Binding.Bridge = ".." }), "vms[1].nics[0].bridge: ..: not an interface name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			groups, vms := validGroups(), validVMs()
			c.change(groups, vms)
			err := core.Validate(groups, vms)
			var field *core.FieldError
			if !errors.Is(err, core.ErrInvalid) || !errors.As(err, &field) {
				t.Fatalf("got %v", err)
			}
			if first, _, _ := strings.Cut(err.Error(), "\n"); !strings.HasPrefix(first, c.want) {
				t.Errorf("got  %s\nwant %s ...", first, c.want)
			}
		})
	}
}

func TestValidateLetsEqualAddressesBe(t *testing.T) {
	for name, change := range map[string]func(*core.NIC){
		"on another bridge":          func(n *core.NIC) { n.Binding.Bridge = "cloudbr1" },
		"on another host":            func(n *core.NIC) { n.Binding.Point = "other" },
		"not plugged in":             func(n *core.NIC) { n.Binding = core.Binding{} },
		"twice on one NIC, no other": func(n *core.NIC) { n.Addresses[0] = n.Addresses[1] },
	} {
		t.Run(name, func(t *testing.T) {
			vms := validVMs()
			vms[1].NICs[0].Addresses[0] = vms[0].NICs[0].Addresses[0]
			change(&vms[1].NICs[0])
			if err := core.Validate(validGroups(), vms); err != nil {
				t.Error(err)
			}
		})
	}
}

// Every fault is told, one a line, up to a bound.
func TestValidateTellsAll(t *testing.T) {
	groups := []core.Group{{Name: "-"}, {Name: "g", Rules: []core.Rule{{Direction: core.Ingress, Protocol: 0}}}}
	got := core.Validate(groups, []core.VM{{Key: "a", NICs: []core.NIC{{Groups: []string{"nope"}}}}})
	want := strings.Join([]string{
		"groups[0].name: -: not a group name; use 1 to 63 of letters, digits and . _ : / -, a letter or digit first",
		"groups[1].rules[0].protocol: 0: use any, tcp, udp, icmp, icmpv6, sctp or a number from 1 to 255",
		"vms[0].nics[0].mac: 00:00:00:00:00:00: not a unicast MAC address",
		"vms[0].nics[0].groups[0]: nope: there is no such group",
	}, "\n")
	if d := cmp.Diff(want, got.Error()); d != "" {
		t.Error(d)
	}
	many := make([]core.Group, 5000)
	for i := range many {
		many[i].Name = fmt.Sprint("-", i)
	}
	lines := strings.Split(core.Validate(many, nil).Error(), "\n")
	if len(lines) != 101 || lines[100] != "and 4900 more faults: invalid" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}
