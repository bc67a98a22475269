package conntrack

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
)

// Options say where to look.
type Options struct {
	// NetNS is an open descriptor of a network namespace, or -1 for that of
	// the calling thread.
	NetNS int
}

// Table is a network namespace's connection tracking table. Its methods may be
// used side by side.
type Table struct{ ns *nl.Namespace }

// Open finds the table.
func Open(o Options) (*Table, error) {
	ns, err := nl.OpenNamespace(o.NetNS)
	if err != nil {
		return nil, err
	}
	return &Table{ns}, nil
}

// Close lets the namespace go.
func (t *Table) Close() error { return t.ns.Close() }

// Filter narrows a reading. The zero Filter takes everything.
type Filter struct {
	Zones []uint16 // any of these, in whatever direction; nil = any
	Mark  Mark
}

func (f Filter) matches(e Entry) bool {
	return f.Mark.Matches(e.Mark) && (f.Zones == nil || slices.Contains(f.Zones, e.Zone.ID))
}

// request leaves to the kernel what it can do: the mark always; one zone since
// 6.8. An older kernel does not look at the zone, so the entries are asked again.
func (f Filter) request() nl.Request {
	b := header(unix.AF_UNSPEC)
	if f.Mark.Mask != 0 {
		b.BigUint32(ctaMark, f.Mark.Value&f.Mark.Mask)
		b.BigUint32(ctaMarkMask, f.Mark.Mask)
	}
	if len(f.Zones) == 1 {
		b.BigUint16(ctaZone, f.Zones[0])
	}
	return nl.Request{Type: ctGet, Body: b}
}

// Entries reads the table as it is walked over. Entries that come or go
// meanwhile may be seen or not, and one may be seen twice.
func (t *Table) Entries(ctx context.Context, f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		c, err := t.ns.Dial(nl.Config{Protocol: unix.NETLINK_NETFILTER})
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer c.Close()
		if n, err := entries(ctx, c); err == nil && n == 0 {
			return
		}
		for m, err := range c.Dump(ctx, f.request()) {
			if err != nil {
				yield(Entry{}, fmt.Errorf("list connection tracking entries: %w", err))
				return
			}
			if e, ok := parse(m); ok && f.matches(e) && !yield(e, nil) {
				return
			}
		}
	}
}

// entries counts those of the namespace. A dump walks over the buckets of all
// namespaces, a quarter of a million on a host with memory, and takes
// milliseconds to show that there is nothing; this takes microseconds.
func entries(ctx context.Context, c *nl.Conn) (n uint32, err error) {
	counted := false
	err = c.Get(ctx, nl.Request{Type: ctStats, Body: header(unix.AF_UNSPEC)}, func(m nl.Message) {
		for t, v := range nl.Attrs(m.Body(nfgenmsgLen)) {
			if t == ctaStatsGlobalEntries {
				n, counted = v.BigUint32(), true
			}
		}
	})
	if err == nil && !counted {
		err = fmt.Errorf("count connection tracking entries: the kernel gives no number: %w", core.ErrUnsupported)
	}
	return n, err
}

// List is Entries in a slice.
func (t *Table) List(ctx context.Context, f Filter) ([]Entry, error) {
	var all []Entry
	for e, err := range t.Entries(ctx, f) {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// SetMark sets bits of the entries' marks and reports how many there still
// were. One that is gone is no error and is not made again; the mark of one that
// was replaced by a later connection with the same tuple is set all the same.
func (t *Table) SetMark(ctx context.Context, entries []Entry, m Mark) (int, error) {
	n, err := t.batch(ctx, ctNew, entries, func(_ Entry, b *nl.Buffer) {
		b.BigUint32(ctaMark, m.Value&m.Mask)
		b.BigUint32(ctaMarkMask, m.Mask)
	})
	if err != nil {
		err = fmt.Errorf("mark connections: %w", err)
	}
	return n, err
}

// Delete removes entries and reports how many there still were. A connection
// that has since taken over an entry's tuple is left alone. Deleting does not end a
// connection: its next packet makes a new entry.
func (t *Table) Delete(ctx context.Context, entries []Entry) (int, error) {
	n, err := t.batch(ctx, ctDelete, entries, func(e Entry, b *nl.Buffer) {
		if e.ID != 0 {
			b.BigUint32(ctaID, e.ID)
		}
	})
	if err != nil {
		err = fmt.Errorf("delete connection tracking entries: %w", err)
	}
	return n, err
}

// batch asks the same of many entries. All are tried; the error is about the
// first that was refused.
func (t *Table) batch(ctx context.Context, kind uint16, entries []Entry, what func(Entry, *nl.Buffer)) (done int, err error) {
	if len(entries) == 0 {
		return 0, nil
	}
	c, err := t.ns.Dial(nl.Config{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	requests := make([]nl.Request, len(entries))
	for i, e := range entries {
		body := name(e)
		what(e, &body)
		requests[i] = nl.Request{Type: kind, Body: body}
	}
	refused, err := c.Batch(ctx, requests)
	if err != nil {
		return 0, err
	}
	first, failed := len(entries), 0
	for i, err := range refused {
		if !errors.Is(err, unix.ENOENT) {
			first, failed = min(first, i), failed+1
		}
	}
	done = len(entries) - len(refused)
	if failed > 0 {
		return done, fmt.Errorf("%d of %d refused, first %s: %w", failed, len(entries), entries[first], refused[first])
	}
	return done, nil
}
