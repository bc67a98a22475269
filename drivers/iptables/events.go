package iptables

import (
	"context"

	"github.com/ringwall/ringwall/core"
)

// Events reports foreign changes of our rules and of the bridges' switches.
func (b *Backend) Events(ctx context.Context) (<-chan core.Event, error) {
	events := make(chan core.Event, 64)
	b.mu.Lock()
	b.events[events] = true
	b.mu.Unlock()
	b.watching.Go(func() {
		<-ctx.Done()
		b.mu.Lock()
		delete(b.events, events)
		b.mu.Unlock()
		close(events)
	})
	return events, nil
}
