package vmware

import (
	"context"

	"github.com/ringwall/ringwall/core"
)

var _ core.EventBackend = (*Backend)(nil)

// Events implements core.EventBackend. vCenter does not say who has changed
// something, so our own changes are told as well: whoever hears of them looks,
// and finds nothing. What matters is that a NIC which turns up on a managed
// network is closed at once, and not at the next look.
func (b *Backend) Events(ctx context.Context) (<-chan core.Event, error) {
	out := make(chan core.Event)
	tell := func(e core.Event) error {
		select {
		case out <- e:
		case <-ctx.Done():
		}
		// A storm of changes is one: vCenter gathers them meanwhile.
		sleep(ctx, b.eventPause)
		return ctx.Err()
	}
	go func() {
		defer close(out)
		for again := false; ctx.Err() == nil; again = true {
			err := b.follow(ctx, func(u changes) error {
				switch {
				case u.first && again:
					return tell(core.Event{Kind: core.EventLost, Object: "vCenter was out of sight"})
				case u.first:
					return nil
				case u.network:
					return tell(core.Event{Kind: core.EventPorts, Object: "switch " + b.settings.Switch})
				}
				return tell(core.Event{Kind: core.EventPorts, Object: "NICs of VMs"})
			})
			if ctx.Err() != nil {
				return
			}
			b.log.Warn("vCenter tells no changes; looking at intervals", "error", err)
			sleep(ctx, 10*b.eventPause)
		}
	}()
	return out, nil
}

func (b *Backend) follow(ctx context.Context, tell func(changes) error) error {
	client, err := b.conn.connect(ctx)
	if err != nil {
		return err
	}
	return follow(ctx, client, b.settings.place, []string{"config.hardware.device"}, tell)
}
