package core

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Delta leads from the Ruleset with fingerprint From to the one with
// fingerprint To. core/policy.Diff makes Deltas.
type Delta struct {
	From, To Fingerprint
	Options  *Options              // nil = unchanged
	Groups   map[string]GroupDelta // groups that appear, change or go
	Sets     map[string]SetDelta   // remote groups whose members change, or that appear or go
	NICs     []NICPolicy           // upserts, sorted by key
	Removed  []NICKey              // sorted
}

// GroupDelta changes a group by entry. Gone removes it whole.
type GroupDelta struct {
	Add, Remove []Entry
	Gone        bool
}

// SetDelta changes a set by member. Gone removes it whole.
type SetDelta struct {
	Add, Remove []netip.Addr
	Gone        bool
}

// Empty says that nothing changes.
func (d Delta) Empty() bool {
	return d.Options == nil && len(d.Groups) == 0 && len(d.Sets) == 0 && len(d.NICs) == 0 && len(d.Removed) == 0
}

// Apply gives the Ruleset that follows r. It fails with ErrConflict when from,
// the fingerprint of r (kept by the caller, since computing it reads all of
// r), is not d.From. r is not changed; unchanged parts are shared.
func (d Delta) Apply(r Ruleset, from Fingerprint) (Ruleset, error) {
	if from != d.From {
		return Ruleset{}, fmt.Errorf("the change leads on from ruleset %s, but %s is enforced: %w", d.From.Short(), from.Short(), ErrConflict)
	}
	next := Ruleset{Options: r.Options, Groups: maps.Clone(r.Groups), Sets: maps.Clone(r.Sets), NICs: maps.Clone(r.NICs)}
	if next.Groups == nil {
		next.Groups = map[string]GroupPolicy{}
	}
	if next.Sets == nil {
		next.Sets = map[string]AddressSet{}
	}
	if next.NICs == nil {
		next.NICs = map[NICKey]NICPolicy{}
	}
	if d.Options != nil {
		next.Options = *d.Options
	}
	for name, g := range d.Groups {
		if g.Gone {
			delete(next.Groups, name)
			continue
		}
		next.Groups[name] = GroupPolicy{applySorted(next.Groups[name].Entries, g.Add, g.Remove, Entry.Compare)}
	}
	for name, s := range d.Sets {
		if s.Gone {
			delete(next.Sets, name)
			continue
		}
		next.Sets[name] = AddressSet{applySorted(next.Sets[name].Members, s.Add, s.Remove, netip.Addr.Compare)}
	}
	for _, k := range d.Removed {
		delete(next.NICs, k)
	}
	for _, n := range d.NICs {
		next.NICs[n.Key] = n
	}
	return next, nil
}

func applySorted[T comparable](have, add, remove []T, compare func(T, T) int) []T {
	gone := make(map[T]bool, len(remove))
	for _, v := range remove {
		gone[v] = true
	}
	out := make([]T, 0, len(have)+len(add))
	for _, v := range have {
		if !gone[v] {
			out = append(out, v)
		}
	}
	out = append(out, add...)
	slices.SortFunc(out, compare)
	return slices.Compact(out)
}
