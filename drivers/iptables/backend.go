package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/conntrack"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Backend enforces on one host, in one network namespace.
type Backend struct {
	tools    xtables.Tools
	sets     *ipset.Conn
	netns    *os.File // of the thread that opened it
	flows    *conntrack.Table
	settings settings
	log      *slog.Logger

	stop     context.CancelFunc // ends the watch of the links
	watching sync.WaitGroup

	mu       sync.Mutex // of everything below, and of every change
	links    links.Snapshot
	enforced *enforced // nil until the first Sync, and when lost says why
	lost     error     // why what is in force is not known any more
	counted  counted
	guards   guards
	seen     tables // as last read
	written  uint32 // nftables' generation after our last change
	events   map[chan core.Event]bool
}

// enforced is a ruleset in force, with the objects that were made of it.
type enforced struct {
	ruleset     core.Ruleset
	fingerprint core.Fingerprint
	topo        topology
	objects     objects
}

var (
	_ core.SecurityGroupBackend = (*Backend)(nil)
	_ core.FlowBackend          = (*Backend)(nil)
	_ core.EventBackend         = (*Backend)(nil)
)

// lockSeconds is how long the programs wait for the xtables lock.
const lockSeconds = 20

func newBackend(ctx context.Context, s settings, log *slog.Logger) (_ *Backend, err error) {
	b := &Backend{settings: s, log: log, counted: newCounted(), events: map[chan core.Event]bool{}}
	if b.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	defer func() {
		if err != nil {
			b.netns.Close()
		}
	}()
	if b.tools, err = chooseTools(ctx, xtables.InNamespace{FD: b.fd()}, s.variant); err != nil {
		return nil, err
	}
	if b.sets, err = ipset.Open(b.fd()); err != nil {
		return nil, err
	}
	if b.flows, err = conntrack.Open(conntrack.Options{NetNS: b.fd()}); err != nil {
		return nil, err
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = cancel
	changes, err := links.Watch(watch, links.Options{NetNS: b.fd()})
	if err != nil {
		cancel()
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
	return errors.Join(b.sets.Close(), b.flows.Close(), b.netns.Close())
}

// render makes the objects of a ruleset on the links as they are.
func (b *Backend) render(r core.Ruleset, f core.Fingerprint) (*enforced, error) {
	e := &enforced{ruleset: r, fingerprint: f, topo: topologyOf(b.links, r.Options)}
	var err error
	e.objects, err = renderer{b.settings, e.topo}.all(r)
	return e, err
}

// Sync reads what is there, and writes the difference.
func (b *Backend) Sync(ctx context.Context, r core.Ruleset) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next, err := b.render(r, r.Fingerprint())
	if err != nil {
		return err
	}
	b.guards.ports = nil // look
	return b.sync(ctx, next)
}

func (b *Backend) sync(ctx context.Context, next *enforced) error {
	if err := b.switchNetfilterOn(ctx, next.topo); err != nil {
		return err
	}
	have, err := b.read(ctx, next.objects)
	if err != nil {
		return err
	}
	if err := b.refuseOtherVariant(ctx); err != nil {
		return err
	}
	c := change{have: have.objects, read: have.read, want: next, note: have.note}
	if b.enforced != nil {
		c.narrow = renderer{b.settings, next.topo}.narrowed(next.ruleset.Options, b.enforced.objects.views, next.objects.views)
	} else {
		same := unchanged(have.objects.rules, next.objects)
		c.narrow = renderer{b.settings, next.topo}.narrowed(next.ruleset.Options, same, next.objects.views)
	}
	return b.write(ctx, c)
}

// Apply writes the difference to what was last written, without reading.
func (b *Backend) Apply(ctx context.Context, d core.Delta) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.enforced == nil {
		return fmt.Errorf("nothing is known to be in force yet, sync first: %w", core.ErrConflict)
	}
	ruleset, err := d.Apply(b.enforced.ruleset, b.enforced.fingerprint)
	if err != nil {
		return err
	}
	next, err := b.render(ruleset, d.To)
	if err != nil {
		return err
	}
	return b.advance(ctx, next)
}

// advance goes from what is believed to be in force to next.
func (b *Backend) advance(ctx context.Context, next *enforced) error {
	if err := b.switchNetfilterOn(ctx, next.topo); err != nil {
		return err
	}
	return b.write(ctx, change{have: b.enforced.objects, want: next, note: b.enforced.fingerprint.String(),
		narrow: renderer{b.settings, next.topo}.narrowed(next.ruleset.Options, b.enforced.objects.views, next.objects.views)})
}

// lose: what is in force is not what we believed, or may not be. Nothing follows
// the links until the next Sync, so Observe must call for one.
func (b *Backend) lose(why error) { b.enforced, b.lost = nil, why }

// Teardown removes all that is ours.
func (b *Backend) Teardown(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	have, err := b.read(ctx, objects{})
	if err != nil {
		return err
	}
	for _, f := range xtables.Families {
		if err := b.tools.Apply(ctx, xtables.Diff(f, have.objects.rules, nil, have.read)); err != nil {
			return fmt.Errorf("remove the rules: %w", err)
		}
	}
	if err := b.sets.Destroy(ctx, have.owned()); err != nil {
		return fmt.Errorf("remove the sets: %w", err)
	}
	if err := b.removeGuards(); err != nil {
		return err
	}
	b.enforced, b.lost = nil, nil
	return nil
}
