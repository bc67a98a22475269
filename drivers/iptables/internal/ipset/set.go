// Package ipset holds the kernel's IP sets as values, reads them, and leads
// from one state to the next by element, over netlink: no process, and many
// elements in a datagram. The wire is our own. vishvananda/netlink makes a round
// trip for each element, and panics when a dump is interrupted (v1.3.1).
package ipset

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Type is the kernel's type of a set.
type Type string

const (
	HashIP  Type = "hash:ip"  // addresses
	HashNet Type = "hash:net" // prefixes
)

// MaxElements bounds a set; the kernel's own default of 65,536 is too few for
// the members of a large group.
const MaxElements = 1 << 20

// Set is a set of addresses or prefixes of one family.
type Set struct {
	Type   Type
	Family core.Family
	// Members are masked. A hash:net takes no prefix of length 0 (0.0.0.0/0
	// becomes 0.0.0.0/32 without a word), so that Add puts two halves in.
	Members map[netip.Prefix]bool
	// Comment is that of a set's single element, and carries a text of ours.
	Comment string
	// About is carried to errors and drift.
	About any
}

// New is an empty set.
func New(t Type, f core.Family) *Set {
	return &Set{Type: t, Family: f, Members: map[netip.Prefix]bool{}}
}

// Add puts a prefix in.
func (s *Set) Add(p netip.Prefix) {
	p = p.Masked()
	if p.Bits() > 0 {
		s.Members[p] = true
		return
	}
	low, _ := p.Addr().Prefix(1)
	high := p.Addr().AsSlice()
	high[0] = 0x80
	a, _ := netip.AddrFromSlice(high)
	s.Members[low], s.Members[netip.PrefixFrom(a, 1)] = true, true
}

// AddAddr puts an address in.
func (s *Set) AddAddr(a netip.Addr) { s.Members[netip.PrefixFrom(a, a.BitLen())] = true }

func (s *Set) sameKind(o *Set) bool { return s.Type == o.Type && s.Family == o.Family }

// Sets are sets by name: at most 31 bytes.
type Sets map[string]*Set

// Change is the way from one state to another, in parts that the caller puts
// between those of the rules.
type Change struct {
	Create  Sets                      // new ones, or of another kind than what stands; to be made whole before a rule names them
	Remove  map[string][]netip.Prefix // from sets that stay
	Add     map[string][]netip.Prefix // to sets that stay
	Destroy []string                  // when no rule names them any more
}

// Diff finds the way from have to want.
func Diff(have, want Sets) Change {
	c := Change{Create: Sets{}, Remove: map[string][]netip.Prefix{}, Add: map[string][]netip.Prefix{}}
	for name, w := range want {
		h, ok := have[name]
		if !ok || !h.sameKind(w) {
			c.Create[name] = w
			continue
		}
		for p := range h.Members {
			if !w.Members[p] {
				c.Remove[name] = append(c.Remove[name], p)
			}
		}
		for p := range w.Members {
			if !h.Members[p] {
				c.Add[name] = append(c.Add[name], p)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if want[name] == nil {
			c.Destroy = append(c.Destroy, name)
		}
	}
	return c
}

// Empty says that nothing changes.
func (c Change) Empty() bool {
	return len(c.Create) == 0 && len(c.Remove) == 0 && len(c.Add) == 0 && len(c.Destroy) == 0
}
