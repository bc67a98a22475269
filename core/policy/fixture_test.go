package policy_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Two VMs on one bridge. a has all of it: both families, a VRRP pair, a plain
// pair and a prefix; b is its neighbour.
var (
	macA    = core.MAC{0x02, 0, 0, 0, 0, 0x0a}
	macB    = core.MAC{0x02, 0, 0, 0, 0, 0x0b}
	macX    = core.MAC{0x02, 0, 0, 0, 0, 0xee} // behind the uplink
	vrrpMAC = core.MAC{0x00, 0x00, 0x5e, 0x00, 0x01, 0x07}

	a4, a6   = ip("10.0.0.10"), ip("fd00::a")
	b4, b6   = ip("10.0.0.11"), ip("fd00::b")
	x4, x6   = ip("192.0.2.1"), ip("2001:db8::1")
	vip4     = ip("10.0.0.100") // a's plain pair
	vrrp4    = ip("10.0.0.101") // a's pair at vrrpMAC
	vrrp6    = ip("fd00::101")
	route4   = ip("10.9.0.7") // within a's prefix pair
	nobody4  = netip.IPv4Unspecified()
	nobody6  = netip.IPv6Unspecified()
	keyA     = core.NICKey{VM: "a", MAC: macA}
	keyB     = core.NICKey{VM: "b", MAC: macB}
	nicA     = policy.AtNIC(keyA)
	nicB     = policy.AtNIC(keyB)
	toX, to6 = policy.Path{SrcMAC: macA, DstMAC: macX, Src: a4, Dst: x4}, policy.Path{SrcMAC: macA, DstMAC: macX, Src: a6, Dst: x6}
)

func ip(s string) netip.Addr         { return netip.MustParseAddr(s) }
func cidr(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func cidrs(ss ...string) *core.Peers { return &core.Peers{CIDRs: prefixes(ss...)} }

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, cidr(s))
	}
	return ps
}

func allow(d core.Direction, p core.Protocol, peers *core.Peers, ports ...core.Span) core.Rule {
	return core.Rule{Direction: d, Protocol: p, Peers: peers, Ports: ports}
}

func port(n uint16) core.Span { return core.Span{First: n, Last: n} }

// input is the fixture: closed both ways but for what group "web" allows.
func input(change ...func(*policy.Input)) policy.Input {
	in := policy.Input{
		Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}, EgressDefault: core.EgressExplicit},
		Groups: []core.Group{
			{Name: "web", Rules: []core.Rule{
				allow(core.Ingress, core.ProtocolTCP, cidrs("192.0.2.0/24", "2001:db8::/32"), port(80)),
				allow(core.Egress, core.ProtocolTCP, cidrs("192.0.2.0/24", "2001:db8::/32"), port(443)),
			}},
			{Name: "none"},
		},
		VMs: []core.VM{
			{Key: "a", Name: "a", NICs: []core.NIC{{
				MAC: macA, Addresses: []netip.Addr{a4, a6}, Groups: []string{"web"},
				Pairs: []core.AddressPair{{Prefix: netip.PrefixFrom(vip4, 32)}, {Prefix: cidr("10.9.0.0/24")},
					{Prefix: netip.PrefixFrom(vrrp4, 32), MAC: vrrpMAC}, {Prefix: netip.PrefixFrom(vrrp6, 128), MAC: vrrpMAC}},
				Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet0"}}}}},
			{Key: "b", Name: "b", NICs: []core.NIC{{
				MAC: macB, Addresses: []netip.Addr{b4, b6}, Groups: []string{"none"},
				Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet1"}}}}},
		},
	}
	for _, c := range change {
		c(&in)
	}
	return in
}

func compile(t testing.TB, change ...func(*policy.Input)) core.Ruleset {
	t.Helper()
	rs, err := policy.Compile(input(change...))
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// Changes of the fixture.
func system(in *policy.Input)      { in.VMs[0].Kind = core.SystemVM }
func unchecked(in *policy.Input)   { in.VMs[0].NICs[0].SpoofingAllowed = true }
func dropGroups(in *policy.Input)  { in.Options.Multicast = core.MulticastDrop }
func allowDNS(in *policy.Input)    { in.Options.AllowDNS = true }
func countOnly(in *policy.Input)   { in.Options.CountOnly = true }
func untilRules(in *policy.Input)  { in.Options.EgressDefault = core.EgressUntilRules }
func leaveGroups(in *policy.Input) { in.VMs[0].NICs[0].Groups = nil }

// homeless leaves a without an address or pair of the family.
func homeless(f core.Family) func(*policy.Input) {
	return func(in *policy.Input) {
		nic := &in.VMs[0].NICs[0]
		var as []netip.Addr
		for _, a := range nic.Addresses {
			if core.FamilyOf(a) != f {
				as = append(as, a)
			}
		}
		var ps []core.AddressPair
		for _, p := range nic.Pairs {
			if core.FamilyOf(p.Prefix.Addr()) != f {
				ps = append(ps, p)
			}
		}
		nic.Addresses, nic.Pairs = as, ps
	}
}

func rule(r core.Rule) func(*policy.Input) {
	return func(in *policy.Input) { in.Groups[0].Rules = append(in.Groups[0].Rules, r) }
}

// want is the shorthand of a verdict.
type want struct {
	allowed bool
	reason  core.Reason
	at      policy.Side
	row     int
}

func verdictOf(v policy.Verdict) want { return want{v.Allowed, v.Reason, v.At, v.Row} }

func dropAt(row int, r core.Reason) want { return want{false, r, policy.AtSender, row} }
func passAt(row int, r core.Reason) want { return want{true, r, policy.AtSender, row} }
func dropIn(row int, r core.Reason) want { return want{false, r, policy.AtReceiver, row} }
func passIn(row int, r core.Reason) want { return want{true, r, policy.AtReceiver, row} }

// diff compares rulesets, deltas and the like; nil and empty are one.
func diff(expected, got any) string {
	return cmp.Diff(expected, got, cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}

// checkName keeps the names of table rows true: each starts with the number of
// the row of docs/semantics.md that decides.
func checkName(t *testing.T, name string, w want) {
	t.Helper()
	if n, _, _ := strings.Cut(name, " "); n != strconv.Itoa(w.row) {
		t.Errorf("named after row %s, but expects row %d", n, w.row)
	}
}
