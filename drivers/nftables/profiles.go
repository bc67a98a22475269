package nftables

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// profile is the chain that NICs with the same groups share, one for each
// direction and family: it asks the groups in turn, then falls to the default.
// A change of a group's rules touches the group's chain and no profile.
type profile struct {
	direction core.Direction
	family    core.Family
	groups    string // joined by NUL, as profiles are map keys
	open      bool   // egress passes by default
}

// sides tells which groups have entries in which direction and family.
type sides map[string]map[side]bool

// profileOf leaves out groups that have nothing to say, so that, for example,
// all NICs without IPv6 rules share a chain.
func (s sides) profileOf(n core.NICPolicy, dir core.Direction, f core.Family) profile {
	var groups []string
	for _, g := range n.Groups {
		if s[g][side{dir, f}] {
			groups = append(groups, g)
		}
	}
	return profile{dir, f, strings.Join(groups, "\x00"), dir == core.Egress && !n.EgressDeny(f)}
}

// profilesOf lists a NIC's four.
func (s sides) profilesOf(n core.NICPolicy) []profile {
	if n.Kind == core.SystemVM {
		return nil
	}
	var out []profile
	for _, f := range core.Families {
		out = append(out, s.profileOf(n, core.Ingress, f), s.profileOf(n, core.Egress, f))
	}
	return out
}

func (p profile) names() []string {
	if p.groups == "" {
		return nil
	}
	return strings.Split(p.groups, "\x00")
}

// chain names the profile's chain: groups readable where they fit, else by hash.
func (p profile) chain() string {
	name := strings.ReplaceAll(p.groups, "\x00", "..") // nft takes no + in a name
	if p.groups == "" {
		name = "-"
	}
	if len(name) > 48 || strings.Contains(p.groups, "..") {
		sum := sha256.Sum256([]byte(p.groups))
		name = hex.EncodeToString(sum[:8])
	}
	end := "deny"
	if p.open {
		end = "open"
	}
	return "nic/" + verdictMap(p.direction, p.family) + "/" + end + "/" + name
}

func (p profile) render() *nft.Chain {
	c := &nft.Chain{Name: p.chain()}
	for _, g := range p.names() {
		c.Rules = append(c.Rules, rule(jump(groupChain(g, p.direction, p.family))))
	}
	switch {
	case p.open:
		c.Rules = append(c.Rules, rule(accept()))
	case p.direction == core.Egress:
		c.Rules = append(c.Rules, rule(denyOut(core.ReasonEgressRules)))
	default:
		c.Rules = append(c.Rules, rule(denyIn(core.ReasonIngressRules)))
	}
	return c
}
