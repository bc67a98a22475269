package links

import (
	"maps"
	"slices"

	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
)

// mirror keeps all links of a namespace and derives bridges and ports from
// them, one link at a time.
type mirror struct {
	links   map[int]link
	bridges ledger[Bridge]
	ports   ledger[Port]
	lost    error
}

func newMirror() *mirror {
	return &mirror{links: map[int]link{}, bridges: newLedger[Bridge](), ports: newLedger[Port]()}
}

func (m *mirror) take(b nl.Batch[link]) {
	switch {
	case b.Lost != nil:
		m.lost = b.Lost
	case b.Whole:
		m.replace(b.Items)
	default:
		for _, l := range b.Items {
			m.update(l)
		}
	}
}

func (m *mirror) replace(all []link) {
	before := m.links
	m.links = make(map[int]link, len(all))
	for _, l := range all {
		if !l.gone {
			m.links[l.index] = l
		}
	}
	for i := range before {
		m.derive(i)
	}
	for i := range m.links {
		m.derive(i)
	}
}

func (m *mirror) update(l link) {
	before := m.links[l.index]
	if l.gone {
		delete(m.links, l.index)
	} else {
		m.links[l.index] = l
	}
	m.derive(l.index)
	// A bridge that is renamed says nothing of its ports, which are told by
	// its name.
	after := m.links[l.index]
	if before.isBridge() != after.isBridge() || after.isBridge() && before.name != after.name {
		for i, p := range m.links {
			if p.master == l.index {
				m.derive(i)
			}
		}
	}
}

func (m *mirror) derive(index int) {
	l := m.links[index]
	m.bridges.set(index, l.bridge())
	m.ports.set(index, l.port(m.links[l.master]))
}

// changes is everything since reported was last called.
func (m *mirror) changes() Changes {
	return Changes{Bridges: m.bridges.changes(), Ports: m.ports.changes(), Lost: m.lost}
}

func (m *mirror) reported() {
	clear(m.bridges.pending)
	clear(m.ports.pending)
	m.lost = nil
}

// ledger holds objects by index, and how they differ from what was reported.
type ledger[T comparable] struct {
	now     map[int]*T
	pending map[int]Change[T]
}

func newLedger[T comparable]() ledger[T] {
	return ledger[T]{now: map[int]*T{}, pending: map[int]Change[T]{}}
}

// set notes what an object is now; nil = it is not.
func (l *ledger[T]) set(index int, v *T) {
	before := l.now[index]
	if same(before, v) {
		return
	}
	if v == nil {
		delete(l.now, index)
	} else {
		l.now[index] = v
	}
	c, ok := l.pending[index]
	if !ok {
		c.Before = before
	}
	if c.After = v; same(c.Before, c.After) {
		delete(l.pending, index)
	} else {
		l.pending[index] = c
	}
}

func same[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func (l *ledger[T]) changes() []Change[T] {
	out := make([]Change[T], 0, len(l.pending))
	for _, i := range slices.Sorted(maps.Keys(l.pending)) {
		out = append(out, l.pending[i])
	}
	return out
}
