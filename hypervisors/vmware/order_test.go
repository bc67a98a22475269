package vmware

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/core"
)

// position is where a card is: a segment, or a port group of somebody else's.
type position struct {
	Segment
	foreign bool
}

func (p position) meets(o position) bool {
	open := func(p position) bool { return p.foreign || p.Kind == Promiscuous }
	switch {
	case p.Kind == Closed || o.Kind == Closed:
		return false
	case open(p) || open(o):
		return true
	}
	return p.Kind == Community && p.Segment == o.Segment
}

// Whatever the old and the new places are, and in whatever order the moves of a
// wave are carried out: nobody meets anybody whom he meets neither before nor
// after, everybody arrives, and undoing opens nothing either.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		somewhere := rapid.Custom(func(t *rapid.T) position {
			k := rapid.SampledFrom([]Kind{Closed, Isolated, Community, Community, Community, Promiscuous, ""}).Draw(t, "kind")
			p := position{Segment: Segment{VLAN: 100, Kind: k}, foreign: k == ""}
			if k == Community {
				p.Group = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "group")
			}
			return p
		})
		n := rapid.IntRange(2, 7).Draw(t, "cards")
		old, now, after := make([]position, n), make([]position, n), make([]position, n)
		var moves []move
		for i := range n {
			old[i] = somewhere.Draw(t, "old")
			after[i] = somewhere.Filter(func(p position) bool { return !p.foreign }).Draw(t, "new")
			now[i] = old[i]
			if old[i] == after[i] {
				continue
			}
			m := move{card: card{vm: &machine{key: core.VMKey(fmt.Sprint(i)), name: fmt.Sprint(i)}, key: int32(i)}, to: after[i].Segment}
			if !old[i].foreign {
				m.from = &old[i].Segment
			}
			moves = append(moves, m)
		}
		safe := func() {
			for i := range n {
				for j := range i {
					if now[i].meets(now[j]) && !old[i].meets(old[j]) && !after[i].meets(after[j]) {
						t.Fatalf("%d and %d meet at %v and %v; before %v, after %v", i, j, now[i], now[j], old, after)
					}
				}
			}
		}
		ordered := order(moves)
		var trace [][]position
		for len(ordered) > 0 {
			end := slices.IndexFunc(ordered, func(m move) bool { return m.wave != ordered[0].wave })
			if end < 0 {
				end = len(ordered)
			}
			wave := rapid.Permutation(ordered[:end]).Draw(t, "wave")
			for _, m := range wave {
				if m.from != nil && *m.from != now[m.card.key].Segment {
					t.Fatalf("card %d is at %v, its move begins at %v", m.card.key, now[m.card.key], *m.from)
				}
				trace = append(trace, slices.Clone(now))
				now[m.card.key] = position{Segment: m.to}
				safe()
			}
			ordered = ordered[end:]
		}
		for i := range n {
			if now[i] != after[i] {
				t.Fatalf("card %d is at %v, wants to %v", i, now[i], after[i])
			}
		}
		if len(trace) > 2*n {
			t.Fatalf("%d moves of %d cards", len(trace), n)
		}
	})
}
