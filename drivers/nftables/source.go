package nftables

import (
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// sourceChains check who a VM says it is, on every frame and fragment, before
// anything else sees it: docs/semantics.md, sender's rows 4 to 11. A frame of
// an own address costs one look-up; everything else comes after its miss.
func (s skeleton) sourceChains() []*nft.Chain {
	checkMAC := rule(notIn("macs", inName, etherSrc), denyOut(core.ReasonMACSpoof))
	return []*nft.Chain{
		{Name: "source", Rules: []nft.Rule{
			rule(isEtherType(typeIPv4), in("src4", inName, etherSrc, ip4Src), accept()),
			rule(isEtherType(typeIPv6), in("src6", inName, etherSrc, ip6Src), accept()),
			rule(in("system", inName), accept()),
			rule(in("unmanaged", inName), accept()),
			rule(notIn("nics", inName), denyOut(core.ReasonClosedPort)),
			rule(isEtherType(typeVLAN), denyOut(core.ReasonVLAN)),
			rule(isEtherType(typeQinQ), denyOut(core.ReasonVLAN)),
			rule(isEtherType(typeRARP), goTo("source-rarp")),
			rule(in("open", inName), goTo("source-open")),
			rule(isEtherType(typeARP), goTo("source-arp")),
			rule(isEtherType(typeIPv4), goTo("source-ip4")),
			rule(isEtherType(typeIPv6), goTo("source-ip6")),
			rule(denyOut(core.ReasonEtherType)),
		}},
		{Name: "source-open", Rules: []nft.Rule{
			rule(isEtherType(typeARP), accept()),
			rule(isEtherType(typeIPv4), accept()),
			rule(isEtherType(typeIPv6), accept()),
			rule(denyOut(core.ReasonEtherType)),
		}},
		{Name: "source-arp", Rules: []nft.Rule{
			// Ethernet and IPv4, or the offsets below mean something else.
			rule(notEqual(arpFixed, []byte{0, 1, 8, 0, 6, 4}), denyOut(core.ReasonARPSpoof)),
			rule(in("arp4", inName, etherSrc, arpSHA, arpSPA), accept()),
			rule(in("arp4-prefix", inName, etherSrc, arpSHA, arpSPA), accept()),
			checkMAC,
			// A probe asks for an own address in nobody's name (RFC 5227).
			rule(equal(arpOp, be16(1)), isAddr(arpSPA, "0.0.0.0"), in("arp4", inName, etherSrc, arpSHA, arpTPA), accept()),
			rule(equal(arpOp, be16(1)), isAddr(arpSPA, "0.0.0.0"), in("arp4-prefix", inName, etherSrc, arpSHA, arpTPA), accept()),
			rule(denyOut(core.ReasonARPSpoof)),
		}},
		// QEMU announces a guest so after a migration (announce_self).
		{Name: "source-rarp", Rules: []nft.Rule{
			rule(equal(etherDst, core.BroadcastMAC[:]), equal(arpFixed, []byte{0, 1, 8, 0, 6, 4}), equal(arpOp, be16(3)),
				isAddr(arpSPA, "0.0.0.0"), isAddr(arpTPA, "0.0.0.0"),
				in("rarp", inName, etherSrc, arpSHA, arpTHA), accept()),
			rule(denyOut(core.ReasonEtherType)),
		}},
		{Name: "source-ip4", Rules: []nft.Rule{
			rule(in("src4-prefix", inName, etherSrc, ip4Src), accept()),
			checkMAC,
			rule(isAddr(ip4Src, "0.0.0.0"), isL4(core.ProtocolUDP), equal(srcPort, be16(68)), equal(dstPort, be16(67)), goTo("source-dhcp4")),
			rule(denyOut(core.ReasonIPSpoof)),
		}},
		{Name: "source-dhcp4", Rules: []nft.Rule{
			rule(isAddr(ip4Dst, "255.255.255.255"), in("own-mac", inName, etherSrc), accept()),
			rule(denyOut(core.ReasonDHCPGuard)),
		}},
		{Name: "source-ip6", Rules: []nft.Rule{
			rule(in("src6-prefix", inName, etherSrc, ip6Src), accept()),
			checkMAC,
			rule(isAddr(ip6Src, "::"), isL4(core.ProtocolICMPv6), goTo("source-dad6")),
			// A NIC without IPv6 addresses speaks ND, MLD and DHCPv6 from its
			// link-local address and nothing else.
			rule(in("link-local6", inName, etherSrc, ip6Src), isL4(core.ProtocolICMPv6), goTo("source-nd6")),
			rule(in("link-local6", inName, etherSrc, ip6Src), isL4(core.ProtocolUDP), equal(srcPort, be16(546)), equal(dstPort, be16(547)), accept()),
			// Fragments behind the first show no ports, and go nowhere without it.
			rule(in("link-local6", inName, etherSrc, ip6Src), isL4(core.ProtocolUDP), isLaterFragment6(), accept()),
			rule(denyOut(core.ReasonIPSpoof)),
		}},
		{Name: "source-dad6", Rules: []nft.Rule{
			rule(equal(icmpType, []byte{ndSolicitation}), in("dad6", inName, ip6Dst, ndTarget), accept()),
			rule(equal(icmpType, []byte{mldReport}), accept()),
			rule(equal(icmpType, []byte{mldReport2}), accept()),
			rule(denyOut(core.ReasonIPSpoof)),
		}},
		{Name: "source-nd6", Rules: append(eachType(
			[]byte{ndRouterSolicitation, ndSolicitation, ndAdvertisement, mldReport, mldDone, mldReport2}, accept()),
			rule(denyOut(core.ReasonIPSpoof)))},
	}
}

// ICMPv6 types (IANA).
const (
	mldQuery             = 130
	mldReport            = 131
	mldDone              = 132
	ndRouterSolicitation = 133
	ndRouterAdvert       = 134
	ndSolicitation       = 135
	ndAdvertisement      = 136
	ndRedirect           = 137
	mldReport2           = 143
)

// eachType is one rule for each ICMP type.
func eachType(types []byte, then ...[]expr.Any) []nft.Rule {
	var rules []nft.Rule
	for _, t := range types {
		rules = append(rules, rule(append([][]expr.Any{equal(icmpType, []byte{t})}, then...)...))
	}
	return rules
}
