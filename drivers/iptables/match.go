package iptables

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// This file is the vocabulary of the rules: matches and targets of the three
// programs, spelled as their save programs print them.

type options = []xtables.Option

func opt(name string, values ...string) options { return options{xtables.Opt(name, values...)} }

// rule joins matches and a target.
func rule(parts ...options) xtables.Rule { return xtables.New(parts...) }

// Targets.

func jump(chain string) options { return opt("-j", chain) }
func goTo(chain string) options { return opt("-g", chain) }
func drop() options             { return jump("DROP") }
func accept() options           { return jump("ACCEPT") }
func giveBack() options         { return jump("RETURN") }

// setMark writes value into the bits of mask, in iptables.
func setMark(value, mask uint32) options {
	return options{xtables.Opt("-j", "MARK"), xtables.Opt("--set-xmark", hex(value)+"/"+hex(mask))}
}

// frameMark adds bits in ebtables, and goes on with then.
func frameMark(bits uint32, then string) options {
	return options{xtables.Opt("-j", "mark"), xtables.Opt("--mark-or", hex(bits)), xtables.Opt("--mark-target", then)}
}

// frameUnmark takes bits away in ebtables.
func frameUnmark(bits uint32) options {
	return options{xtables.Opt("-j", "mark"), xtables.Opt("--mark-and", hex(^bits)), xtables.Opt("--mark-target", "CONTINUE")}
}

// Matches of iptables and ip6tables.

// module is a match of an extension.
func module(name string, opts ...xtables.Option) options {
	return append(options{xtables.Opt("-m", name)}, opts...)
}

func comment(text string) options { return module("comment", xtables.Opt("--comment", text)) }

func bridged() xtables.Option { return xtables.Opt("--physdev-is-bridged") }

func fromPort(device string) options { return module("physdev", xtables.Opt("--physdev-in", device)) }
func toPort(device string) options {
	return module("physdev", xtables.Opt("--physdev-out", device), bridged())
}

func marked(value, mask uint32) options {
	return module("mark", xtables.Opt("--mark", maskText(value, mask)))
}

func maskText(value, mask uint32) string { return hex(value) + "/" + hex(mask) }

func state(states ...string) options {
	return module("conntrack", xtables.Opt("--ctstate", strings.Join(states, ",")))
}

func (m marks) isRevoked() options { return flowMarked(m.revoked, m.revoked) }

// isStraight matches all but flows that are astray, which are established at one
// end alone.
func (m marks) isStraight() options {
	return module("connmark", xtables.NotOpt("--mark", maskText(m.astray, m.astray|m.taken)))
}

func flowMarked(value, mask uint32) options {
	return module("connmark", xtables.Opt("--mark", maskText(value, mask)))
}

// markFlow writes value into the bits of mask of the conntrack mark.
func markFlow(value, mask uint32) options {
	return options{xtables.Opt("-j", "CONNMARK"), xtables.Opt("--set-xmark", maskText(value, mask))}
}

// established matches a direction of flows: ORIGINAL is as their first packet went.
func established(direction string) options {
	return module("conntrack", xtables.Opt("--ctstate", "ESTABLISHED"), xtables.Opt("--ctdir", direction))
}

// toUnicast matches frames to a unicast MAC: br_netfilter calls those of other
// hosts "host" while the ip hooks look at them.
func toUnicast() options { return module("pkttype", xtables.Opt("--pkt-type", "unicast")) }
func toGroup() options   { return module("pkttype", xtables.NotOpt("--pkt-type", "unicast")) }

func inSet(set, side string) options { return module("set", xtables.Opt("--match-set", set, side)) }
func notInSet(set, side string) options {
	return module("set", xtables.NotOpt("--match-set", set, side))
}

func source(p netip.Prefix) options      { return prefixOption("-s", p) }
func destination(p netip.Prefix) options { return prefixOption("-d", p) }

func prefixOption(name string, p netip.Prefix) options {
	if p.Bits() == 0 {
		return nil
	}
	return opt(name, p.String())
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func protocol(p core.Protocol) options {
	switch p {
	case core.AnyProtocol:
		return nil
	case core.ProtocolICMPv6:
		return opt("-p", "ipv6-icmp")
	}
	return opt("-p", p.String())
}

// ports matches a protocol with ports; nil leaves one out.
func ports(p core.Protocol, src, dst *core.Span) options {
	out := append(protocol(p), xtables.Opt("-m", p.String()))
	if src != nil {
		out = append(out, xtables.Opt("--sport", spanText(*src)))
	}
	if dst != nil {
		out = append(out, xtables.Opt("--dport", spanText(*dst)))
	}
	return out
}

func udp(src, dst uint16) options {
	var s, d *core.Span
	if src != 0 {
		s = &core.Span{First: src, Last: src}
	}
	if dst != 0 {
		d = &core.Span{First: dst, Last: dst}
	}
	return ports(core.ProtocolUDP, s, d)
}

func spanText(s core.Span) string {
	if s.First == s.Last {
		return strconv.Itoa(int(s.First))
	}
	return fmt.Sprintf("%d:%d", s.First, s.Last)
}

// icmp6 matches a type with any code.
func icmp6(typ uint8) options {
	return append(opt("-p", "ipv6-icmp"), module("icmp6", xtables.Opt("--icmpv6-type", strconv.Itoa(int(typ))))...)
}

func hopLimit255() options { return module("hl", xtables.Opt("--hl-eq", "255")) }

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

// ndTarget matches the target of a neighbour message that follows the IPv6
// header at once. Where extension headers lie between, no rule matches, and the
// message is dropped as a false one.
func ndTarget(p netip.Prefix) options {
	tests := []string{"0x4&0xff00=0x3a00"}
	addr := p.Addr().As16()
	for i := range 4 {
		var mask, value uint32
		for b := range 32 {
			if i*32+b < p.Bits() {
				mask |= 1 << (31 - b)
			}
		}
		for b := range 4 {
			value = value<<8 | uint32(addr[i*4+b])
		}
		at := hex(uint32(40 + 8 + 4*i))
		switch mask {
		case 0:
			continue
		case 0xffffffff:
			tests = append(tests, at+"="+hex(value))
		default:
			tests = append(tests, at+"&"+hex(mask)+"="+hex(value&mask))
		}
	}
	return module("u32", xtables.Opt("--u32", strings.Join(tests, "&&")))
}

// Matches of ebtables.

const (
	frameIPv4 = "IPv4"
	frameIPv6 = "IPv6"
	frameARP  = "ARP"
	frameRARP = "0x8035"
	frameVLAN = "0x8100"
	frameQinQ = "0x88a8"
)

func frame(etherType string) options { return opt("-p", etherType) }

func frameFrom(m core.MAC) options { return opt("-s", m.String()) }
func frameTo(m core.MAC) options   { return opt("-d", m.String()) }

const (
	groupMAC    = "01:00:00:00:00:00/01:00:00:00:00:00"
	reservedMAC = "01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0"
)

func frameMarked(value, mask uint32) options { return opt("--mark", maskText(value, mask)) }

// framePrefix is an address option of ebtables, which takes /0 for no mask.
func framePrefix(name string, p netip.Prefix) options {
	switch {
	case p.Bits() == 0:
		return nil
	case p.IsSingleIP():
		return opt(name, p.Addr().String())
	}
	return opt(name, p.String())
}
