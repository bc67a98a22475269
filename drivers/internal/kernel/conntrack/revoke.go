package conntrack

import (
	"context"

	"github.com/ringwall/ringwall/core"
)

// Revocation says which flows to mark revoked and which to give back.
type Revocation struct {
	Revoke, Restore []core.Flow
	// Bit of the conntrack mark that revokes a flow.
	Bit uint32
	// Each visits the tracked flows, as the driver describes them, with their
	// entries.
	Each func(ctx context.Context, visit func(core.Flow, Entry)) error
}

// Revoke sets or clears the bit that revokes, and reports how many entries it
// changed. A deleted entry would not end a flow: the other end's next packet
// makes a new one. Given back, a flow goes on where it was, whichever end speaks
// next. Without its entry, the answering end's next packet would be asked as if
// it opened a flow the other way.
func (t *Table) Revoke(ctx context.Context, r Revocation) (int, error) {
	want := make(map[core.Flow]bool, len(r.Revoke)+len(r.Restore))
	key := func(f core.Flow) core.Flow {
		f.Revoked, f.From, f.To = false, core.NICKey{}, core.NICKey{}
		return f
	}
	for _, f := range r.Revoke {
		want[key(f)] = true
	}
	for _, f := range r.Restore {
		want[key(f)] = false
	}
	var mark, clear []Entry
	err := r.Each(ctx, func(f core.Flow, e Entry) {
		revoked, asked := want[key(f)]
		switch {
		case !asked || revoked == f.Revoked:
		case revoked:
			mark = append(mark, e)
		default:
			clear = append(clear, e)
		}
	})
	if err != nil {
		return 0, err
	}
	n, err := t.SetMark(ctx, mark, Mark{Value: r.Bit, Mask: r.Bit})
	if err != nil {
		return n, err
	}
	m, err := t.SetMark(ctx, clear, Mark{Mask: r.Bit})
	return n + m, err
}
