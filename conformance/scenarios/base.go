package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// The common world: a and b on br0, in groups of their own, and an outsider u
// behind the uplink.
var (
	macA = core.MAC{2, 0, 0, 0, 0, 0x0a}
	macB = core.MAC{2, 0, 0, 0, 0, 0x0b}
	macC = core.MAC{2, 0, 0, 0, 0, 0x0c}
	macU = core.MAC{2, 0, 0, 0, 0xfd, 0}

	a4, a6 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	b4, b6 = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")
	c4, c6 = netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::3")
	u4, u6 = netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")
)

func options() core.Options {
	return core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*", "vif*"}}
}

func nic(mac core.MAC, device string, groups []string, addrs ...netip.Addr) core.NIC {
	return core.NIC{MAC: mac, Groups: groups, Addresses: addrs, Binding: core.Binding{Bridge: "br0", Devices: []string{device}}}
}

func vm(name string, nics ...core.NIC) core.VM {
	return core.VM{Key: core.VMKey(name), Name: name, NICs: nics}
}

// pair is a and b with the given rules for b, and none for a.
func pair(rules ...core.Rule) World {
	return World{
		Options: options(),
		Groups:  []core.Group{{Name: "ga"}, {Name: "gb", Rules: rules}},
		VMs: []core.VM{
			vm("a", nic(macA, "vnet0", []string{"ga"}, a4, a6)),
			vm("b", nic(macB, "vnet1", []string{"gb"}, b4, b6)),
		},
	}
}

func allow(d core.Direction, p core.Protocol, ports []core.Span, peers *core.Peers) core.Rule {
	return core.Rule{Direction: d, Protocol: p, Ports: ports, Peers: peers}
}

func ports(first, last uint16) []core.Span { return []core.Span{{First: first, Last: last}} }

func cidrs(all ...string) *core.Peers { return &core.Peers{CIDRs: prefixes(all...)} }

// both families' paths between the usual ends.
type ends struct {
	family     core.Family
	ab, ba     policy.Path
	au, ua     policy.Path
	bu, ub     policy.Path
	a, b, c, u netip.Addr
}

func families() []ends {
	var out []ends
	for _, f := range core.Families {
		a, b, c, u := a4, b4, c4, u4
		if f == core.IPv6 {
			a, b, c, u = a6, b6, c6, u6
		}
		p := func(sm, dm core.MAC, s, d netip.Addr) policy.Path {
			return policy.Path{SrcMAC: sm, DstMAC: dm, Src: s, Dst: d}
		}
		out = append(out, ends{f, p(macA, macB, a, b), p(macB, macA, b, a), p(macA, macU, a, u), p(macU, macA, u, a),
			p(macB, macU, b, u), p(macU, macB, u, b), a, b, c, u})
	}
	return out
}

func prefixes(all ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, s := range all {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
