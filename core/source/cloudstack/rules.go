package cloudstack

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Separator follows every NEXT of a rule string.
type Separator string

const (
	// SeparatorKVM: the KVM agent has put ; in the place of every space.
	SeparatorKVM Separator = ";"
	// SeparatorXenServer: as the server makes the string.
	SeparatorXenServer Separator = " "
)

// Limits of a rule string. One command line argument, which is what KVM has,
// holds 128 KiB.
const (
	MaxRuleBytes = 4 << 20
	MaxRules     = 10_000
	maxWarnings  = 20
)

const next = "NEXT"

// Rule is one rule of the server's, which allows.
type Rule struct {
	Direction core.Direction
	// Protocol is as the server names it; number 1 is icmp, which the server
	// itself makes of it.
	//
	// Protocol 0 is a rule that matches nothing: number 0 names an IPv6
	// extension header, which no packet has for its protocol, and tools that
	// take it for "every protocol" open everything.
	Protocol core.Protocol
	Ports    *core.Span      // tcp, udp; nil = all
	ICMP     *core.ICMPMatch // icmp; nil = all. The same numbers count for ICMPv6.
	CIDRs    []netip.Prefix  // masked; may be empty
	// Unreadable families had CIDRs that could not be read: for egress, the
	// family is closed all the same.
	Unreadable []core.Family
}

// Rules is a rule string, read.
type Rules struct {
	Rules []Rule
	// Warnings are what was passed over, a line each.
	Warnings []string
}

// ParseRules reads a rule string:
//
//	I:tcp;22;22;10.0.0.0/8,2001:db8::/32,NEXT;E:all;0;0;0.0.0.0/0,NEXT;
//
// As the server relies on, a rule of fewer than four parts, text behind the
// last NEXT and CIDRs that cannot be read are passed over, host bits may be
// set, and a list of CIDRs may be empty. Anything else that is not as it
// should be is a *core.FieldError, and nothing of the string counts.
func ParseRules(s string, sep Separator) (Rules, error) {
	if len(s) > MaxRuleBytes {
		return Rules{}, &core.FieldError{Path: "rules", Reason: fmt.Sprintf("longer than %d MiB", MaxRuleBytes>>20)}
	}
	parts := strings.Split(s, next+string(sep))
	rest := parts[len(parts)-1]
	parts = parts[:len(parts)-1]
	if len(parts) > MaxRules {
		return Rules{}, &core.FieldError{Path: "rules", Reason: fmt.Sprintf("more than %d rules", MaxRules)}
	}
	var out Rules
	if strings.TrimSpace(rest) != "" {
		out.warn("text behind the last NEXT is ignored: %q", rest)
	}
	for i, text := range parts {
		path := fmt.Sprintf("rules[%d]", i)
		fields := strings.SplitN(text, ";", 4)
		if len(fields) < 4 {
			out.warn("%s is ignored, it has fewer than four parts: %q", path, text)
			continue
		}
		r, err := parseRule(path, fields, &out)
		if err != nil {
			return Rules{}, err
		}
		out.Rules = append(out.Rules, r)
	}
	return out, nil
}

func (r *Rules) warn(format string, args ...any) {
	switch n := len(r.Warnings); {
	case n < maxWarnings:
		for i, a := range args {
			if s, ok := a.(string); ok {
				args[i] = clip(s)
			}
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
	case n == maxWarnings:
		r.Warnings = append(r.Warnings, "and more")
	}
}

// clip keeps one fault on one short line.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}

func parseRule(path string, fields []string, out *Rules) (r Rule, err error) {
	fail := func(field, value, reason string) error {
		if clipped := clip(value); clipped != strings.ToValidUTF8(strings.Map(printable, clipped), "") {
			value = strconv.Quote(clipped)
		} else {
			value = clipped
		}
		return &core.FieldError{Path: path + "." + field, Value: value, Reason: reason}
	}
	dir, proto, ok := strings.Cut(fields[0], ":")
	switch {
	case !ok:
		return r, fail("direction", fields[0], "not of the form direction:protocol")
	case dir == "I":
		r.Direction = core.Ingress
	case dir == "E":
		r.Direction = core.Egress
	default:
		return r, fail("direction", dir, "use I or E")
	}
	numeric := false
	switch proto {
	case "all":
		r.Protocol = core.AnyProtocol
	case "tcp":
		r.Protocol = core.ProtocolTCP
	case "udp":
		r.Protocol = core.ProtocolUDP
	case "icmp":
		r.Protocol = core.ProtocolICMP
	default:
		n, err := decimal(proto, 255)
		if err != nil {
			return r, fail("protocol", proto, "use all, tcp, udp, icmp or a number from 0 to 255")
		}
		r.Protocol, numeric = core.Protocol(n), true
	}
	switch {
	case numeric || r.Protocol == core.AnyProtocol:
		for i, f := range []string{"start", "end"} {
			if fields[1+i] != "0" {
				return r, fail(f, fields[1+i], "must be 0: only tcp, udp and icmp have one")
			}
		}
	case r.Protocol == core.ProtocolICMP:
		if r.ICMP, err = parseICMP(fields[1], fields[2]); err != nil {
			return r, fail("icmp", fields[1]+";"+fields[2], reason(err))
		}
	default:
		if r.Ports, err = parsePorts(fields[1], fields[2]); err != nil {
			return r, fail("ports", fields[1]+";"+fields[2], reason(err))
		}
	}
	cidrs := strings.Split(fields[3], ",")
	if len(cidrs)-1 > core.MaxCIDRs {
		return r, fail("cidrs", "", fmt.Sprintf("more than %d", core.MaxCIDRs))
	}
	for _, text := range cidrs {
		if text == "" { // a comma follows each
			continue
		}
		p, err := parseCIDR(text)
		if err != nil {
			f := core.IPv4
			if strings.Contains(text, ":") {
				f = core.IPv6
			}
			r.Unreadable = append(r.Unreadable, f)
			out.warn("%s: %q is ignored, it is no CIDR", path, text)
			continue
		}
		r.CIDRs = append(r.CIDRs, p)
	}
	return r, nil
}

func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return -1
	}
	return c
}

// reason is an error's text without the sentinel that the caller wraps anew.
func reason(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+core.ErrInvalid.Error())
}

// decimal reads digits and nothing else.
func decimal(s string, most int) (int, error) {
	if len(s) == 0 || len(s) > 5 || strings.Trim(s, "0123456789") != "" {
		return 0, core.ErrInvalid
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > most {
		return 0, core.ErrInvalid
	}
	return n, nil
}

// parsePorts gives nil for all ports, which the server writes as 0;0 too.
func parsePorts(start, end string) (*core.Span, error) {
	first, err1 := decimal(start, 65535)
	last, err2 := decimal(end, 65535)
	switch {
	case err1 != nil || err2 != nil:
		return nil, errors.New("not two ports from 0 to 65535")
	case first > last:
		return nil, errors.New("the range ends before it starts")
	case first == 0 && (last == 0 || last == 65535):
		return nil, nil
	}
	return &core.Span{First: uint16(first), Last: uint16(last)}, nil
}

// parseICMP gives nil for all types.
func parseICMP(kind, code string) (*core.ICMPMatch, error) {
	const anything = "-1"
	if kind == anything {
		if code != anything {
			return nil, errors.New("a code needs a type")
		}
		return nil, nil
	}
	number := func(s string) (*uint8, error) {
		n, err := decimal(s, 255)
		if err != nil {
			return nil, errors.New("not a type and a code from 0 to 255, or -1 for any")
		}
		v := uint8(n)
		return &v, nil
	}
	t, err := number(kind)
	if err != nil {
		return nil, err
	}
	m := &core.ICMPMatch{Type: t}
	if code != anything {
		if m.Code, err = number(code); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// parseCIDR takes an address for a prefix of its own length.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, core.ErrInvalid
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() { // no packet carries one
		return netip.Prefix{}, core.ErrInvalid
	}
	return p.Masked(), nil
}
