package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Input is the desired state with the bindings that adapters report. It is
// taken to be valid; see core.Validate.
type Input struct {
	Options core.Options
	Groups  []core.Group
	// VMs of every host: the addresses of all of them are members of their
	// groups, and NICs bound to a managed bridge at Point get a policy.
	VMs   []core.VM
	Point string // empty = this host
}

// Compile makes the ruleset of one enforcement point, in normal form: the same
// input in another order gives the same ruleset.
//
// Two NICs that claim one device are an *core.ObjectError (ErrConflict) for
// each, joined; a group that nobody defined is an ErrInvalid. There is no
// ruleset then.
func Compile(in Input) (core.Ruleset, error) {
	groups := make(map[string]core.Group, len(in.Groups))
	for _, g := range in.Groups {
		groups[g.Name] = g
	}
	rs := core.Ruleset{
		Options: in.Options,
		Groups:  map[string]core.GroupPolicy{},
		Sets:    map[string]core.AddressSet{},
		NICs:    map[core.NICKey]core.NICPolicy{},
	}
	var errs []error
	for _, vm := range in.VMs {
		for _, nic := range vm.NICs {
			if nic.Binding.Point != in.Point || !in.Options.ManagesBridge(nic.Binding.Bridge) {
				continue
			}
			n := compileNIC(vm, nic)
			for _, name := range n.Groups {
				if _, done := rs.Groups[name]; done {
					continue
				}
				g, ok := groups[name]
				if !ok {
					errs = append(errs, &core.ObjectError{NICs: []core.NICKey{n.Key}, Groups: []string{name},
						Err: fmt.Errorf("there is no group %s; define it or take it off the NIC: %w", name, core.ErrInvalid)})
				}
				rs.Groups[name] = core.GroupPolicy{Entries: compileGroup(g)}
			}
			rs.NICs[n.Key] = n
		}
	}
	if err := errors.Join(append(errs, sharedDevices(rs)...)...); err != nil {
		return core.Ruleset{}, err
	}
	egressDefaults(rs)
	remoteSets(rs, in.VMs)
	return rs, nil
}

func compileNIC(vm core.VM, nic core.NIC) core.NICPolicy {
	n := core.NICPolicy{
		Key:             core.NICKey{VM: vm.Key, MAC: nic.MAC},
		VM:              vm.Name,
		Kind:            vm.Kind,
		Bridge:          nic.Binding.Bridge,
		Devices:         sortedSet(nic.Binding.Devices, cmp.Compare),
		Addresses:       sortedSet(nic.Addresses, netip.Addr.Compare),
		SpoofingAllowed: nic.SpoofingAllowed,
		Groups:          sortedSet(nic.Groups, cmp.Compare),
	}
	for _, p := range nic.Pairs {
		p.Prefix = p.Prefix.Masked()
		if p.MAC == nic.MAC {
			p.MAC = core.MAC{}
		}
		n.Pairs = append(n.Pairs, p)
	}
	n.Pairs = sortedSet(n.Pairs, core.AddressPair.Compare)
	return n
}

func sortedSet[T comparable](in []T, compare func(T, T) int) []T {
	out := slices.Clone(in)
	slices.SortFunc(out, compare)
	return slices.Compact(out)
}

// sharedDevices finds devices that more than one NIC claims: a frame of theirs
// could be judged by either policy.
func sharedDevices(rs core.Ruleset) []error {
	owners := map[string][]core.NICKey{}
	for _, n := range rs.NICs {
		for _, d := range n.Devices {
			owners[d] = append(owners[d], n.Key)
		}
	}
	var errs []error
	for _, d := range slices.Sorted(maps.Keys(owners)) {
		if nics := owners[d]; len(nics) > 1 {
			slices.SortFunc(nics, compareNICs)
			errs = append(errs, &core.ObjectError{NICs: nics,
				Err: fmt.Errorf("device %s is nic %s's too; a device belongs to one NIC: %w", d, nics[1], core.ErrConflict)})
		}
	}
	return errs
}

func compareNICs(a, b core.NICKey) int {
	return cmp.Or(cmp.Compare(a.VM, b.VM), slices.Compare(a.MAC[:], b.MAC[:]))
}

// egressDefaults closes a family's egress for a NIC when the cluster says so,
// or when a group of its speaks about egress in that family.
func egressDefaults(rs core.Ruleset) {
	for k, n := range rs.NICs {
		if n.Kind == core.SystemVM {
			continue // it passes everything
		}
		deny := func(f core.Family) bool {
			return rs.Options.EgressDefault == core.EgressExplicit || slices.ContainsFunc(n.Groups, func(g string) bool {
				return len(entriesOf(rs.Groups[g].Entries, core.Egress, f)) > 0
			})
		}
		n.EgressDeny4, n.EgressDeny6 = deny(core.IPv4), deny(core.IPv6)
		rs.NICs[k] = n
	}
}

// remoteSets collects the members of every group that an entry names.
func remoteSets(rs core.Ruleset, vms []core.VM) {
	members := map[string][]netip.Addr{}
	for _, g := range rs.Groups {
		for _, e := range g.Entries {
			if e.Peer.Group != "" {
				members[e.Peer.Group] = nil
			}
		}
	}
	for _, vm := range vms {
		for _, nic := range vm.NICs {
			for _, g := range nic.Groups {
				if have, wanted := members[g]; wanted {
					members[g] = appendMembers(have, nic)
				}
			}
		}
	}
	for name, m := range members {
		rs.Sets[name] = core.AddressSet{Members: sortedSet(m, netip.Addr.Compare)}
	}
}

// appendMembers adds what a NIC brings into its groups. Link-local addresses
// mean another machine on every bridge, and a prefix is no member.
func appendMembers(to []netip.Addr, nic core.NIC) []netip.Addr {
	add := func(a netip.Addr) {
		if !a.IsLinkLocalUnicast() {
			to = append(to, a)
		}
	}
	for _, a := range nic.Addresses {
		add(a)
	}
	for _, p := range nic.Pairs {
		if p.Prefix.IsSingleIP() {
			add(p.Prefix.Addr())
		}
	}
	return to
}
