package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Versioned is a ruleset with its fingerprint, which costs a reading of all of
// it and so is made once.
type Versioned struct {
	core.Ruleset
	Fingerprint core.Fingerprint
}

// Version fingerprints a ruleset.
func Version(rs core.Ruleset) Versioned { return Versioned{rs, rs.Fingerprint()} }

// Diff leads from one ruleset to another, element by element. Both are in
// normal form.
func Diff(from, to Versioned) core.Delta {
	d := core.Delta{From: from.Fingerprint, To: to.Fingerprint}
	if !from.Options.Equal(to.Options) {
		o := to.Options
		d.Options = &o
	}
	for name, g := range to.Groups {
		old, had := from.Groups[name]
		add, remove := diffSorted(old.Entries, g.Entries, core.Entry.Compare)
		if !had || len(add)+len(remove) > 0 {
			put(&d.Groups, name, core.GroupDelta{Add: add, Remove: remove})
		}
	}
	for name := range from.Groups {
		if _, stays := to.Groups[name]; !stays {
			put(&d.Groups, name, core.GroupDelta{Gone: true})
		}
	}
	for name, s := range to.Sets {
		old, had := from.Sets[name]
		add, remove := diffSorted(old.Members, s.Members, netip.Addr.Compare)
		if !had || len(add)+len(remove) > 0 {
			put(&d.Sets, name, core.SetDelta{Add: add, Remove: remove})
		}
	}
	for name := range from.Sets {
		if _, stays := to.Sets[name]; !stays {
			put(&d.Sets, name, core.SetDelta{Gone: true})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(to.NICs), compareNICs) {
		if old, had := from.NICs[k]; !had || !old.Equal(to.NICs[k]) {
			d.NICs = append(d.NICs, to.NICs[k])
		}
	}
	for k := range from.NICs {
		if _, stays := to.NICs[k]; !stays {
			d.Removed = append(d.Removed, k)
		}
	}
	slices.SortFunc(d.Removed, compareNICs)
	return d
}

func put[V any](m *map[string]V, name string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[name] = v
}

// diffSorted walks two sorted lists side by side.
func diffSorted[T any](old, next []T, compare func(T, T) int) (add, remove []T) {
	for len(old) > 0 && len(next) > 0 {
		switch c := compare(old[0], next[0]); {
		case c < 0:
			remove, old = append(remove, old[0]), old[1:]
		case c > 0:
			add, next = append(add, next[0]), next[1:]
		default:
			old, next = old[1:], next[1:]
		}
	}
	return append(add, next...), append(remove, old...)
}
