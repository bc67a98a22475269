package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// errClosed ends what outlives processes.
var errClosed = errors.New("closed")

// opened is a backend or an adapter of whichever process runs now.
type opened[T io.Closer] struct {
	p    *Plugin
	open func(context.Context, *rpc.Client) (T, error)

	mu      sync.Mutex
	session int // that current belongs to
	current T
	closed  bool
}

// get opens again what a restart has closed. It reports the session, too.
func (o *opened[T]) get(ctx context.Context) (current T, session int, err error) {
	s, err := o.p.current()
	if err != nil {
		return current, 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return current, 0, fmt.Errorf("plugin %s: %w", o.p.cfg.Name, errClosed)
	}
	if s.number != o.session {
		v, err := o.open(ctx, s.client)
		if err != nil {
			return current, 0, err
		}
		o.current, o.session = v, s.number
	}
	return o.current, o.session, nil
}

// latest is what was opened last, for what needs no process.
func (o *opened[T]) latest() T {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// Close closes it in the process that has it open, if that still runs.
func (o *opened[T]) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	if s, err := o.p.current(); err != nil || s.number != o.session {
		return nil
	}
	return o.current.Close()
}

// follow keeps a channel of events open across restarts: whenever the stream
// beneath had to be opened anew, mark comes before its events.
func follow[T any](ctx context.Context, p *Plugin, open func(context.Context) (<-chan T, error), mark T) (<-chan T, error) {
	in, err := open(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan T)
	send := func(v T) bool {
		select {
		case out <- v:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		for {
			for v := range in {
				if !send(v) {
					return
				}
			}
			for in = nil; in == nil; {
				select {
				case <-time.After(p.cfg.RestartMin):
				case <-ctx.Done():
					return
				}
				if in, err = open(ctx); errors.Is(err, errClosed) {
					return
				}
			}
			if !send(mark) {
				return
			}
		}
	}()
	return out, nil
}
