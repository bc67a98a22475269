package vmware

import (
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// portGroup is a distributed port group as the switch has it.
type portGroup struct {
	ref     types.ManagedObjectReference
	version string // for the switch's optimistic lock
	key     string
	name    string
	mark    *mark // nil = not ours
	setting
}

// setting is what of a port group's configuration decides who meets whom.
type setting struct {
	VLAN    int  // access VLAN; 0 = untagged, a trunk, or PVLAN counts
	PVLAN   int  // id in the private VLAN map; 0 = none
	Blocked bool // ports pass nothing
	// Guarded: promiscuous mode, MAC changes and forged transmits are rejected,
	// MACs are not learned, and no port may be set otherwise.
	Guarded bool
}

// parked is how a port group of ours is before its private VLAN exists and
// after it has gone.
var parked = setting{Blocked: true, Guarded: true}

// want is how a port group of ours has to be.
func (m mark) want() setting {
	return setting{PVLAN: m.ID, Blocked: m.Kind == Closed, Guarded: true}
}

func readPortGroup(pg mo.DistributedVirtualPortgroup) portGroup {
	out := portGroup{ref: pg.Self, version: pg.Config.ConfigVersion, key: pg.Key, name: pg.Name, mark: parseMark(pg.Config.Description)}
	s, ok := pg.Config.DefaultPortConfig.(*types.VMwareDVSPortSetting)
	if !ok {
		return out
	}
	switch v := s.Vlan.(type) {
	case *types.VmwareDistributedVirtualSwitchVlanIdSpec:
		out.VLAN = int(v.VlanId)
	case *types.VmwareDistributedVirtualSwitchPvlanSpec:
		out.PVLAN = int(v.PvlanId)
	}
	out.Blocked = isTrue(s.Blocked)
	policy, _ := pg.Config.Policy.(*types.VMwareDVSPortgroupPolicy)
	out.Guarded = rejects(s) && fixed(policy)
	return out
}

// rejects reads the newer policy where the switch has it: it goes before the
// older one.
func rejects(s *types.VMwareDVSPortSetting) bool {
	no := func(b *bool) bool { return b != nil && !*b }
	if m := s.MacManagementPolicy; m != nil {
		return no(m.AllowPromiscuous) && no(m.MacChanges) && no(m.ForgedTransmits) && (m.MacLearningPolicy == nil || !m.MacLearningPolicy.Enabled)
	}
	p := s.SecurityPolicy
	return p != nil && isFalse(p.AllowPromiscuous) && isFalse(p.MacChanges) && isFalse(p.ForgedTransmits)
}

func fixed(p *types.VMwareDVSPortgroupPolicy) bool {
	return p != nil && !p.VlanOverrideAllowed && !p.SecurityPolicyOverrideAllowed && !p.BlockOverrideAllowed &&
		(p.MacManagementOverrideAllowed == nil || !*p.MacManagementOverrideAllowed)
}

func isTrue(b *types.BoolPolicy) bool  { return b != nil && b.Value != nil && *b.Value }
func isFalse(b *types.BoolPolicy) bool { return b != nil && b.Value != nil && !*b.Value }

// spec is all of a port group of ours: what a spec leaves out is not the same
// on every version.
func (m mark) spec(name string, s setting, macManagement bool) types.DVPortgroupConfigSpec {
	policy := func(b bool) *types.BoolPolicy { return &types.BoolPolicy{Value: &b} }
	port := &types.VMwareDVSPortSetting{
		DVPortSetting:  types.DVPortSetting{Blocked: policy(s.Blocked)},
		Vlan:           &types.VmwareDistributedVirtualSwitchVlanIdSpec{},
		SecurityPolicy: &types.DVSSecurityPolicy{AllowPromiscuous: policy(false), MacChanges: policy(false), ForgedTransmits: policy(false)},
	}
	if s.PVLAN != 0 {
		port.Vlan = &types.VmwareDistributedVirtualSwitchPvlanSpec{PvlanId: int32(s.PVLAN)}
	}
	override := &types.VMwareDVSPortgroupPolicy{DVPortgroupPolicy: types.DVPortgroupPolicy{PortConfigResetAtDisconnect: true, LivePortMovingAllowed: true}}
	if macManagement {
		no := false
		port.MacManagementPolicy = &types.DVSMacManagementPolicy{AllowPromiscuous: &no, MacChanges: &no, ForgedTransmits: &no,
			MacLearningPolicy: &types.DVSMacLearningPolicy{Enabled: false}}
		override.MacManagementOverrideAllowed = &no
	}
	grow := true
	return types.DVPortgroupConfigSpec{
		Name:              name,
		Type:              string(types.DistributedVirtualPortgroupPortgroupTypeEarlyBinding),
		NumPorts:          8,
		AutoExpand:        &grow,
		Description:       m.String(),
		DefaultPortConfig: port,
		Policy:            override,
	}
}
