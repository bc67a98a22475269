package rpc

import (
	"slices"

	"github.com/ringwall/ringwall/core"
)

// featureCheck refuses, before anything is sent, what the opened point cannot
// enforce. A plugin is not asked: one that does not know a field could not
// say that it ignores it.
type featureCheck struct {
	info core.Info
	// nics counts NICs per VM when the point lacks multi-nic: that alone
	// cannot be told from a Delta.
	nics map[core.VMKey]map[core.MAC]bool
}

func newFeatureCheck(i core.Info) *featureCheck { return &featureCheck{info: i} }

func (c *featureCheck) ruleset(r core.Ruleset) error {
	return core.CheckFeatures(c.info.Name, c.info.Features, r)
}

// delta looks at what a change adds.
func (c *featureCheck) delta(d core.Delta) error {
	// The zero Options would need multicast-by-rules.
	added := core.Ruleset{Options: core.Options{Multicast: core.MulticastDrop}, Groups: map[string]core.GroupPolicy{}, NICs: map[core.NICKey]core.NICPolicy{}}
	if d.Options != nil {
		added.Options = *d.Options
	}
	for name, g := range d.Groups {
		added.Groups[name] = core.GroupPolicy{Entries: g.Add}
	}
	for _, n := range d.NICs {
		added.NICs[n.Key] = n
		for mac := range c.nics[n.Key.VM] {
			// The VM's other NICs, so that they count; what they need was
			// checked when they came.
			if k := (core.NICKey{VM: n.Key.VM, MAC: mac}); k != n.Key && !slices.Contains(d.Removed, k) {
				if _, ok := added.NICs[k]; !ok {
					added.NICs[k] = core.NICPolicy{Key: k, Kind: n.Kind, SpoofingAllowed: n.SpoofingAllowed}
				}
			}
		}
	}
	return c.ruleset(added)
}

func (c *featureCheck) synced(r core.Ruleset) {
	if slices.Contains(c.info.Features, core.FeatureMultiNIC) {
		return
	}
	c.nics = map[core.VMKey]map[core.MAC]bool{}
	for k := range r.NICs {
		c.add(k)
	}
}

func (c *featureCheck) applied(d core.Delta) {
	if c.nics == nil {
		return
	}
	for _, k := range d.Removed {
		delete(c.nics[k.VM], k.MAC)
	}
	for _, n := range d.NICs {
		c.add(n.Key)
	}
}

func (c *featureCheck) add(k core.NICKey) {
	if c.nics[k.VM] == nil {
		c.nics[k.VM] = map[core.MAC]bool{}
	}
	c.nics[k.VM][k.MAC] = true
}
