package nftables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// ingressChains judge what a VM is sent: docs/semantics.md, the receiver's
// rows. Bridge postrouting sees bridged, flooded, routed and the host's own
// frames alike, with the port they leave by.
//
// The source sets serve as destination sets: what a NIC may send from is what
// it may be sent to.
func (s skeleton) ingressChains() []*nft.Chain {
	toOwn := func(set string, f family) []nft.Rule {
		return []nft.Rule{rule(in(set, outName, etherDst, f.dst), goTo("ingress-"+f.String()))}
	}
	chains := []*nft.Chain{
		{Name: "ingress", Rules: []nft.Rule{
			rule(isEtherType(typeIPv4), s.marks.is(wordEst), in("src4", outName, etherDst, ip4Dst), accept()),
			rule(isEtherType(typeIPv6), s.marks.is(wordEst), in("src6", outName, etherDst, ip6Dst), accept()),
			rule(in("system", outName), goTo("system-in")),
			rule(in("unmanaged", outName), accept()),
			rule(notIn("nics", outName), denyIn(core.ReasonClosedPort)),
			rule(s.marks.is(wordHost), accept()),
			rule(isEtherType(typeVLAN), denyIn(core.ReasonVLAN)),
			rule(isEtherType(typeQinQ), denyIn(core.ReasonVLAN)),
			rule(isEtherType(typeARP), goTo("ingress-arp")),
			rule(isEtherType(typeIPv4), goTo("destination-ipv4")),
			rule(isEtherType(typeIPv6), goTo("destination-ipv6")),
			rule(denyIn(core.ReasonEtherType)),
		}},
		{Name: "system-in", Rules: []nft.Rule{rule(count(core.Ingress, core.ReasonSystem)), rule(goTo("elsewhere"))}},
		{Name: "ingress-arp", Rules: []nft.Rule{
			rule(toGroupMAC(), accept()),
			rule(in("macs", outName, etherDst), accept()),
			rule(in("open", outName), accept()),
			rule(denyIn(core.ReasonDestination)),
		}},
		{Name: "destination-ipv4", Rules: join(
			[]nft.Rule{rule(toGroupMAC(), goTo("ingress-group-ipv4"))},
			toOwn("src4", fam4), toOwn("src4-prefix", fam4),
			[]nft.Rule{
				rule(in("open", outName), goTo("ingress-open-ipv4")),
				rule(denyIn(core.ReasonDestination)),
			})},
		{Name: "destination-ipv6", Rules: join(
			[]nft.Rule{rule(toGroupMAC(), goTo("ingress-group-ipv6"))},
			toOwn("src6", fam6), toOwn("src6-prefix", fam6),
			[]nft.Rule{
				rule(in("link-local6", outName, etherDst, ip6Dst), goTo("ingress-bare6")),
				rule(in("open", outName), goTo("ingress-open-ipv6")),
				rule(denyIn(core.ReasonDestination)),
			})},
		// The link-local address of a NIC without IPv6 hears ND and DHCPv6.
		{Name: "ingress-bare6", Rules: join(s.refuse(), []nft.Rule{
			rule(s.marks.set(wordTaken)),
			rule(jump("ingress-always-ipv6")),
			rule(denyIn(core.ReasonDestination)),
		})},
		{Name: "ingress-always-ipv4", Rules: []nft.Rule{
			rule(isL4(core.ProtocolUDP), equal(srcPort, be16(67)), equal(dstPort, be16(68)), accept()),
			rule(isL4(core.ProtocolUDP), equal(dstPort, be16(67)), denyIn(core.ReasonDHCPGuard)),
		}},
		{Name: "ingress-always-ipv6", Rules: []nft.Rule{
			rule(isL4(core.ProtocolUDP), isPrefix(ip6Dst, "fe80::/10"), equal(srcPort, be16(547)), equal(dstPort, be16(546)), accept()),
			rule(isL4(core.ProtocolUDP), equal(dstPort, be16(547)), denyIn(core.ReasonDHCPGuard)),
			rule(isL4(core.ProtocolICMPv6), jump("ingress-icmp6")),
		}},
		{Name: "ingress-icmp6", Rules: join(
			eachType([]byte{mldQuery, mldReport, mldDone, mldReport2}, accept()),
			eachType([]byte{ndRouterSolicitation, ndRouterAdvert, ndSolicitation, ndAdvertisement, ndRedirect},
				equal(ip6Hop, []byte{255}), accept()),
		)},
	}
	for _, f := range families {
		verdicts, here := "in4", "here4"
		if f.Family == core.IPv6 {
			verdicts, here = "in6", "here6"
		}
		always := rule(jump("ingress-always-" + f.String()))
		decide := []nft.Rule{rule(dispatch(verdicts, outName)), rule(denyIn(core.ReasonClosedPort))}

		// What flows that begin need to know of, or that went astray, is noted
		// before the rules: it counts only if they let the packet out.
		begun := func(note word) []nft.Rule {
			return join(s.refuse(), []nft.Rule{
				rule(s.marks.is(wordEst), accept()),
				rule(s.marks.is(wordAstrayReply), accept()),
				rule(s.marks.set(note)), always}, decide)
		}
		chains = append(chains,
			&nft.Chain{Name: "ingress-" + f.String(), Rules: begun(wordTaken)},
			&nft.Chain{Name: "ingress-open-" + f.String(), Rules: join(
				// To its own MAC it is the receiver, but of other NICs' addresses.
				[]nft.Rule{rule(in("macs", outName, etherDst), notIn(here, f.dst), notIn(here+"-prefix", f.dst), goTo("ingress-"+f.String()))},
				begun(wordStray))})

		// A group MAC is never a part of an established flow: the rules are
		// asked each time.
		group := append(s.refuse(), rule(s.marks.is(wordNew), s.marks.set(wordStray)), always)
		if f.Family == core.IPv6 {
			group = append(group, rule(in("bare6", outName), denyIn(core.ReasonDestination)))
		} else {
			group = append(group, rule(in("bare4", outName), denyIn(core.ReasonDestination)))
		}
		if s.options.Multicast == core.MulticastDrop {
			group = append(group, rule(denyIn(core.ReasonMulticast)))
		}
		chains = append(chains, &nft.Chain{Name: "ingress-group-" + f.String(), Rules: append(group, decide...)})
	}
	return chains
}

// refuse drops what carries a word that passes nobody.
func (s skeleton) refuse() []nft.Rule {
	var rules []nft.Rule
	for _, refused := range refusedWords {
		rules = append(rules, rule(s.marks.is(refused.word), denyIn(refused.reason)))
	}
	return rules
}
