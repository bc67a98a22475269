package core

import (
	"fmt"
	"strings"
)

// Pattern is an interface name, or a prefix followed by '*'. Prefix patterns
// are all that kernels match on names, so nothing more is offered.
type Pattern string

// ParsePattern checks that s is a name or a prefix pattern of at most 15 bytes
// (IFNAMSIZ less its NUL).
func ParsePattern(s string) (Pattern, error) {
	name, wild := strings.CutSuffix(s, "*")
	switch {
	case name == "" && !wild:
		return "", fmt.Errorf("empty; use an interface name or a prefix and *: %w", ErrInvalid)
	case len(name) > 15:
		return "", fmt.Errorf("longer than an interface name can be (15 bytes): %w", ErrInvalid)
	case strings.ContainsAny(name, "*?[] \t\n/:"):
		return "", fmt.Errorf("not an interface name; only one * is understood, at the end: %w", ErrInvalid)
	}
	return Pattern(s), nil
}

// Match says whether name is covered.
func (p Pattern) Match(name string) bool {
	if prefix, wild := strings.CutSuffix(string(p), "*"); wild {
		return strings.HasPrefix(name, prefix)
	}
	return string(p) == name
}

// MatchAny says whether any pattern covers name.
func MatchAny(ps []Pattern, name string) bool {
	for _, p := range ps {
		if p.Match(name) {
			return true
		}
	}
	return false
}

// EgressDefault says what leaves a NIC when no egress rule speaks.
type EgressDefault uint8

const (
	// EgressUntilRules: all until an attached group holds an egress rule of
	// that family, then nothing (CloudStack).
	EgressUntilRules EgressDefault = iota
	// EgressExplicit: nothing (AWS, Neutron).
	EgressExplicit
)

func (d EgressDefault) String() string {
	if d == EgressExplicit {
		return "explicit"
	}
	return "until-rules"
}

// MulticastMode says how multicast and broadcast reach a NIC.
type MulticastMode uint8

const (
	// MulticastByRules: when an ingress rule allows it.
	MulticastByRules MulticastMode = iota
	// MulticastDrop: never (CloudStack). DHCP answers, ARP, ND and MLD pass all
	// the same.
	MulticastDrop
)

func (m MulticastMode) String() string {
	if m == MulticastDrop {
		return "drop"
	}
	return "by-rules"
}

// Options are the choices of a cluster that change verdicts. The zero value is
// the closed one, but manages no bridge.
type Options struct {
	Bridges   []Pattern // bridges under management
	Unmanaged []Pattern // exceptions from Bridges
	VMPorts   []Pattern // ports that look like a VM's
	// Uplinks, when not empty, turns the question round: a port of a managed
	// bridge that is not listed here is a VM's.
	Uplinks       []Pattern
	EgressDefault EgressDefault
	AllowDNS      bool // 53/udp and 53/tcp out, always
	Multicast     MulticastMode
	// CountOnly counts what would be dropped and passes everything.
	CountOnly bool
}

// ManagesBridge says whether name is a bridge under management.
func (o Options) ManagesBridge(name string) bool {
	return MatchAny(o.Bridges, name) && !MatchAny(o.Unmanaged, name)
}

// IsVMPort says whether a port of a managed bridge is taken for a VM's.
func (o Options) IsVMPort(name string) bool {
	if len(o.Uplinks) > 0 {
		return !MatchAny(o.Uplinks, name)
	}
	return MatchAny(o.VMPorts, name)
}
