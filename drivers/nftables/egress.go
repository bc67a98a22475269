package nftables

import (
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// egressChains judge what a VM sends, once conntrack has had its say and
// established packets have passed: docs/semantics.md, sender's rows 13 to 26.
func (s skeleton) egressChains() []*nft.Chain {
	egress := []nft.Rule{
		rule(in("system", inName), goTo("system-out")),
		rule(in("unmanaged", inName), accept()),
		rule(notIn("nics", inName), denyOut(core.ReasonClosedPort)),
		rule(isProtocol(typeARP), accept()),
		rule(isProtocol(typeRARP), accept()),
	}
	for _, refused := range refusedWords {
		egress = append(egress, rule(s.marks.is(refused.word), denyOut(refused.reason)))
	}
	egress = append(egress,
		rule(isProtocol(typeIPv6), isL4(core.ProtocolICMPv6), jump("egress-icmp6")),
		rule(isL4(core.ProtocolUDP), jump("egress-dhcp")),
		rule(isProtocol(typeIPv6), in("bare6", inName), denyOut(core.ReasonIPSpoof)),
	)
	if s.options.AllowDNS {
		for _, p := range []core.Protocol{core.ProtocolUDP, core.ProtocolTCP} {
			egress = append(egress, rule(isL4(p), equal(dstPort, be16(53)), accept()))
		}
	}
	egress = append(egress,
		rule(isProtocol(typeIPv4), dispatch("out4", inName)),
		rule(isProtocol(typeIPv6), dispatch("out6", inName)),
		rule(denyOut(core.ReasonClosedPort)),
	)
	hop255 := equal(ip6Hop, []byte{255})
	return []*nft.Chain{
		{Name: "egress", Rules: egress},
		{Name: "system-out", Rules: []nft.Rule{rule(count(core.Egress, core.ReasonSystem)), rule(accept())}},
		{Name: "egress-icmp6", Rules: join(
			eachType([]byte{ndAdvertisement}, jump("egress-na")),
			eachType([]byte{ndRouterAdvert, ndRedirect}, denyOut(core.ReasonRAGuard)),
			eachType([]byte{ndRouterSolicitation, ndSolicitation, ndAdvertisement}, hop255, accept()),
			eachType([]byte{mldReport, mldDone, mldReport2}, accept()),
		)},
		{Name: "egress-na", Rules: []nft.Rule{
			rule(in("open", inName), verdictOnly(expr.VerdictReturn)),
			rule(in("nd6", inName, ndTarget), verdictOnly(expr.VerdictReturn)),
			rule(in("nd6-prefix", inName, ndTarget), verdictOnly(expr.VerdictReturn)),
			rule(denyOut(core.ReasonNDSpoof)),
		}},
		{Name: "egress-dhcp", Rules: []nft.Rule{
			rule(isProtocol(typeIPv4), equal(srcPort, be16(67)), denyOut(core.ReasonDHCPGuard)),
			rule(isProtocol(typeIPv4), equal(dstPort, be16(68)), denyOut(core.ReasonDHCPGuard)),
			rule(isProtocol(typeIPv4), equal(srcPort, be16(68)), equal(dstPort, be16(67)), accept()),
			rule(isProtocol(typeIPv6), equal(srcPort, be16(547)), denyOut(core.ReasonDHCPGuard)),
			rule(isProtocol(typeIPv6), equal(dstPort, be16(546)), denyOut(core.ReasonDHCPGuard)),
			rule(isProtocol(typeIPv6), equal(srcPort, be16(546)), equal(dstPort, be16(547)), goTo("egress-dhcp6")),
		}},
		{Name: "egress-dhcp6", Rules: []nft.Rule{
			rule(isPrefix(ip6Src, "fe80::/10"), accept()),
			rule(in("open", inName), accept()),
			rule(denyOut(core.ReasonDHCPGuard)),
		}},
	}
}

func verdictOnly(kind expr.VerdictKind) []expr.Any { return []expr.Any{verdict(kind)} }

func join(parts ...[]nft.Rule) []nft.Rule {
	var out []nft.Rule
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
