package links

import (
	"context"

	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
)

// Changes is what has happened since the last report.
type Changes struct {
	Bridges []Change[Bridge]
	Ports   []Change[Port]
	// Lost, when set, says why the kernel's reports were lost for a while. As
	// soon as they can be had again the changes are complete, but something may
	// have been changed and changed back unseen.
	Lost error
}

// Change is one device's: no Before when it appeared, no After when it
// vanished. A device is told by its index: one that was deleted and made again
// under its name is two changes.
type Change[T any] struct{ Before, After *T }

func (c Changes) empty() bool { return len(c.Bridges) == 0 && len(c.Ports) == 0 && c.Lost == nil }

// backlog is how many of the kernel's datagrams are taken in before the changes
// are summed up again for a reader that is away.
const backlog = 256

// Watch reports changes until ctx ends, then closes the channel. The first
// report is everything there is. A reader that waits gets a change at once; one
// that is away gets one report that sums up all.
func Watch(ctx context.Context, o Options) (<-chan Changes, error) {
	feed, err := source(withoutStats).Open(ctx, o.NetNS)
	if err != nil {
		return nil, err
	}
	batches := make(chan nl.Batch[link], backlog)
	go func() {
		defer close(batches)
		defer feed.Close()
		for {
			b, err := feed.Next(ctx)
			if err != nil {
				return
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	reports := make(chan Changes)
	go func() {
		defer close(reports)
		first, ok := <-batches
		if !ok {
			return
		}
		m := newMirror()
		m.take(first)
		next, ready := m.changes(), reports
		for {
			select {
			case ready <- next:
				m.reported()
				ready = nil
			case b, ok := <-batches:
				if !ok {
					return
				}
				m.take(b)
				for range len(batches) {
					m.take(<-batches)
				}
				if next, ready = m.changes(), reports; next.empty() {
					ready = nil
				}
			}
		}
	}()
	return reports, nil
}
