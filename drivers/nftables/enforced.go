package nftables

import (
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// enforced is a ruleset in force, with the indexes that let a change be
// rendered without looking at the rest.
type enforced struct {
	ruleset     core.Ruleset
	fingerprint core.Fingerprint
	sides       sides
	profiles    map[profile]int    // by how many NICs each is used
	shared      map[sharedElem]int // likewise
	owned       map[owned]int      // likewise
	oddPorts    int                // NICs on devices that are no VM ports by name
	ambiguous   int                // NICs whose flows are not told by address
}

// sharedElem is an element that several NICs may bring (two routers with one
// virtual MAC), and that goes with the last of them.
type sharedElem struct {
	table nft.TableID
	set   string
	key   nft.Key
}

func newEnforced(r core.Ruleset, f core.Fingerprint) *enforced {
	e := &enforced{ruleset: r, fingerprint: f, sides: sides{}, profiles: map[profile]int{}, shared: map[sharedElem]int{}, owned: map[owned]int{}}
	for name, g := range r.Groups {
		e.sides.add(name, g)
	}
	definitions := defs(emptySets())
	for _, n := range r.NICs {
		e.count(definitions, n, 1)
	}
	return e
}

// count adds a NIC to the indexes, or takes it out.
func (e *enforced) count(d defs, n core.NICPolicy, by int) {
	for _, p := range e.sides.profilesOf(n) {
		tally(e.profiles, p, by)
	}
	elems := elements{}
	d.addNIC(elems, e.ruleset.Options, e.sides, n)
	for id, sets := range elems {
		for set, m := range sets {
			if id == bridgeTable && !slices.Contains(sharedSets, set) {
				continue // keyed by device, so never shared
			}
			for key := range m {
				tally(e.shared, sharedElem{id, set, key}, by)
			}
		}
	}
	for _, o := range ownedBy(e.ruleset.Options, n) {
		tally(e.owned, o, by)
	}
	if hasOddPort(e.ruleset.Options, n) {
		e.oddPorts += by
	}
	if ambiguous(e.ruleset.Options, n) {
		e.ambiguous += by
	}
}

func tally[K comparable](m map[K]int, k K, by int) {
	if m[k] += by; m[k] <= 0 {
		delete(m, k)
	}
}

// scope is what a change touches.
type scope struct {
	nics     []core.NICKey
	groups   []string
	sets     map[string]core.SetDelta
	profiles map[profile]bool
	owned    bool // prefixes that NICs may share
}

// advance gives the state after a delta, and what it touches. The receiver is
// not changed.
func (e *enforced) advance(d core.Delta) (*enforced, scope, error) {
	ruleset, err := d.Apply(e.ruleset, e.fingerprint)
	if err != nil {
		return nil, scope{}, err
	}
	next := &enforced{
		ruleset: ruleset, fingerprint: d.To, oddPorts: e.oddPorts, ambiguous: e.ambiguous,
		sides: maps.Clone(e.sides), profiles: maps.Clone(e.profiles), shared: maps.Clone(e.shared),
		owned: maps.Clone(e.owned),
	}
	sc := scope{sets: d.Sets, profiles: map[profile]bool{}}
	shifted := map[string]bool{} // groups that gain or lose a chain
	for name := range d.Groups {
		sc.groups = append(sc.groups, name)
		if g, ok := ruleset.Groups[name]; ok {
			next.sides.add(name, g)
		} else {
			delete(next.sides, name)
		}
		if !maps.Equal(e.sides[name], next.sides[name]) {
			shifted[name] = true
		}
	}
	nics := map[core.NICKey]bool{}
	for _, k := range d.Removed {
		nics[k] = true
	}
	for _, n := range d.NICs {
		nics[n.Key] = true
	}
	if len(shifted) > 0 {
		for k, n := range ruleset.NICs {
			if slices.ContainsFunc(n.Groups, func(g string) bool { return shifted[g] }) {
				nics[k] = true
			}
		}
	}
	definitions := defs(emptySets())
	for k := range nics {
		sc.nics = append(sc.nics, k)
		if n, ok := e.ruleset.NICs[k]; ok {
			after := next.sides
			next.sides = e.sides // it was counted with these
			next.count(definitions, n, -1)
			sc.owned = sc.owned || len(ownedBy(ruleset.Options, n)) > 0
			next.sides = after
			for _, p := range e.sides.profilesOf(n) {
				sc.profiles[p] = true
			}
		}
		if n, ok := ruleset.NICs[k]; ok {
			next.count(definitions, n, 1)
			sc.owned = sc.owned || len(ownedBy(ruleset.Options, n)) > 0
			for _, p := range next.sides.profilesOf(n) {
				sc.profiles[p] = true
			}
		}
	}
	return next, sc, nil
}

// keepShared puts back into after what a change would take away although an
// untouched NIC still needs it.
func (e *enforced) keepShared(before, after nft.State) {
	for id, t := range before {
		for name, s := range t.Sets {
			for key, v := range s.Elements {
				target := after[id].Sets[name]
				if e.shared[sharedElem{id, name, key}] == 0 {
					continue
				}
				if _, ok := target.Elements[key]; !ok {
					if target.Elements == nil {
						target.Elements = map[nft.Key]nft.Value{}
					}
					target.Elements[key] = v
				}
			}
		}
	}
}

// sameSkeleton: e and o differ in nothing that the skeleton depends on, if their
// options are the same.
func (e *enforced) sameSkeleton(o *enforced) bool {
	return (e.oddPorts > 0) == (o.oddPorts > 0) && (e.ambiguous > 0) == (o.ambiguous > 0)
}
