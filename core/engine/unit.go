package engine

import (
	"cmp"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// unit is what a backend may refuse on its own: a NIC's policy, a group (its
// rules and its members), or, when neither is named, the options.
type unit struct {
	nic   core.NICKey
	group string
}

func (u unit) isNIC() bool { return u.nic != core.NICKey{} }

func (u unit) String() string {
	switch {
	case u.isNIC():
		return "nic " + u.nic.String()
	case u.group != "":
		return "group " + u.group
	}
	return "options"
}

// compareUnits puts first what others refer to: options, groups, NICs.
func compareUnits(a, b unit) int {
	rank := func(u unit) int {
		switch {
		case u.isNIC():
			return 2
		case u.group != "":
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.group, b.group), compareNICs(a.nic, b.nic))
}

func compareNICs(a, b core.NICKey) int {
	return cmp.Or(cmp.Compare(a.VM, b.VM), slices.Compare(a.MAC[:], b.MAC[:]))
}

// unitsOf lists what a delta changes, in the order of compareUnits.
func unitsOf(d core.Delta) []unit {
	set := map[unit]bool{}
	if d.Options != nil {
		set[unit{}] = true
	}
	for name := range d.Groups {
		set[unit{group: name}] = true
	}
	for name := range d.Sets {
		set[unit{group: name}] = true
	}
	for _, n := range d.NICs {
		set[unit{nic: n.Key}] = true
	}
	for _, k := range d.Removed {
		set[unit{nic: k}] = true
	}
	out := make([]unit, 0, len(set))
	for u := range set {
		out = append(out, u)
	}
	slices.SortFunc(out, compareUnits)
	return out
}
