package vmware

import (
	"cmp"
	"slices"
)

// order arranges moves so that at no moment two cards meet that meet neither
// before the first move nor after the last. Moves of one wave may be carried
// out in any order.
//
// First goes what only takes away. A card enters a community when all that have
// to leave it have left; where each waits for another, one steps aside into the
// isolated segment. Cards become promiscuous last.
func order(pending []move) []move {
	pending = slices.Clone(pending)
	slices.SortStableFunc(pending, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.to.Compare(b.to), cmp.Compare(a.card.vm.name, b.card.vm.name), compareNICs(a.card.nic(), b.card.nic()))
	})
	var out []move
	for wave := 1; len(pending) > 0; wave++ {
		rank := pending[0].rank()
		var later []move
		for _, m := range pending {
			if m.rank() != rank || !m.ready(pending) {
				later = append(later, m)
				continue
			}
			m.wave = wave
			out = append(out, m)
		}
		if len(later) == len(pending) {
			later = slices.Clone(pending)
			i := blocking(later)
			aside := later[i]
			aside.to, aside.home, aside.wave = Segment{VLAN: aside.vlan(), Kind: Isolated}, "", wave
			out = append(out, aside)
			later[i].from = &aside.to
			slices.SortStableFunc(later, func(a, b move) int { return cmp.Compare(a.rank(), b.rank()) })
		}
		pending = later
	}
	return out
}

// vlan is the primary VLAN that a move begins in.
func (m move) vlan() int {
	if m.from != nil {
		return m.from.VLAN
	}
	return m.to.VLAN
}

// blocking finds who has to step aside: an open port, or else who stands in a
// community that another wants to enter.
func blocking(pending []move) int {
	return slices.IndexFunc(pending, func(m move) bool { return m.rank() == 1 || m.from != nil && m.from.Kind == Community })
}

// rank says how much a move opens.
func (m move) rank() int {
	// A port group of somebody else's on the primary VLAN is as good as
	// promiscuous.
	open := m.from == nil || m.from.Kind == Promiscuous
	switch {
	case m.home != "":
		return 4
	case m.to.Kind == Closed, m.to.Kind == Isolated && (open || m.from.Kind == Community):
		return 0
	case m.to.Kind == Community && open:
		return 1
	case m.to.Kind == Promiscuous:
		return 3
	}
	return 2
}

// ready says whether nobody has still to leave the community that m enters.
func (m move) ready(pending []move) bool {
	return m.to.Kind != Community || !slices.ContainsFunc(pending, func(o move) bool { return o.from != nil && *o.from == m.to })
}
