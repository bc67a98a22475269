package state

import (
	"iter"
	"maps"
)

// layer is a map with changes laid over it, which leave it alone. Layers stack
// so that one change of many can be taken back.
type layer[K comparable, V any] struct {
	base  map[K]V
	under *layer[K, V] // takes the place of base
	over  map[K]*V     // nil = deleted
}

func (l *layer[K, V]) get(k K) (V, bool) {
	if p, ok := l.over[k]; ok {
		if p == nil {
			var none V
			return none, false
		}
		return *p, true
	}
	if l.under != nil {
		return l.under.get(k)
	}
	v, ok := l.base[k]
	return v, ok
}

func (l *layer[K, V]) set(k K, v *V) {
	if l.over == nil {
		l.over = map[K]*V{}
	}
	l.over[k] = v
}

// merged is base with everything laid over it; base itself when that is nothing.
func (l *layer[K, V]) merged() map[K]V {
	m := l.base
	if l.under != nil {
		m = l.under.merged()
	}
	if len(l.over) == 0 {
		return m
	}
	out := make(map[K]V, len(m)+len(l.over))
	maps.Copy(out, m)
	for k, v := range l.over {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = *v
		}
	}
	return out
}

// all may be broken off, and changed meanwhile: it walks what was there when
// it started.
func (l *layer[K, V]) all() iter.Seq2[K, V] { return maps.All(l.merged()) }

func (l *layer[K, V]) push() layer[K, V] { return layer[K, V]{under: l} }

// absorb lays the changes of top, a layer pushed on l, over l.
func (l *layer[K, V]) absorb(top layer[K, V]) {
	for k, v := range top.over {
		l.set(k, v)
	}
}
