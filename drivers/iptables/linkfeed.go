package iptables

import (
	"context"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
)

// followLinks keeps what hangs on the host's links up to date: bridges and their
// MACs and zones, uplinks, ports without a policy, ports of unmanaged bridges,
// and the netfilter switches of managed ones.
func (b *Backend) followLinks(ctx context.Context, changes <-chan links.Changes) {
	for c := range changes {
		if c.Lost != nil {
			b.log.Warn("reports of link changes were lost for a while", "error", c.Lost)
		}
		b.mu.Lock()
		b.links.Apply(c)
		if b.enforced != nil {
			if err := b.followTopology(ctx); err != nil && ctx.Err() == nil {
				b.log.Error("following the host's links failed; sync anew", "error", err)
				b.tell(core.Event{Kind: core.EventDrift, Object: "links: " + err.Error()})
			}
		}
		b.mu.Unlock()
	}
}

func (b *Backend) followTopology(ctx context.Context) error {
	topo := topologyOf(b.links, b.enforced.ruleset.Options)
	if err := b.repairSwitches(ctx, topo); err != nil {
		return err
	}
	if topo.equal(b.enforced.topo) {
		b.guardPorts(ctx) // a device may have been made anew under its name
		return nil
	}
	next, err := b.render(b.enforced.ruleset, b.enforced.fingerprint)
	if err != nil {
		return err
	}
	if err := b.advance(ctx, next); err != nil {
		return err
	}
	b.tell(core.Event{Kind: core.EventPorts, Object: "bridge ports"})
	return nil
}

// switchNetfilterOn turns on the calls into netfilter of each managed bridge.
// The host-wide switches are never touched: they open or close other bridges.
func (b *Backend) switchNetfilterOn(ctx context.Context, t topology) error {
	for _, br := range t.bridges {
		l := b.links.Bridges[br.name]
		if l.NFCall == links.AllNFCall {
			continue
		}
		if err := links.SetNFCall(ctx, links.Options{NetNS: b.fd()}, br.name, links.AllNFCall); err != nil {
			return fmt.Errorf("switch netfilter on for bridge %s (is br_netfilter loaded? modprobe br_netfilter): %w", br.name, err)
		}
		l.NFCall = links.AllNFCall
		b.links.Bridges[br.name] = l
	}
	return nil
}

// repairSwitches puts back what somebody has switched off. Until then the bridge
// is closed, because nothing passes a NIC's port without the ip hooks' marks.
func (b *Backend) repairSwitches(ctx context.Context, t topology) error {
	for _, br := range t.bridges {
		if b.enforced.topo.has(br.name) && b.links.Bridges[br.name].NFCall != links.AllNFCall {
			b.log.Warn("netfilter was switched off for a managed bridge; switching it on", "bridge", br.name)
			defer b.tell(core.Event{Kind: core.EventRepaired, Object: "bridge " + br.name + ": netfilter was switched off"})
		}
	}
	return b.switchNetfilterOn(ctx, t)
}

// tell sends an event to whoever listens, and drops it for who is not reading:
// the engine looks for itself from time to time.
func (b *Backend) tell(e core.Event) {
	for c := range b.events {
		select {
		case c <- e:
		default:
		}
	}
}
