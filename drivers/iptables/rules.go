package iptables

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// entryMatches turns a group's entries of one direction and family into matches,
// each of which allows. Prefixes that share a protocol and ports become one set,
// so that 1,000 of them are one rule; so are the members of a remote group, which
// all groups share.
func entryMatches(group string, g core.GroupPolicy, d core.Direction, f core.Family, sets ipset.Sets) []options {
	type selector struct {
		protocol core.Protocol
		span     core.Span
	}
	prefixes := map[selector][]netip.Prefix{}
	members := map[selector][]string{}
	for _, e := range g.Entries {
		if e.Direction != d || e.Family != f {
			continue
		}
		s := selector{e.Protocol, e.Span}
		if e.Peer.Group != "" {
			members[s] = append(members[s], e.Peer.Group)
		} else {
			prefixes[s] = append(prefixes[s], e.Peer.Prefix)
		}
	}
	order := func(a, b selector) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.span.First, b.span.First), cmp.Compare(a.span.Last, b.span.Last))
	}
	side := "src"
	if d == core.Egress {
		side = "dst"
	}
	var out []options
	for _, s := range slices.SortedFunc(maps.Keys(prefixes), order) {
		peer := peerPrefixes(group, d, s.protocol, s.span, prefixes[s], sets)
		for _, sel := range selectors(s.protocol, s.span) {
			out = append(out, peer(sel, side))
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(members), order) {
		for _, peer := range members[s] {
			for _, sel := range selectors(s.protocol, s.span) {
				out = append(out, join(sel, inSet(memberSet(peer, f), side)))
			}
		}
	}
	return out
}

// peerPrefixes says how the other end is matched: not at all when it may be
// anybody, by address when there is one prefix, else by a set.
func peerPrefixes(group string, d core.Direction, p core.Protocol, span core.Span, all []netip.Prefix, sets ipset.Sets) func(sel options, side string) options {
	all = widest(all)
	if len(all) == 1 {
		name := map[core.Direction]string{core.Ingress: "-s", core.Egress: "-d"}[d]
		return func(sel options, _ string) options { return join(prefixOption(name, all[0]), sel) }
	}
	f := core.FamilyOf(all[0].Addr())
	name := fmt.Sprintf("rw%d-%.16s", f, sum(group, d.String(), p.String(), span.String()))
	s := ipset.New(ipset.HashNet, f)
	s.About = about{group: group}
	for _, prefix := range all {
		s.Add(prefix)
	}
	sets[name] = s
	return func(sel options, side string) options { return join(sel, inSet(name, side)) }
}

// widest leaves out prefixes that lie within others.
func widest(all []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// memberSet names the set of a remote group's members.
func memberSet(group string, f core.Family) string {
	return fmt.Sprintf("rw%d-%.16s", f, sum("members", group))
}

func addMembers(group string, a core.AddressSet, sets ipset.Sets) {
	for _, f := range core.Families {
		s := ipset.New(ipset.HashIP, f)
		s.About = about{group: group}
		for _, m := range a.Members {
			if core.FamilyOf(m) == f {
				s.AddAddr(m)
			}
		}
		sets[memberSet(group, f)] = s
	}
}

// selectors are the matches of a protocol and a span of its ports, or of types
// and codes, of which there may be several.
func selectors(p core.Protocol, s core.Span) []options {
	switch {
	case s == core.AnySpan:
		return []options{protocol(p)}
	case p.HasPorts():
		return []options{ports(p, nil, &s)}
	}
	name, option := "icmp", "--icmp-type"
	if p == core.ProtocolICMPv6 {
		name, option = "icmp6", "--icmpv6-type"
	}
	var out []options
	for v := int(s.First); v <= int(s.Last); {
		text := strconv.Itoa(v >> 8)
		if v&0xff == 0 && v+0xff <= int(s.Last) {
			v += 0x100 // any code
		} else {
			text += "/" + strconv.Itoa(v&0xff)
			v++
		}
		if match := module(name, xtables.Opt(option, text)); p == core.ProtocolICMP && text[:min(3, len(text))] == "255" {
			out = append(out, join(protocol(p), icmp255(text)))
		} else {
			out = append(out, join(protocol(p), match))
		}
	}
	return out
}

// icmp255 matches type 255, which xt_icmp takes for any type.
func icmp255(text string) options {
	codes := "0xff00:0xffff"
	if _, code, ok := strings.Cut(text, "/"); ok {
		n, _ := strconv.Atoi(code)
		codes = hex(0xff00 | uint32(n))
	}
	return module("u32", xtables.Opt("--u32", "0x0>>0x16&0x3c@0x0>>0x10="+codes))
}

// addRules makes a NIC's chains of rules, which CloudStack names after the VM:
// its ingress rules mark what they allow, its egress rules give it back. The
// latter are asked in mangle, and stand in filter for CloudStack's sake.
func (v nicView) addRules(mangle, filter *xtables.Table, f core.Family, sets ipset.Sets) {
	ingress, egress := []xtables.Rule{mark()}, []xtables.Rule{mark()}
	for _, g := range v.policy.Groups {
		group := v.groups[g]
		for _, match := range entryMatches(g, group, core.Ingress, f, sets) {
			ingress = append(ingress, rule(match, goTo(v.ok())))
		}
		for _, match := range entryMatches(g, group, core.Egress, f, sets) {
			egress = append(egress, rule(match, giveBack()))
		}
	}
	last := rule(giveBack())
	if v.policy.EgressDeny(f) {
		last = v.egress().deny(core.ReasonEgressRules)
	}
	egress = distinct(append(egress, last))
	v.set(filter, v.names.ingress(), distinct(ingress)...)
	v.set(mangle, v.names.egress(), egress...)
	v.set(filter, v.names.egress(), egress...)
}

// distinct leaves out rules that two groups have in common.
func distinct(rules []xtables.Rule) []xtables.Rule {
	seen := map[string]bool{}
	return slices.DeleteFunc(rules, func(r xtables.Rule) bool {
		k := r.Key()
		again := seen[k]
		seen[k] = true
		return again
	})
}

// mark is the first rule of a chain of iptables whose name is not ours alone.
func mark() xtables.Rule { return rule(comment("ringwall")) }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// addressText is a prefix without its length when it is one address, as
// conntrack's options have it.
func addressText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
