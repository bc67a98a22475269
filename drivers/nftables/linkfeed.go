package nftables

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// followLinks keeps what hangs on the host's links up to date: bridges and
// their MACs and zones, ports of unmanaged bridges, the guard at each VM port,
// and the netfilter switches of managed bridges.
func (b *Backend) followLinks(ctx context.Context, changes <-chan links.Changes) {
	for c := range changes {
		if c.Lost != nil {
			b.log.Warn("reports of link changes were lost for a while", "error", c.Lost)
		}
		b.mu.Lock()
		b.links.Apply(c)
		if b.enforced != nil {
			if err := b.followTopology(ctx); err != nil {
				b.log.Error("following the host's links failed; syncing anew", "error", err)
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
	if topo.equal(b.topo) {
		b.guardPorts(ctx) // a port of another name, or made anew under its name
		return nil
	}
	old := b.renderer()
	next := renderer{b.settings, topo}
	if tx := nft.Diff(old.topologyPart(), next.topologyPart()); !tx.Empty() {
		if err := b.send(ctx, tx); err != nil {
			return err
		}
	}
	b.topo = topo
	b.guardPorts(ctx)
	b.tell(core.Event{Kind: core.EventPorts, Object: "bridge ports"})
	return nil
}

// needNetfilter gives the bridges whose netfilter switches are to be on: none
// where br_netfilter does not carry the datapath.
func (b *Backend) needNetfilter(t topology) map[string]bridge {
	if b.settings.native {
		return nil
	}
	return t.bridges
}

// switchNetfilterOn turns on the calls into netfilter of each managed bridge.
// The host-wide switches are never touched: they open or close other bridges.
func (b *Backend) switchNetfilterOn(ctx context.Context, t topology) error {
	for name := range b.needNetfilter(t) {
		if b.links.Bridges[name].NFCall == links.AllNFCall {
			continue
		}
		if err := links.SetNFCall(ctx, links.Options{NetNS: b.fd()}, name, links.AllNFCall); err != nil {
			return fmt.Errorf("switch netfilter on for bridge %s (is br_netfilter loaded? modprobe br_netfilter): %w", name, err)
		}
		l := b.links.Bridges[name]
		l.NFCall = links.AllNFCall
		b.links.Bridges[name] = l
	}
	return nil
}

// repairSwitches puts back what somebody has switched off. Until then the
// bridge is closed, because nothing passes without conntrack's word.
func (b *Backend) repairSwitches(ctx context.Context, t topology) error {
	for name := range b.needNetfilter(t) {
		if _, known := b.topo.bridges[name]; known && b.links.Bridges[name].NFCall != links.AllNFCall {
			b.log.Warn("netfilter was switched off for a managed bridge; switching it on", "bridge", name)
			defer b.tell(core.Event{Kind: core.EventRepaired, Object: "bridge " + name + ": netfilter was switched off"})
		}
	}
	return b.switchNetfilterOn(ctx, t)
}

// guardPorts hooks the netdev chain to every VM port there is. It is no part of
// the main transaction: a device that goes away meanwhile would void that. Until
// it stands, the ip table drops what a port hands up.
func (b *Backend) guardPorts(ctx context.Context) {
	ports := map[string]int{} // by name, as one may be made anew under its name
	guard := func(device string) {
		p := b.links.Ports[device]
		if _, managed := b.topo.bridges[p.Bridge]; managed {
			ports[device] = p.Index
		}
	}
	for _, d := range b.topo.guarded {
		guard(d)
	}
	for _, n := range b.enforced.ruleset.NICs {
		for _, d := range n.Devices {
			if guard(d); n.Kind == core.SystemVM {
				delete(ports, d)
			}
		}
	}
	if b.guarded != nil && maps.Equal(ports, b.guarded) {
		return
	}
	want := b.wantedGuard(slices.Sorted(maps.Keys(ports)))
	if err := b.replaceGuard(ctx, ports, want); err != nil {
		b.log.Warn("guarding the ports failed; trying again at the next change", "error", err)
		return
	}
	b.guarded = ports
}

// replaceGuard goes by what stood when it was last looked at, where nothing has
// gone since: a device takes its chain along, on most kernels.
func (b *Backend) replaceGuard(ctx context.Context, ports map[string]int, want nft.State) error {
	known := b.guarded != nil
	for d, index := range b.guarded {
		known = known && ports[d] == index
	}
	have := b.wantedGuard(slices.Sorted(maps.Keys(b.guarded)))
	if !known {
		var err error
		if have, _, err = b.conn.ReadState(ctx, netdevTable); err != nil {
			return err
		}
	}
	tx := nft.Diff(have, want)
	if tx.Empty() {
		return nil
	}
	_, err := b.conn.Apply(ctx, tx)
	if err != nil {
		b.guarded = nil // look again
	}
	return err
}

func (b *Backend) wantedGuard(devices []string) nft.State {
	if len(devices) == 0 {
		return nft.State{}
	}
	return nft.State{}.Add(linkLocalGuard(devices, b.enforced.ruleset.Options.CountOnly))
}

// observeGuard compares the netdev table with what guardPorts has made of it.
// Devices that came or went since are not missed: the watch of the links is about
// to follow them.
func (b *Backend) observeGuard(ctx context.Context, now links.Snapshot) ([]core.Drift, error) {
	if b.guarded == nil {
		return nil, nil
	}
	have, _, err := b.conn.ReadState(ctx, netdevTable)
	if err != nil {
		return nil, fmt.Errorf("read back the ports' table: %w", err)
	}
	var devices []string
	for _, d := range slices.Sorted(maps.Keys(b.guarded)) {
		// Of a device that went, newer kernels keep the chain.
		kept := have[netdevTable] != nil && have[netdevTable].Chains[guardChain(d)] != nil
		if p, ok := now.Ports[d]; kept || ok && p.Index == b.guarded[d] {
			devices = append(devices, d)
		}
	}
	var drift []core.Drift
	for _, d := range nft.Compare(b.wantedGuard(devices), have) {
		drift = append(drift, core.Drift{Object: d.Object, Difference: d.String()})
	}
	return drift, nil
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

// Events reports foreign changes of our tables and of the bridges' switches.
func (b *Backend) Events(ctx context.Context) (<-chan core.Event, error) {
	monitor, err := nft.NewMonitor(b.conn)
	if err != nil {
		return nil, err
	}
	events := make(chan core.Event, 64)
	b.mu.Lock()
	b.events[events] = true
	b.mu.Unlock()
	b.watching.Go(func() {
		defer func() {
			monitor.Close()
			b.mu.Lock()
			delete(b.events, events)
			b.mu.Unlock()
			close(events)
		}()
		for {
			e, err := monitor.Next(ctx)
			if err != nil {
				return
			}
			b.mu.Lock()
			b.foreign(e)
			b.mu.Unlock()
		}
	})
	return events, nil
}

func (b *Backend) foreign(e nft.Event) {
	if e.Overrun {
		b.tell(core.Event{Kind: core.EventLost, Object: "nftables"})
		return
	}
	for _, t := range e.Tables {
		if t.Name == TableName {
			b.tell(core.Event{Kind: core.EventDrift, Object: "table " + t.String(), By: fmt.Sprintf("%s[%d]", e.Process, e.PID)})
			return
		}
	}
}
