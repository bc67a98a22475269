package nl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Source is a kind of kernel object that can be listed and that reports its
// changes.
type Source[T any] struct {
	Protocol int
	Groups   []int     // multicast groups that report changes
	Dumps    []Request // together they list everything
	// Parse reads a message of either kind; false = of no interest. What it
	// keeps it must copy.
	Parse func(Message) (T, bool)
}

// Batch is what a Feed has to say.
type Batch[T any] struct {
	// Whole: Items are all objects there are, and what was known before is
	// void. Else they are events, in order.
	Whole bool
	// Lost says why events were lost. Nothing comes with it; a whole batch
	// follows as soon as it can be had.
	Lost  error
	Items []T
}

// Feed follows the objects of a Source. The first batch is whole; so is every
// one after events were lost.
type Feed[T any] struct {
	src  Source[T]
	ns   *Namespace
	conn *Conn // nil: start again

	first Batch[T] // what Open has found
	begun bool
}

// feedBuffer holds the events of some thousand links while the reader is away.
const feedBuffer = 8 << 20

// Open starts a feed in a network namespace: an open descriptor, or -1 for the
// calling thread's.
func (s Source[T]) Open(ctx context.Context, netns int) (*Feed[T], error) {
	ns, err := OpenNamespace(netns)
	if err != nil {
		return nil, err
	}
	f := &Feed[T]{src: s, ns: ns}
	if f.first, err = f.start(ctx); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// List is the first batch of a feed, and no feed.
func (s Source[T]) List(ctx context.Context, netns int) ([]T, error) {
	ns, err := OpenNamespace(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return s.dump(ctx, ns)
}

func (s Source[T]) dump(ctx context.Context, ns *Namespace) ([]T, error) {
	c, err := ns.Dial(Config{Protocol: s.Protocol})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []T
	for _, r := range s.Dumps {
		items, err := Collect(ctx, c, r, s.Parse)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

// start subscribes before it dumps, so that nothing falls between. An event
// may then tell what the dump knew already.
func (f *Feed[T]) start(ctx context.Context) (Batch[T], error) {
	c, err := f.ns.Dial(Config{Protocol: f.src.Protocol, Groups: f.src.Groups, ReadBuffer: feedBuffer})
	if err != nil {
		return Batch[T]{}, err
	}
	items, err := f.src.dump(ctx, f.ns)
	if err != nil {
		c.Close()
		return Batch[T]{}, err
	}
	f.conn = c
	return Batch[T]{Whole: true, Items: items}, nil
}

const (
	firstPause = 10 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Next waits for the next batch. It fails only when ctx ends; whatever else
// goes wrong is mended by starting again, with growing pauses.
func (f *Feed[T]) Next(ctx context.Context) (Batch[T], error) {
	if !f.begun {
		f.begun = true
		return f.first, nil
	}
	pause := firstPause
	for {
		if f.conn == nil {
			b, err := f.start(ctx)
			if err == nil {
				return b, nil
			}
			select {
			case <-ctx.Done():
				return b, ctx.Err()
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
			continue
		}
		items, err := f.read(ctx)
		if ctx.Err() != nil {
			return Batch[T]{}, ctx.Err()
		}
		if err != nil {
			f.conn.Close()
			f.conn = nil
			return Batch[T]{Lost: err}, nil
		}
		if len(items) > 0 {
			return Batch[T]{Items: items}, nil
		}
	}
}

func (f *Feed[T]) read(ctx context.Context) ([]T, error) {
	var items []T
	for m, err := range f.conn.Receive(ctx) {
		if errors.Is(err, unix.ENOBUFS) {
			return nil, fmt.Errorf("the kernel dropped events, the reader was too slow: %w", err)
		}
		if err != nil {
			return nil, err
		}
		if v, ok := f.src.Parse(m); ok {
			items = append(items, v)
		}
	}
	return items, nil
}

// Close ends the feed.
func (f *Feed[T]) Close() error {
	if f.conn != nil {
		f.conn.Close()
	}
	return f.ns.Close()
}
