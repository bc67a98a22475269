// Package policytest generates worlds (groups, VMs, options), frames through
// them and changes of them, at random and biased towards what hits rules and
// their boundaries. Drivers and the conformance suite share it.
package policytest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"pgregory.net/rapid"
)

// Shape bounds a world. The zero value is a small one on two bridges.
type Shape struct {
	Bridges []string // default br0, br1; addresses repeat on each
	NICs    int      // at most, per bridge; default 3
	Groups  int      // at most; default 3
	Rules   int      // at most, per group; default 4
	// Only is what a backend can do; empty = everything.
	Only []core.Feature
	// Managed and VMPorts of the options; default br* and vnet*.
	Managed, VMPorts []core.Pattern
}

func (s Shape) withDefaults() Shape {
	if len(s.Bridges) == 0 {
		s.Bridges = []string{"br0", "br1"}
	}
	if len(s.Managed) == 0 {
		s.Managed = []core.Pattern{"br*"}
	}
	if len(s.VMPorts) == 0 {
		s.VMPorts = []core.Pattern{"vnet*"}
	}
	for _, d := range []struct {
		n     *int
		value int
	}{{&s.NICs, 3}, {&s.Groups, 3}, {&s.Rules, 4}} {
		if *d.n == 0 {
			*d.n = d.value
		}
	}
	return s
}

func (s Shape) can(f core.Feature) bool { return len(s.Only) == 0 || slices.Contains(s.Only, f) }

// World is an input and the ruleset it compiles to.
type World struct {
	Shape   Shape
	Input   policy.Input
	Ruleset core.Ruleset
}

// Worlds draws valid ones.
func Worlds(s Shape) *rapid.Generator[World] {
	s = s.withDefaults()
	return rapid.Custom(func(t *rapid.T) World {
		in := policy.Input{Options: s.options(t), Groups: s.groups(t)}
		in.VMs = s.vms(t, groupNames(in.Groups))
		return s.compile(t, in)
	})
}

func (s Shape) compile(t *rapid.T, in policy.Input) World {
	rs, err := policy.Compile(in)
	if err != nil {
		t.Fatalf("policytest made an input that does not compile: %v", err)
	}
	return World{s, in, rs}
}

func groupNames(gs []core.Group) []string {
	var names []string
	for _, g := range gs {
		names = append(names, g.Name)
	}
	return names
}

func (s Shape) options(t *rapid.T) core.Options {
	o := core.Options{Bridges: s.Managed, AllowDNS: rapid.Bool().Draw(t, "dns"), Multicast: core.MulticastDrop}
	if s.can(core.FeatureFailClosed) {
		o.VMPorts = s.VMPorts
	}
	if s.can(core.FeatureEgress) && rapid.Bool().Draw(t, "egress explicit") {
		o.EgressDefault = core.EgressExplicit
	}
	if s.can(core.FeatureMulticast) && rapid.Bool().Draw(t, "multicast by rules") {
		o.Multicast = core.MulticastByRules
	}
	return o
}

func (s Shape) groups(t *rapid.T) []core.Group {
	gs := make([]core.Group, rapid.IntRange(1, s.Groups).Draw(t, "groups"))
	for i := range gs {
		gs[i].Name = fmt.Sprintf("g%d", i)
	}
	names := groupNames(gs)
	for i := range gs {
		gs[i].Rules = rapid.SliceOfN(s.Rule(names), 0, s.Rules).Draw(t, "rules of "+gs[i].Name)
	}
	return gs
}

// Rule draws a rule that may name any of the groups.
func (s Shape) Rule(groups []string) *rapid.Generator[core.Rule] {
	s = s.withDefaults()
	return rapid.Custom(func(t *rapid.T) core.Rule {
		r := core.Rule{Direction: core.Ingress, Protocol: rapid.SampledFrom(s.protocols()).Draw(t, "protocol")}
		if s.can(core.FeatureEgress) && rapid.Bool().Draw(t, "egress") {
			r.Direction = core.Egress
		}
		switch {
		case r.Protocol.HasPorts() && rapid.IntRange(0, 3).Draw(t, "ports") > 0:
			r.Ports = rapid.SliceOfN(Spans(), 1, 3).Draw(t, "ports")
		case r.Protocol.IsICMP():
			r.ICMP = icmpMatch(t, r.Protocol)
		}
		r.Peers = s.peers(t, r.Protocol, groups)
		return r
	})
}

func (s Shape) protocols() []core.Protocol {
	ps := []core.Protocol{core.AnyProtocol}
	for _, p := range []struct {
		f  core.Feature
		ps []core.Protocol
	}{
		{core.FeaturePorts, []core.Protocol{core.ProtocolTCP, core.ProtocolTCP, core.ProtocolUDP, core.ProtocolUDP, core.ProtocolSCTP}},
		{core.FeatureICMP, []core.Protocol{core.ProtocolICMP}},
		{core.FeatureProtocols, []core.Protocol{core.ProtocolIGMP, 47}},
	} {
		if s.can(p.f) {
			ps = append(ps, p.ps...)
		}
	}
	if s.can(core.FeatureICMP) && s.can(core.FeatureIPv6) {
		ps = append(ps, core.ProtocolICMPv6)
	}
	return ps
}

// edgePorts are those that some row or rule treats in a way of its own.
var edgePorts = []uint16{0, 1, 22, 53, 67, 68, 79, 80, 81, 443, 546, 547, 1000, 1001, 65534, 65535}

// Spans draws port ranges with ends that Ports likes to hit and to miss.
func Spans() *rapid.Generator[core.Span] {
	return rapid.Custom(func(t *rapid.T) core.Span {
		a := rapid.SampledFrom(edgePorts).Draw(t, "first")
		b := a
		if rapid.Bool().Draw(t, "range") {
			b = rapid.SampledFrom(edgePorts).Draw(t, "last")
		}
		return core.Span{First: min(a, b), Last: max(a, b)}
	})
}

func icmpMatch(t *rapid.T, p core.Protocol) *core.ICMPMatch {
	types := []uint8{policy.ICMPEcho, policy.ICMPTimestamp}
	if p == core.ProtocolICMPv6 {
		types = []uint8{policy.ICMPv6Echo, policy.ICMPv6MLDQuery}
	}
	switch rapid.IntRange(0, 2).Draw(t, "icmp") {
	case 0:
		return nil
	case 1:
		return &core.ICMPMatch{Type: ptr(rapid.SampledFrom(types).Draw(t, "type"))}
	}
	return &core.ICMPMatch{Type: ptr(rapid.SampledFrom(types).Draw(t, "type")), Code: ptr(uint8(0))}
}

func ptr[T any](v T) *T { return &v }

// CIDRs that rules use: everything, the subnet, its neighbours' boundaries and
// single members. Some have host bits set.
var cidrs = map[core.Family][]netip.Prefix{
	core.IPv4: prefixes("0.0.0.0/0", "10.0.0.0/24", "10.0.0.7/28", "10.0.0.10/31", "10.0.0.11/32", "10.0.0.200/32", "192.0.2.0/24", "128.0.0.0/1", "255.255.255.255/32"),
	core.IPv6: prefixes("::/0", "fd00::/64", "fd00::3/124", "fd00::10/127", "fd00::11/128", "fd00::200/128", "2001:db8::/32", "fe80::/10", "ff02::/16"),
}

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func (s Shape) peers(t *rapid.T, p core.Protocol, groups []string) *core.Peers {
	var all []netip.Prefix
	for _, f := range core.Families {
		if p.In(f) && (f == core.IPv4 || s.can(core.FeatureIPv6)) {
			all = append(all, cidrs[f]...)
		}
	}
	// Anybody, and a remote group, are in both families.
	both := s.can(core.FeatureIPv6) || !p.In(core.IPv6)
	switch rapid.IntRange(0, 5).Draw(t, "peers") {
	case 0:
		if both {
			return nil
		}
	case 1:
		return &core.Peers{}
	case 2:
		if both && s.can(core.FeatureRemoteGroups) {
			return &core.Peers{Groups: rapid.SliceOfN(rapid.SampledFrom(groups), 1, 2).Draw(t, "remote groups")}
		}
	}
	return &core.Peers{CIDRs: rapid.SliceOfN(rapid.SampledFrom(all), 1, 4).Draw(t, "CIDRs")}
}
