package manifest

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/core"
)

func (r *reader) manifest(n *yaml.Node) (m Manifest) {
	r.mapping("", n,
		field{name: "groups", read: func(path string, n *yaml.Node) {
			r.list(path, n, func(path string, n *yaml.Node) { m.Groups = append(m.Groups, r.group(path, n)) })
		}},
		field{name: "vms", read: func(path string, n *yaml.Node) {
			r.list(path, n, func(path string, n *yaml.Node) { m.VMs = append(m.VMs, r.vm(path, n)) })
		}},
	)
	return m
}

func (r *reader) group(path string, n *yaml.Node) (g core.Group) {
	r.mapping(path, n,
		field{name: "name", required: true, read: into(r, &g.Name, word)},
		field{name: "rules", read: func(path string, n *yaml.Node) {
			r.list(path, n, func(path string, n *yaml.Node) { g.Rules = append(g.Rules, r.rule(path, n)) })
		}},
	)
	return g
}

func (r *reader) rule(path string, n *yaml.Node) (rule core.Rule) {
	var from, to *core.Peers
	r.mapping(path, n,
		field{name: "direction", required: true, read: into(r, &rule.Direction, core.ParseDirection)},
		field{name: "protocol", required: true, read: into(r, &rule.Protocol, core.ParseProtocol)},
		field{name: "ports", read: func(path string, n *yaml.Node) { rule.Ports = r.ports(path, n) }},
		field{name: "icmp", read: func(path string, n *yaml.Node) { rule.ICMP = r.icmp(path, n) }},
		field{name: "from", read: func(path string, n *yaml.Node) { from = r.peers(path, n) }},
		field{name: "to", read: func(path string, n *yaml.Node) { to = r.peers(path, n) }},
	)
	switch {
	case rule.Direction == core.Ingress && to != nil:
		r.fail(path+".to", "", "an ingress rule says where traffic comes from; use from")
	case rule.Direction == core.Egress && from != nil:
		r.fail(path+".from", "", "an egress rule says where traffic goes to; use to")
	case rule.Direction == core.Ingress:
		rule.Peers = from
	case rule.Direction == core.Egress:
		rule.Peers = to
	}
	return rule
}

// ports refuses an empty list: a template that rendered nothing must not come
// to mean all ports.
func (r *reader) ports(path string, n *yaml.Node) []core.Span {
	before := len(r.errs)
	out := scalars(r, path, n, core.PortSpan)
	if len(out) == 0 && len(r.errs) == before {
		r.fail(path, "", "an empty list; leave ports out for all of them")
	}
	return out
}

func (r *reader) icmp(path string, n *yaml.Node) *core.ICMPMatch {
	var m core.ICMPMatch
	byteInto := func(dst **uint8) func(string, *yaml.Node) {
		return func(path string, n *yaml.Node) {
			if v, ok := scalar(r, path, n, octet); ok {
				*dst = &v
			}
		}
	}
	r.mapping(path, n,
		field{name: "type", required: true, read: byteInto(&m.Type)},
		field{name: "code", read: byteInto(&m.Code)},
	)
	return &m
}

func (r *reader) peers(path string, n *yaml.Node) *core.Peers {
	var p core.Peers
	r.mapping(path, n,
		field{name: "cidrs", read: func(path string, n *yaml.Node) { p.CIDRs = scalars(r, path, n, cidr) }},
		field{name: "groups", read: func(path string, n *yaml.Node) { p.Groups = scalars(r, path, n, word) }},
	)
	return &p
}

func word(s string) (string, error) {
	if s == "" {
		return "", errors.New("an empty name")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", errors.New("a name must be printable and on one line")
	}
	return s, nil
}

func octet(s string) (uint8, error) {
	v, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, errors.New("not a number from 0 to 255")
	}
	return uint8(v), nil
}

func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return a, errors.New("a prefix, where an IP address is wanted")
	case err != nil:
		return a, errors.New("not an IP address")
	case a.Zone() != "":
		return a, errors.New("an address with a zone; leave out % and what follows")
	case a.Is4In6():
		return a, errors.New("IPv4 written as IPv6; use " + a.Unmap().String())
	}
	return a, nil
}

// cidr masks host bits, as semantics.md says.
func cidr(s string) (netip.Prefix, error) {
	addr, bits, ok := strings.Cut(s, "/")
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New("not a CIDR; use a form like 10.0.0.0/8 or fd00::/8")
	case !ok:
		return netip.Prefix{}, errors.New("no prefix length; for one address use " + netip.PrefixFrom(a.WithZone(""), a.BitLen()).String())
	case a.Zone() != "" || a.Is4In6():
		_, err := address(addr)
		return netip.Prefix{}, err
	}
	n, err := strconv.ParseUint(bits, 10, 8)
	if err != nil || int(n) > a.BitLen() {
		return netip.Prefix{}, errors.New("the prefix length must be 0 to " + strconv.Itoa(a.BitLen()))
	}
	return netip.PrefixFrom(a, int(n)).Masked(), nil
}
