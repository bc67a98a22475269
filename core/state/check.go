package state

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// What policy.Compile has to say about desired state comes later. These checks
// keep out what would not come back from the file as it went in.

// maxKey is far above every name in use and far below what bbolt takes.
const maxKey = 1024

func checkKey(field, s string) error {
	switch {
	case s == "":
		return &core.FieldError{Path: field, Reason: "missing"}
	case len(s) > maxKey:
		return &core.FieldError{Path: field, Value: s[:32] + "...", Reason: fmt.Sprintf("longer than %d bytes", maxKey)}
	case strings.ContainsRune(s, 0):
		return &core.FieldError{Path: field, Value: fmt.Sprintf("%q", s), Reason: "contains a NUL byte"}
	}
	return nil
}

func (g Group) check() error {
	if _, err := g.record().group(g.Name); err != nil {
		return fmt.Errorf("group %s: %w", g.Name, err)
	}
	for i, r := range g.Rules {
		if r.Peers == nil {
			continue
		}
		for j, p := range r.Peers.CIDRs {
			if !p.IsValid() {
				return &core.FieldError{Path: fmt.Sprintf("rules[%d].peers.cidrs[%d]", i, j), Value: p.String(), Reason: "not a prefix"}
			}
		}
	}
	return nil
}

func (v VM) check() error {
	seen := map[core.MAC]bool{}
	for i, n := range v.NICs {
		path := func(s string, j int) string { return fmt.Sprintf("nics[%d].%s[%d]", i, s, j) }
		mac := &core.FieldError{Path: fmt.Sprintf("nics[%d].mac", i), Value: n.MAC.String()}
		switch {
		case n.MAC == core.MAC{} || n.MAC.IsGroup():
			mac.Reason = "not a unicast MAC address"
			return mac
		case seen[n.MAC]:
			mac.Reason = "a MAC can be on one NIC of VM " + v.Name + " only"
			return mac
		}
		seen[n.MAC] = true
		for j, a := range n.Addresses {
			if !a.IsValid() || a.Zone() != "" {
				return &core.FieldError{Path: path("addresses", j), Value: a.String(), Reason: "not an address without a zone"}
			}
		}
		for j, p := range n.Pairs {
			if !p.Prefix.IsValid() || p.MAC.IsGroup() {
				return &core.FieldError{Path: path("pairs", j), Value: p.String(), Reason: "not a prefix, or not with a unicast MAC address"}
			}
		}
	}
	return nil
}
