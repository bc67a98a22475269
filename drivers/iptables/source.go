package iptables

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Parts of a NIC's ebtables chains. Those without an own name are CloudStack's.
const (
	partIn     = "in"
	partInType = "in-type"
	partInSrc  = "in-src"
	partInARP  = "in-ips"
	partInIP4  = "in-ip4"
	partInIP6  = "in-ip6"
)

// addSource makes the chains that check who a VM says it is, on every frame and
// fragment, before anything else sees it: docs/semantics.md, the sender's rows
// 4 to 11. A frame that passes ends the table with ACCEPT, as CloudStack's do.
func (v nicView) addSource(nat *xtables.Table) {
	n, ids4, ids6 := v.policy, identities(v.policy, core.IPv4), identities(v.policy, core.IPv6)
	name, out := v.names.frame, v.egress()
	deny := func(r core.Reason, match ...options) xtables.Rule { return out.denyFrame(r, "ACCEPT", match...) }
	own := frameFrom(n.Key.MAC)

	in := []xtables.Rule{
		rule(jump(chainMine)),
		deny(core.ReasonLinkLocal, opt("-d", reservedMAC)),
		deny(core.ReasonVLAN, frame(frameVLAN)),
		deny(core.ReasonVLAN, frame(frameQinQ)),
		// QEMU announces a guest so after a migration (announce_self).
		rule(frame(frameRARP), own, opt("-d", core.BroadcastMAC.String()), opt("--arp-op", "3"),
			opt("--arp-ip-src", "0.0.0.0"), opt("--arp-ip-dst", "0.0.0.0"),
			opt("--arp-mac-src", n.Key.MAC.String()), opt("--arp-mac-dst", n.Key.MAC.String()), accept()),
		rule(jump(name(partInType))),
	}
	v.set(nat, name(partInType),
		rule(frame(frameARP), giveBack()), rule(frame(frameIPv4), giveBack()), rule(frame(frameIPv6), giveBack()),
		deny(core.ReasonEtherType))
	if !n.SpoofingAllowed {
		in = append(in, rule(jump(name(partInSrc))), rule(frame(frameARP), jump(name(partInARP))))
		var macs []xtables.Rule
		for _, m := range macsOf(n) {
			macs = append(macs, rule(frameFrom(m), giveBack()))
		}
		v.set(nat, name(partInSrc), append(macs, deny(core.ReasonMACSpoof))...)
		v.set(nat, name(partInARP), append(sourceARP(ids4), deny(core.ReasonARPSpoof))...)
	}
	in = append(in,
		rule(frame(frameARP), opt("--arp-op", "1"), accept()),
		rule(frame(frameARP), opt("--arp-op", "2"), accept()),
		rule(frame(frameARP), accept()),
		rule(frame(frameARP), drop()), // CloudStack's verify looks for it
	)
	if !n.SpoofingAllowed {
		in = append(in, rule(frame(frameIPv4), jump(name(partInIP4))), rule(frame(frameIPv6), jump(name(partInIP6))))
		ip4 := sourceIPs(frameIPv4, "--ip-src", ids4)
		client := func(match ...options) options {
			return join(append([]options{frame(frameIPv4), opt("--ip-src", "0.0.0.0")}, match...)...)
		}
		ports := join(opt("--ip-proto", "17"), opt("--ip-sport", "68"), opt("--ip-dport", "67"))
		ip4 = append(ip4,
			rule(frame(frameIPv4), own, opt("--ip-src", "0.0.0.0"), opt("--ip-dst", "255.255.255.255"), ports, giveBack()),
			deny(core.ReasonDHCPGuard, client(ports)),
			deny(core.ReasonIPSpoof))
		v.set(nat, name(partInIP4), ip4...)
		v.set(nat, name(partInIP6), append(append(sourceIPs(frameIPv6, "--ip6-src", ids6), sourceUnspecified(ids6)...),
			deny(core.ReasonIPSpoof))...)
	}
	in = append(in,
		rule(frame(frameIPv4), frameMark(v.marks.from, "CONTINUE")),
		rule(frame(frameIPv6), frameMark(v.marks.from, "CONTINUE")),
		rule(accept()))
	v.set(nat, name(partIn), in...)
}

// sourceARP gives back what speaks for an own address, and probes that ask for
// one in nobody's name (RFC 5227).
func sourceARP(ids []identity) []xtables.Rule {
	var out []xtables.Rule
	for _, id := range ids {
		out = append(out, rule(frame(frameARP), frameFrom(id.mac), arpPrefix("--arp-ip-src", id.prefix), opt("--arp-mac-src", id.mac.String()), giveBack()))
	}
	for _, id := range ids {
		out = append(out, rule(frame(frameARP), frameFrom(id.mac), opt("--arp-op", "1"), opt("--arp-ip-src", "0.0.0.0"),
			framePrefix("--arp-ip-dst", id.prefix), opt("--arp-mac-src", id.mac.String()), giveBack()))
	}
	return out
}

// arpPrefix makes sure that the message is for Ethernet and IPv4 when no address
// is asked for: ebtables looks at its lengths for addresses alone.
func arpPrefix(name string, p netip.Prefix) options {
	if p.Bits() == 0 {
		return join(opt("--arp-htype", "1"), opt("--arp-ptype", "0x800"))
	}
	return framePrefix(name, p)
}

func sourceIPs(etherType, name string, ids []identity) []xtables.Rule {
	var out []xtables.Rule
	for _, id := range ids {
		out = append(out, rule(frame(etherType), frameFrom(id.mac), framePrefix(name, id.prefix), giveBack()))
	}
	return out
}

// sourceUnspecified lets duplicate address detection and multicast listeners
// speak from ::. Whether the target is own, ip6tables sees to.
func sourceUnspecified(ids []identity) []xtables.Rule {
	nobody := join(frame(frameIPv6), opt("--ip6-src", "::"))
	var out []xtables.Rule
	seen := map[netip.Addr]bool{}
	for _, id := range ids {
		group := core.SolicitedNode(id.prefix.Addr())
		if !id.own || seen[group] {
			continue
		}
		seen[group] = true
		out = append(out, rule(nobody, opt("--ip6-dst", group.String()), opt("--ip6-proto", "ipv6-icmp"), opt("--ip6-icmp-type", "135"), giveBack()))
	}
	for _, typ := range []string{"131", "143"} {
		out = append(out, rule(nobody, opt("--ip6-proto", "ipv6-icmp"), opt("--ip6-icmp-type", typ), giveBack()))
	}
	return out
}

func join(parts ...options) options {
	var out options
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
