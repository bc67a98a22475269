package vmware

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// intent is what the switch should be like.
type intent struct {
	networks    map[int]network // under management
	segments    map[core.NICKey]Segment
	prefix      string
	fingerprint core.Fingerprint
}

// plan leads the switch from what it is to what it should be. Its parts are
// carried out in this order.
type plan struct {
	park   []groupChange // port groups to make, or to take off a private VLAN, before it comes or goes
	add    []entry
	set    []groupChange // port groups to put onto their private VLAN
	moves  []move        // see order
	strays []card        // that no port group is known for to move them to

	leftovers []portGroup // ours, and of no use any more
	remove    []entry     // made for them
	record    []groupChange
}

// groupChange brings a port group of ours to a setting and a mark.
type groupChange struct {
	have    *portGroup // nil = to be made
	name    string
	mark    mark
	setting setting
}

// move takes a card to a segment, or home.
type move struct {
	card card
	from *Segment // nil = a port group of somebody else's
	to   Segment
	home string // key of a port group; "" = to counts
	wave int    // of order
}

// planner works a plan out. It changes nothing and asks nobody.
type planner struct {
	*virtualSwitch
	intent
	ours map[Segment]portGroup
	used map[int]bool   // VLAN ids that cannot be given away
	keep map[entry]bool // entries that something wanted stands on
	plan plan
}

func newPlan(sw *virtualSwitch, cards []card, want intent) (*plan, error) {
	p := &planner{virtualSwitch: sw, intent: want, ours: map[Segment]portGroup{}, used: map[int]bool{}, keep: map[entry]bool{}}
	p.survey()
	wanted := p.place(cards)
	for _, s := range wanted {
		if err := p.provide(s); err != nil {
			return nil, err
		}
	}
	p.clean(wanted)
	p.plan.moves = order(p.plan.moves)
	return &p.plan, nil
}

// survey finds out what is ours, and which ids are taken.
func (p *planner) survey() {
	for _, e := range p.entries {
		p.used[e.Primary], p.used[e.Secondary] = true, true
	}
	for primary := range p.networks {
		p.used[primary] = true
	}
	for _, key := range slices.Sorted(maps.Keys(p.groups)) {
		g := p.groups[key]
		p.used[g.VLAN], p.used[g.PVLAN] = true, true
		if g.mark == nil {
			continue
		}
		p.used[g.mark.ID] = true
		if _, twice := p.ours[g.mark.Segment]; twice {
			p.plan.leftovers = append(p.plan.leftovers, g)
			continue
		}
		p.ours[g.mark.Segment] = g
	}
}

// place decides where each card goes, and thereby which segments are wanted:
// in each network the closed and the isolated one always, since a card may turn
// up at any time.
func (p *planner) place(cards []card) []Segment {
	wanted := map[Segment]bool{}
	for primary := range p.networks {
		wanted[Segment{VLAN: primary, Kind: Closed}] = true
		wanted[Segment{VLAN: primary, Kind: Isolated}] = true
	}
	for _, c := range cards {
		g, known := p.groups[c.group]
		if !known || c.vm.template {
			continue // a template does not run, and cannot be changed
		}
		var from *Segment
		if g.mark != nil {
			from = &g.mark.Segment
		}
		vlan := p.primary(g)
		if _, managed := p.networks[vlan]; !managed {
			if from != nil {
				p.goHome(c, from)
			}
			continue
		}
		to, named := p.segments[c.nic()]
		if !named || to.VLAN != vlan {
			to = Segment{VLAN: vlan, Kind: Closed}
		}
		wanted[to] = true
		if from == nil || *from != to || p.ours[to].key != g.key {
			p.plan.moves = append(p.plan.moves, move{card: c, from: from, to: to})
		}
	}
	return slices.SortedFunc(maps.Keys(wanted), Segment.Compare)
}

// goHome takes a card off a network that is not managed any more.
func (p *planner) goHome(c card, from *Segment) {
	if home, there := p.groups[c.home]; there && home.mark == nil {
		p.plan.moves = append(p.plan.moves, move{card: c, from: from, home: c.home})
		return
	}
	p.plan.strays = append(p.plan.strays, c)
}

// provide sees to a segment's port group and to the entries that it stands on.
func (p *planner) provide(s Segment) error {
	g, exists := p.ours[s]
	m := mark{Segment: s}
	var old mark
	if exists {
		old = *g.mark
		m.Own = slices.Clone(old.Own)
	}
	stands, err := p.standsOn(s, old.ID)
	if err != nil {
		return err
	}
	missing := false
	for _, e := range stands {
		m.ID = e.Secondary // the last is the segment's own
		p.keep[e] = true
		if slices.Contains(p.entries, e) || slices.Contains(p.plan.add, e) {
			continue
		}
		missing = true
		p.plan.add = append(p.plan.add, e)
		if !slices.Contains(m.Own, e.Secondary) {
			m.Own = append(m.Own, e.Secondary)
		}
	}
	slices.Sort(m.Own)
	p.used[m.ID] = true
	c := groupChange{name: p.groupName(m), mark: m}
	current, claimed := setting{}, old
	if exists {
		c.have, c.name = &g, g.name
		current = g.setting
	}
	claimed.Ruleset = core.Fingerprint{}
	if !exists || missing || !claimed.equal(m) {
		c.setting = parked
		p.plan.park = append(p.plan.park, c)
		current = parked
	}
	if c.setting = m.want(); current != c.setting {
		p.plan.set = append(p.plan.set, c)
	}
	if s.Kind == Closed {
		c.mark.Ruleset = p.fingerprint
		if old.Ruleset != p.fingerprint || current != c.setting {
			p.plan.record = append(p.plan.record, c)
		}
	}
	return nil
}

// standsOn lists the entries of the private VLAN map that a segment needs, its
// own last. id is the one that it has had; 0 = none.
func (p *planner) standsOn(s Segment, id int) ([]entry, error) {
	for _, e := range p.entries {
		if e.Primary != s.VLAN && e.Secondary == s.VLAN {
			return nil, fmt.Errorf("VLAN %d is a secondary of VLAN %d on switch %s, so it can be no primary; take it out of networks, or out of the switch's map: %w", s.VLAN, e.Primary, p.name, core.ErrNotReady)
		}
	}
	primary := entry{s.VLAN, s.VLAN, Promiscuous}
	if s.Kind == Promiscuous {
		return []entry{primary}, nil
	}
	own := entry{s.VLAN, id, Isolated}
	if s.Kind == Community {
		own.Type = Community
	} else if e, there := p.isolated(s.VLAN); there {
		return []entry{primary, e}, nil // a primary has but one, whoever made it
	}
	for _, e := range p.entries {
		if e.Secondary == own.Secondary && e != own {
			own.Secondary = 0 // somebody has put another in its place
		}
	}
	if own.Secondary == 0 {
		var err error
		if own.Secondary, err = p.allocate(s); err != nil {
			return nil, err
		}
	}
	return []entry{primary, own}, nil
}

func (p *planner) isolated(primary int) (entry, bool) {
	for _, e := range slices.Concat(p.entries, p.plan.add) {
		if e.Primary == primary && e.Type == Isolated {
			return e, true
		}
	}
	return entry{}, false
}

// allocate gives the lowest id that nobody uses.
func (p *planner) allocate(s Segment) (int, error) {
	n := p.networks[s.VLAN]
	for id := n.First; id <= n.Last; id++ {
		if !p.used[id] {
			p.used[id] = true
			return id, nil
		}
	}
	why := fmt.Sprintf("all ids from %d to %d of VLAN %d are taken, none is left for %s; widen its range in networks", n.First, n.Last, s.VLAN, s)
	if s.Group == "" {
		return 0, fmt.Errorf("%s: %w", why, core.ErrNotReady)
	}
	return 0, &core.ObjectError{Groups: []string{s.Group}, Err: fmt.Errorf("%s: %w", why, core.ErrUnsupported)}
}

// groupName is free to be changed in vCenter: the mark tells what is ours.
func (p *planner) groupName(m mark) string {
	name := fmt.Sprintf("%s-vlan%d-%s", p.prefix, m.VLAN, m.Kind)
	if m.Kind == Community {
		name += fmt.Sprintf("-%d", m.ID)
	}
	return name
}

// clean finds what was made for segments that nobody wants now.
func (p *planner) clean(wanted []Segment) {
	for s, g := range p.ours {
		if !slices.Contains(wanted, s) {
			p.plan.leftovers = append(p.plan.leftovers, g)
		}
	}
	slices.SortFunc(p.plan.leftovers, func(a, b portGroup) int {
		return cmp.Or(a.mark.Segment.Compare(b.mark.Segment), cmp.Compare(a.key, b.key))
	})
	for _, g := range p.plan.leftovers {
		for _, id := range g.mark.Own {
			for _, e := range p.entries {
				if e.Primary == g.mark.VLAN && e.Secondary == id && !p.keep[e] && !p.usedByOthers(id) && !slices.Contains(p.plan.remove, e) {
					p.plan.remove = append(p.plan.remove, e)
				}
			}
		}
	}
	// Somebody else's secondaries stand on a primary that we made.
	p.plan.remove = slices.DeleteFunc(p.plan.remove, func(e entry) bool {
		return e.Type == Promiscuous && slices.ContainsFunc(p.entries, func(o entry) bool {
			return o.Primary == e.Primary && !slices.Contains(p.plan.remove, o)
		})
	})
	slices.SortStableFunc(p.plan.remove, func(a, b entry) int {
		return cmp.Compare(a.Type, b.Type) // promiscuous, the primary, behind what stands on it
	})
}

// usedByOthers says whether a port group that is not ours has a private VLAN.
func (p *planner) usedByOthers(id int) bool {
	for _, g := range p.groups {
		if g.mark == nil && g.PVLAN == id {
			return true
		}
	}
	return false
}
