package nftables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/conntrack"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Backend enforces on one host, in one network namespace.
type Backend struct {
	conn     *nft.Conn
	netns    *os.File // of the thread that opened it
	flows    *conntrack.Table
	settings settings
	log      *slog.Logger

	stop     context.CancelFunc // ends the watch of the links
	watching sync.WaitGroup

	mu       sync.Mutex // of everything below, and of every transaction
	links    links.Snapshot
	topo     topology
	enforced *enforced      // nil until the first Sync, and when lost says why
	lost     error          // why what is in force is not known any more
	guarded  map[string]int // devices that the netdev chain is hooked to, with their indexes
	events   map[chan core.Event]bool
}

var (
	_ core.SecurityGroupBackend = (*Backend)(nil)
	_ core.FlowBackend          = (*Backend)(nil)
	_ core.EventBackend         = (*Backend)(nil)
)

func newBackend(ctx context.Context, conn *nft.Conn, s settings, log *slog.Logger) (*Backend, error) {
	netns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	b := &Backend{conn: conn, netns: netns, settings: s, log: log, events: map[chan core.Event]bool{}}
	if b.flows, err = conntrack.Open(conntrack.Options{NetNS: b.fd()}); err != nil {
		netns.Close()
		return nil, err
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = cancel
	changes, err := links.Watch(watch, links.Options{NetNS: b.fd()})
	if err != nil {
		cancel()
		netns.Close()
		return nil, fmt.Errorf("watch the host's links: %w", err)
	}
	b.links.Apply(<-changes) // the first report is everything there is
	b.watching.Go(func() { b.followLinks(watch, changes) })
	return b, nil
}

func (b *Backend) fd() int { return int(b.netns.Fd()) }

// Info is the driver's.
func (b *Backend) Info() core.Info { return driver{}.Info() }

// Close ends the watch. What is enforced stays.
func (b *Backend) Close() error {
	b.stop()
	b.watching.Wait()
	return errors.Join(b.conn.Close(), b.flows.Close(), b.netns.Close())
}

func (b *Backend) renderer() renderer { return renderer{b.settings, b.topo} }

// Sync makes the tables hold exactly r. It reads what is there, in the kernel's
// words, and sends the difference in one transaction.
func (b *Backend) Sync(ctx context.Context, r core.Ruleset) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := newEnforced(r, r.Fingerprint())
	topo := topologyOf(b.links, r.Options)
	if err := b.switchNetfilterOn(ctx, topo); err != nil {
		return err
	}
	want := renderer{b.settings, topo}.all(next)
	if err := b.replace(ctx, want); err != nil {
		if errors.Is(err, nft.ErrUnknown) {
			b.lose(err)
		}
		return blame(err, r)
	}
	b.enforced, b.topo, b.guarded, b.lost = next, topo, nil, nil
	b.guardPorts(ctx)
	return nil
}

// attempts bounds how often a transaction is tried anew because somebody else
// changed nftables at the same time.
const attempts = 8

// replace makes our tables what want says.
func (b *Backend) replace(ctx context.Context, want nft.State) error {
	var err error
	for range attempts {
		var have nft.State
		var generation uint32
		have, generation, err = b.conn.ReadState(ctx, bridgeTable, ip4Table, ip6Table)
		if err != nil {
			return fmt.Errorf("read back the tables: %w", err)
		}
		tx := nft.Diff(have, want)
		if tx.Empty() && tx.Err() == nil {
			return nil
		}
		tx.Lock(generation)
		if _, err = b.conn.Apply(ctx, tx); err == nil {
			return nil
		}
		if !errors.Is(err, nft.ErrGeneration) && !errors.Is(err, nft.ErrUnknown) {
			return err
		}
	}
	return err
}

// Apply sends what a delta touches, without reading anything back.
func (b *Backend) Apply(ctx context.Context, d core.Delta) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.enforced == nil {
		return fmt.Errorf("nothing is known to be in force yet, sync first: %w", core.ErrConflict)
	}
	old := b.enforced
	next, sc, err := old.advance(d)
	if err != nil {
		return err
	}
	topo := b.topo
	var tx *nft.Tx
	if d.Options != nil || !old.sameSkeleton(next) {
		next = newEnforced(next.ruleset, d.To)
		topo = topologyOf(b.links, next.ruleset.Options)
		if err := b.switchNetfilterOn(ctx, topo); err != nil {
			return err
		}
		tx = nft.Diff(b.renderer().all(old), renderer{b.settings, topo}.all(next))
	} else {
		before, after := b.renderer().part(old, sc, true), b.renderer().part(next, sc, false)
		next.keepShared(before, after)
		tx = nft.Diff(before, after)
	}
	if err := b.send(ctx, tx); err != nil {
		return blame(err, next.ruleset)
	}
	b.enforced, b.topo = next, topo
	if d.Options != nil {
		b.guarded = nil // what it does at the ports may be another thing now
	}
	b.forget(ctx, old.ruleset, d)
	b.guardPorts(ctx)
	return nil
}

// send applies a transaction that was made from what we believe is in force.
// Objects that are not there, or are already, mean that somebody else has been
// at our tables: ErrConflict, and the engine syncs.
func (b *Backend) send(ctx context.Context, tx *nft.Tx) error {
	_, err := b.conn.Apply(ctx, tx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EEXIST), errors.Is(err, nft.ErrUnknown):
		b.lose(err)
		return fmt.Errorf("the tables are not as we left them: %w: %w", err, core.ErrConflict)
	}
	return err
}

// lose: what is in force is not what we believed, or may not be. Nothing
// follows the links until the next Sync, so Observe must call for one.
func (b *Backend) lose(why error) { b.enforced, b.lost = nil, why }

// Observe reads the tables back and compares them with what is wanted.
func (b *Backend) Observe(ctx context.Context) (core.Observation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, _, err := b.conn.ReadState(ctx, bridgeTable, ip4Table, ip6Table)
	if err != nil {
		return core.Observation{}, fmt.Errorf("read back the tables: %w", err)
	}
	o := core.Observation{Fingerprint: readFingerprint(have)}
	if b.lost != nil {
		o.Drift = []core.Drift{{Object: "tables", Difference: "not as they were left: " + b.lost.Error()}}
	}
	if b.enforced == nil {
		return o, nil
	}
	for _, d := range nft.Compare(b.renderer().all(b.enforced), have) {
		o.Drift = append(o.Drift, core.Drift{Object: d.Object, Difference: d.String(), NIC: b.nicIn(d.Object)})
	}
	now, err := links.List(ctx, links.Options{NetNS: b.fd()})
	if err != nil {
		return core.Observation{}, err
	}
	guard, err := b.observeGuard(ctx, now)
	if err != nil {
		return core.Observation{}, err
	}
	o.Drift = append(o.Drift, guard...)
	for name := range b.needNetfilter(b.topo) {
		if l, ok := now.Bridges[name]; ok && l.NFCall != links.AllNFCall {
			o.Drift = append(o.Drift, core.Drift{Object: "bridge " + name,
				Difference: "netfilter is switched off for it (nf_call_iptables, nf_call_ip6tables or nf_call_arptables is 0)"})
		}
	}
	return o, nil
}

// Teardown removes our tables.
func (b *Backend) Teardown(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, _, err := b.conn.ReadState(ctx, bridgeTable, ip4Table, ip6Table, netdevTable)
	if err != nil {
		return fmt.Errorf("read back the tables: %w", err)
	}
	if _, err := b.conn.Apply(ctx, nft.Diff(have, nft.State{})); err != nil {
		return fmt.Errorf("remove the tables: %w", err)
	}
	b.enforced, b.guarded, b.lost = nil, nil, nil
	return nil
}
