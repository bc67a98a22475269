package engine

import (
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// substitute is t with everything that is held as it is enforced now, or
// closed where nothing is. It names the NICs for which that makes a
// difference.
func (f *enforcer) substitute(t *target) (policy.Versioned, map[core.NICKey]error) {
	if len(f.holds) == 0 {
		return t.Versioned, nil
	}
	s := &substitution{
		want: t.Ruleset, base: f.enforced.Ruleset, holds: f.holds,
		groups: map[string]error{}, affected: map[core.NICKey]error{},
		next: core.Ruleset{Options: t.Options, Groups: maps.Clone(t.Groups), Sets: maps.Clone(t.Sets), NICs: maps.Clone(t.NICs)},
	}
	if h, held := f.holds[unit{}]; held && f.known {
		s.next.Options = s.base.Options
		for k := range s.want.NICs {
			s.affected[k] = h.err
		}
	}
	for u, h := range f.holds {
		switch {
		case u.isNIC():
			s.keepNIC(u.nic, h.err)
		case u.group != "":
			s.keepGroup(u.group, h.err)
		}
	}
	s.complete()
	s.blame()
	s.freeDevices()
	s.egressDefaults()
	return policy.Version(s.next), s.affected
}

type substitution struct {
	want, base, next core.Ruleset
	holds            map[unit]hold
	groups           map[string]error      // kept as they are enforced
	affected         map[core.NICKey]error // not held to what is wanted
}

// keepGroup puts a group's enforced rules and members in place of the wanted.
func (s *substitution) keepGroup(name string, err error) {
	if _, done := s.groups[name]; done {
		return
	}
	keep(s.next.Sets, s.base.Sets, name)
	s.keepRules(name, err)
}

func (s *substitution) keepRules(name string, err error) {
	s.groups[name] = err
	keep(s.next.Groups, s.base.Groups, name)
}

func keep[V any](next, base map[string]V, name string) {
	if v, ok := base[name]; ok {
		next[name] = v
	} else {
		delete(next, name)
	}
}

// keepNIC puts a NIC's enforced policy in place of the wanted, or closes it.
func (s *substitution) keepNIC(k core.NICKey, err error) {
	s.affected[k] = err
	want, wanted := s.want.NICs[k]
	old, enforced := s.base.NICs[k]
	if enforced && wanted {
		// Only where it still is: a policy is no use on a device that is gone.
		old.Devices = slices.DeleteFunc(slices.Clone(old.Devices), func(d string) bool { return !slices.Contains(want.Devices, d) })
		enforced = old.Bridge == want.Bridge && len(old.Devices) > 0
	}
	switch {
	case enforced:
		s.next.NICs[k] = old
	case wanted && !s.holds[unit{nic: k}].blankRefused && !s.closedByName(want):
		s.next.NICs[k] = blank(want)
	default:
		delete(s.next.NICs, k)
	}
}

// closedByName says whether a NIC without a policy is closed: the names of all
// its devices are those of VMs. (One without a device has nothing to close.)
func (s *substitution) closedByName(n core.NICPolicy) bool {
	return !slices.ContainsFunc(n.Devices, func(d string) bool { return !s.next.Options.IsVMPort(d) })
}

// blank is the policy of a NIC that may do nothing: no address, no group. It is
// for devices that would count as uplinks without one.
func blank(n core.NICPolicy) core.NICPolicy {
	return core.NICPolicy{Key: n.Key, VM: n.VM, Bridge: n.Bridge, Devices: n.Devices, EgressDeny4: true, EgressDeny6: true}
}

func isBlank(n core.NICPolicy) bool { return n.Equal(blank(n)) }

// complete brings back what kept objects refer to, and keeps what refers to an
// object that cannot be had, until everything refers to something.
func (s *substitution) complete() {
	for changed := true; changed; {
		changed = false
		for name, g := range s.next.Groups {
			for _, e := range g.Entries {
				peer := e.Peer.Group
				if _, ok := s.next.Sets[peer]; peer == "" || ok {
					continue
				}
				changed = true
				if old, ok := s.base.Sets[peer]; ok {
					s.next.Sets[peer] = old
					continue
				}
				s.keepRules(name, s.groups[peer])
				break
			}
		}
		for k, n := range s.next.NICs {
			for _, name := range n.Groups {
				if _, ok := s.next.Groups[name]; ok {
					continue
				}
				changed = true
				if old, ok := s.base.Groups[name]; ok {
					s.next.Groups[name] = old
					continue
				}
				s.keepNIC(k, s.groups[name])
				break
			}
		}
	}
}

// blame finds the NICs whose groups are not as wanted.
func (s *substitution) blame() {
	if len(s.groups) == 0 {
		return
	}
	differ := map[string]error{} // groups
	for name, g := range s.want.Groups {
		if err, kept := s.groups[name]; kept && !slices.Equal(g.Entries, s.next.Groups[name].Entries) {
			differ[name] = err
		}
		for _, e := range g.Entries {
			peer := e.Peer.Group
			if err, kept := s.groups[peer]; kept && !slices.Equal(s.want.Sets[peer].Members, s.next.Sets[peer].Members) {
				differ[name] = err
			}
		}
	}
	for k, n := range s.want.NICs {
		for _, name := range n.Groups {
			if err, bad := differ[name]; bad && s.affected[k] == nil {
				s.affected[k] = err
			}
		}
	}
}

// freeDevices takes from kept policies the devices that another NIC has now.
func (s *substitution) freeDevices() {
	owner := map[string]core.NICKey{}
	for k, n := range s.next.NICs {
		if want, ok := s.want.NICs[k]; ok {
			for _, d := range n.Devices {
				if slices.Contains(want.Devices, d) {
					owner[d] = k
				}
			}
		}
	}
	for k, n := range s.next.NICs {
		left := slices.DeleteFunc(slices.Clone(n.Devices), func(d string) bool {
			o, owned := owner[d]
			return owned && o != k
		})
		if len(left) == len(n.Devices) {
			continue
		}
		if n.Devices = left; len(left) == 0 {
			delete(s.next.NICs, k)
		} else {
			s.next.NICs[k] = n
		}
	}
}

// egressDefaults does for policies in new company what policy.Compile does: an
// egress rule of any group denies the rest of its family.
func (s *substitution) egressDefaults() {
	for k := range s.affected {
		n, ok := s.next.NICs[k]
		if !ok || n.Kind == core.SystemVM || isBlank(n) {
			continue
		}
		n.EgressDeny4, n.EgressDeny6 = s.denies(n, core.IPv4), s.denies(n, core.IPv6)
		s.next.NICs[k] = n
	}
}

func (s *substitution) denies(n core.NICPolicy, f core.Family) bool {
	return s.next.Options.EgressDefault == core.EgressExplicit || slices.ContainsFunc(n.Groups, func(g string) bool {
		return slices.ContainsFunc(s.next.Groups[g].Entries, func(e core.Entry) bool {
			return e.Direction == core.Egress && e.Family == f
		})
	})
}
