package vmware

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Action is what a Step does.
type Action string

const (
	Create Action = "create"
	Change Action = "change"
	Move   Action = "move"
	Remove Action = "remove"
)

// Step is one thing that a Sync would do, for people.
type Step struct {
	Action Action
	Object string      // port group ringwall-vlan100-isolated
	Detail string      // what it is, what it becomes
	NIC    core.NICKey // of a move
}

func (s Step) String() string { return fmt.Sprintf("%s %s: %s", s.Action, s.Object, s.Detail) }

// steps are the plan as people see it, in the order of its parts. What is only
// tidied up comes last.
func (p *plan) steps(names map[string]portGroup) (out []Step) {
	add := func(a Action, object, detail string) {
		out = append(out, Step{Action: a, Object: object, Detail: detail})
	}
	made := map[Segment]bool{}
	for _, c := range p.park {
		if c.have == nil {
			made[c.mark.Segment] = true
			add(Create, "port group "+c.name, c.mark.Segment.String()+", "+c.mark.want().String())
		} else {
			add(Change, "port group "+c.name, "is recorded as "+c.have.mark.String()+", blocked while its private vlan is made")
		}
	}
	for _, e := range p.add {
		add(Create, e.String(), "in the switch's map")
	}
	for _, c := range p.set {
		if !made[c.mark.Segment] {
			add(Change, "port group "+c.name, c.have.setting.String()+" -> "+c.setting.String())
		}
	}
	for _, m := range p.moves {
		from, to := "port group "+names[m.card.group].name, m.to.String()
		if m.from != nil {
			from = m.from.String()
		}
		if m.home != "" {
			to = "port group " + names[m.home].name
		}
		out = append(out, Step{Move, fmt.Sprintf("nic %s of VM %s", m.card.mac, m.card.vm.name),
			from + " -> " + to, m.card.nic()})
	}
	for _, e := range p.remove {
		add(Remove, e.String(), "from the switch's map")
	}
	for _, g := range p.leftovers {
		add(Remove, "port group "+g.name, g.mark.Segment.String())
	}
	return out
}

func (s setting) String() string {
	var parts []string
	switch {
	case s.PVLAN != 0:
		parts = append(parts, fmt.Sprintf("private vlan id %d", s.PVLAN))
	default:
		parts = append(parts, fmt.Sprintf("vlan id %d", s.VLAN))
	}
	if s.Blocked {
		parts = append(parts, "blocked")
	}
	if !s.Guarded {
		parts = append(parts, "forged MACs accepted")
	}
	return strings.Join(parts, ", ")
}

// drift is what of the plan is a difference from what was written. Leftovers
// harm nobody and are none.
func (p *plan) drift(names map[string]portGroup) (out []core.Drift) {
	tidy := *p
	tidy.remove, tidy.leftovers = nil, nil
	for _, s := range tidy.steps(names) {
		d := core.Drift{Object: s.Object, Difference: "missing: " + s.Detail, NIC: s.NIC}
		if s.Action != Create {
			d.Difference = "changed: " + s.Detail
		}
		out = append(out, d)
	}
	return out
}
