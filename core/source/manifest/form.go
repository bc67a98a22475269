package manifest

import (
	"github.com/ringwall/ringwall/core"
)

// The form of a manifest in the file: the same keys for YAML and JSON, in the
// order a person would write them.
type (
	manifestForm struct {
		Groups []groupForm `yaml:"groups,omitempty" json:"groups,omitempty"`
		VMs    []vmForm    `yaml:"vms,omitempty" json:"vms,omitempty"`
	}
	groupForm struct {
		Name  string     `yaml:"name" json:"name"`
		Rules []ruleForm `yaml:"rules,omitempty" json:"rules,omitempty"`
	}
	ruleForm struct {
		Direction string     `yaml:"direction" json:"direction"`
		Protocol  string     `yaml:"protocol" json:"protocol"`
		Ports     []any      `yaml:"ports,omitempty,flow" json:"ports,omitempty"` // 80, or "8000-8099"
		ICMP      *icmpForm  `yaml:"icmp,omitempty,flow" json:"icmp,omitempty"`
		From      *peersForm `yaml:"from,omitempty,flow" json:"from,omitempty"`
		To        *peersForm `yaml:"to,omitempty,flow" json:"to,omitempty"`
	}
	icmpForm struct {
		Type *uint8 `yaml:"type,omitempty" json:"type,omitempty"`
		Code *uint8 `yaml:"code,omitempty" json:"code,omitempty"`
	}
	peersForm struct {
		CIDRs  []string `yaml:"cidrs,omitempty" json:"cidrs,omitempty"`
		Groups []string `yaml:"groups,omitempty" json:"groups,omitempty"`
	}
	vmForm struct {
		Name string    `yaml:"name" json:"name"`
		Key  string    `yaml:"key,omitempty" json:"key,omitempty"`
		Kind string    `yaml:"kind,omitempty" json:"kind,omitempty"`
		NICs []nicForm `yaml:"nics,omitempty" json:"nics,omitempty"`
	}
	nicForm struct {
		MAC          string     `yaml:"mac" json:"mac"`
		Bridge       string     `yaml:"bridge,omitempty" json:"bridge,omitempty"`
		Device       any        `yaml:"device,omitempty,flow" json:"device,omitempty"` // a name, or several
		Addresses    []string   `yaml:"addresses,omitempty,flow" json:"addresses,omitempty"`
		Pairs        []pairForm `yaml:"allowed_pairs,omitempty,flow" json:"allowed_pairs,omitempty"`
		Groups       []string   `yaml:"groups,omitempty,flow" json:"groups,omitempty"`
		AntiSpoofing *bool      `yaml:"anti_spoofing,omitempty" json:"anti_spoofing,omitempty"`
	}
	pairForm struct {
		Address string `yaml:"address" json:"address"`
		MAC     string `yaml:"mac,omitempty" json:"mac,omitempty"`
	}
)

func (m Manifest) form() manifestForm {
	return manifestForm{each(m.Groups, formOfGroup), each(m.VMs, formOfVM)}
}

func formOfGroup(g core.Group) groupForm { return groupForm{g.Name, each(g.Rules, formOfRule)} }

func formOfRule(r core.Rule) ruleForm {
	f := ruleForm{Direction: r.Direction.String(), Protocol: r.Protocol.String()}
	f.Ports = each(r.Ports, func(s core.Span) any {
		if s.First == s.Last {
			return int(s.First)
		}
		return s.String()
	})
	if r.ICMP != nil && r.ICMP.Type != nil {
		f.ICMP = &icmpForm{r.ICMP.Type, r.ICMP.Code}
	}
	if r.Peers != nil {
		p := &peersForm{CIDRs: texts(r.Peers.CIDRs), Groups: r.Peers.Groups}
		if r.Direction == core.Egress {
			f.To = p
		} else {
			f.From = p
		}
	}
	return f
}

func formOfVM(vm core.VM) vmForm {
	f := vmForm{Name: vm.Name, NICs: each(vm.NICs, formOfNIC)}
	if string(vm.Key) != vm.Name {
		f.Key = string(vm.Key)
	}
	if vm.Kind != core.UserVM {
		f.Kind = vm.Kind.String()
	}
	return f
}

func formOfNIC(n core.NIC) nicForm {
	f := nicForm{MAC: n.MAC.String(), Bridge: n.Binding.Bridge, Addresses: texts(n.Addresses), Groups: n.Groups}
	switch len(n.Binding.Devices) {
	case 0:
	case 1:
		f.Device = n.Binding.Devices[0]
	default:
		f.Device = n.Binding.Devices
	}
	f.Pairs = each(n.Pairs, func(p core.AddressPair) pairForm {
		out := pairForm{Address: p.Prefix.String()}
		if p.Prefix.IsSingleIP() {
			out.Address = p.Prefix.Addr().String()
		}
		if p.MAC != (core.MAC{}) {
			out.MAC = p.MAC.String()
		}
		return out
	})
	if n.SpoofingAllowed {
		f.AntiSpoofing = new(bool)
	}
	return f
}

// each maps, and keeps nil nil so that empty lists are left out.
func each[T, U any](in []T, f func(T) U) []U {
	if in == nil {
		return nil
	}
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

func texts[T interface{ String() string }](in []T) []string { return each(in, T.String) }
