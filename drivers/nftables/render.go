package nftables

import (
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

func hasOddPort(o core.Options, n core.NICPolicy) bool {
	return slices.ContainsFunc(n.Devices, func(d string) bool { return !o.IsVMPort(d) })
}

// renderer makes nftables objects of a ruleset.
type renderer struct {
	settings settings
	topo     topology
}

// all renders everything.
func (r renderer) all(e *enforced) nft.State {
	tables := r.skeletonTables(e)
	d := defs(tables)
	elems := elements{}
	for _, n := range e.ruleset.NICs {
		d.addNIC(elems, e.ruleset.Options, e.sides, n)
	}
	d.addOwned(elems, e.owned)
	r.addTopology(d, elems)
	bridge := tables[bridgeTable]
	for name, g := range e.ruleset.Groups {
		renderGroup(bridge, name, g)
	}
	for name, s := range e.ruleset.Sets {
		renderMembers(bridge, name, s.Members)
	}
	for p := range e.profiles {
		bridge.AddChain(p.render())
	}
	bridge.AddSet(fingerprintSet(e.fingerprint))
	fill(tables, elems)
	return tables
}

func (r renderer) skeletonTables(e *enforced) nft.State {
	s := skeleton{options: e.ruleset.Options, marks: r.settings.marks, native: r.settings.native, oddPorts: e.oddPorts > 0, labels: e.ambiguous > 0}
	return nft.State{}.Add(s.bridge(), s.ip(fam4), s.ip(fam6))
}

// part renders what lies in sc: touched NICs' elements, touched groups, changed
// members, and those of the profiles that are in use. before says which side of
// the change this is. The shared sets stand on both sides, or the difference
// would make or remove them.
func (r renderer) part(e *enforced, sc scope, before bool) nft.State {
	tables := emptySets()
	bridge := tables[bridgeTable]
	elems := elements{}
	for _, k := range sc.nics {
		if n, ok := e.ruleset.NICs[k]; ok {
			defs(tables).addNIC(elems, e.ruleset.Options, e.sides, n)
		}
	}
	if sc.owned {
		defs(tables).addOwned(elems, e.owned)
	}
	for _, name := range sc.groups {
		if g, ok := e.ruleset.Groups[name]; ok {
			renderGroup(bridge, name, g)
		}
	}
	for name, d := range sc.sets {
		if _, ok := e.ruleset.Sets[name]; !ok {
			continue
		}
		if before {
			renderMembers(bridge, name, d.Remove)
		} else {
			renderMembers(bridge, name, d.Add)
		}
	}
	for p := range sc.profiles {
		if e.profiles[p] > 0 {
			bridge.AddChain(p.render())
		}
	}
	bridge.AddSet(fingerprintSet(e.fingerprint))
	fill(tables, elems)
	return tables
}

// topologyPart renders what hangs on the links alone.
func (r renderer) topologyPart() nft.State {
	tables, elems := emptySets(), elements{}
	r.addTopology(defs(tables), elems)
	fill(tables, elems)
	return tables
}

func (r renderer) addTopology(d defs, e elements) {
	d.addTopology(e, r.topo)
	if r.settings.native {
		d.addNativeZones(e, r.topo)
	}
}

// fill moves collected elements into the sets.
func fill(tables nft.State, elems elements) {
	for id, sets := range elems {
		for name, m := range sets {
			s := tables[id].Sets[name]
			if s.Elements == nil {
				s.Elements = m
				continue
			}
			maps.Copy(s.Elements, m)
		}
	}
}

// The fingerprint of the enforced ruleset is kept in the kernel, as the one
// element of a set that no rule asks: it changes in the same transaction. It is
// no comment of a rule, because the kernel walks all chains of a table again
// when any rule changes (nft_chain_validate), and none for an element.
const fingerprintName = "fingerprint"

func fingerprintSet(f core.Fingerprint) *nft.Set {
	s := &nft.Set{Name: fingerprintName, Key: nft.Types(nft.DataType{Name: "integer", ID: nft.TypeInteger32.ID, Size: len(f)})}
	s.Add(nft.Value{}, nft.Raw(f[:]))
	return s
}

// readFingerprint is zero when the table holds none.
func readFingerprint(s nft.State) core.Fingerprint {
	var f core.Fingerprint
	if t := s[bridgeTable]; t != nil && t.Sets[fingerprintName] != nil {
		for key := range t.Sets[fingerprintName].Elements {
			copy(f[:], key.From)
		}
	}
	return f
}

func (s sides) add(name string, g core.GroupPolicy) {
	m := map[side]bool{}
	for _, e := range g.Entries {
		m[side{e.Direction, e.Family}] = true
	}
	s[name] = m
}
