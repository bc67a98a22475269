package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// How foreign changes are noticed: the nft variant's are announced by the kernel,
// generation by generation; the legacy tables have to be looked at.
const (
	legacyInterval = 30 * time.Second
	// quiet is how long nothing is announced before the rules are read: other
	// programs make many small changes in a row.
	quiet = 100 * time.Millisecond
)

const (
	getGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
)

// generation is the number of the last change of nftables, and who made it.
type generation struct {
	id   uint32
	name string
	pid  uint32
}

// missed stands for changes that were announced faster than they were read: look.
const missed = ^uint32(0)

func parseGeneration(m nl.Message) (generation, bool) {
	if m.Type != newGeneration {
		return generation{}, false
	}
	var g generation
	for t, v := range nl.Attrs(m.Body(4)) {
		switch t {
		case unix.NFTA_GEN_ID:
			g.id = v.BigUint32()
		case unix.NFTA_GEN_PROC_PID:
			g.pid = v.BigUint32()
		case unix.NFTA_GEN_PROC_NAME:
			g.name = v.String()
		}
	}
	return g, true
}

// generationNow asks for the last change. Without nftables there is none.
func (b *Backend) generationNow(ctx context.Context) uint32 {
	ns, err := nl.OpenNamespace(b.fd())
	if err != nil {
		return 0
	}
	defer ns.Close()
	c, err := ns.Dial(nl.Config{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return 0
	}
	defer c.Close()
	var last generation
	request := nl.Request{Type: getGeneration, Body: nl.Buffer{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}}
	err = c.Get(ctx, request, func(m nl.Message) {
		if g, ok := parseGeneration(m); ok {
			last = g
		}
	})
	if err != nil {
		return 0
	}
	return last.id
}

// Events reports foreign changes of our rules and of the bridges' switches.
func (b *Backend) Events(ctx context.Context) (<-chan core.Event, error) {
	var changes <-chan generation
	if b.tools.IP == xtables.NFT {
		var err error
		if changes, err = b.announcements(ctx); err != nil {
			return nil, err
		}
	}
	events := make(chan core.Event, 64)
	b.mu.Lock()
	b.events[events] = true
	b.mu.Unlock()
	b.watching.Go(func() {
		defer func() {
			b.mu.Lock()
			delete(b.events, events)
			b.mu.Unlock()
			close(events)
		}()
		b.notice(ctx, changes)
	})
	return events, nil
}

// notice reads the rules when somebody has changed some.
func (b *Backend) notice(ctx context.Context, changes <-chan generation) {
	var last generation
	wait := time.NewTimer(legacyInterval)
	for {
		select {
		case g, open := <-changes:
			if !open {
				return
			}
			last = g
			wait.Reset(quiet)
		case <-wait.C:
			b.look(ctx, last)
			last = generation{}
			wait.Reset(legacyInterval)
		case <-ctx.Done():
			return
		}
	}
}

// look tells of drift, unless the last change was ours.
func (b *Backend) look(ctx context.Context, g generation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.enforced == nil || b.tools.IP == xtables.NFT && (g.id == 0 || g.id != missed && b.generationNow(ctx) == b.written) {
		return
	}
	o, err := b.observe(ctx)
	if err != nil || len(o.Drift) == 0 {
		return // an error will come up again where somebody is told
	}
	by := ""
	if g.name != "" {
		by = fmt.Sprintf("%s[%d]", g.name, g.pid)
	}
	b.tell(core.Event{Kind: core.EventDrift, Object: o.Drift[0].Object, By: by})
}

// announcements are the changes of nftables, until ctx ends.
func (b *Backend) announcements(ctx context.Context) (<-chan generation, error) {
	ns, err := nl.OpenNamespace(b.fd())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	c, err := ns.Dial(nl.Config{Protocol: unix.NETLINK_NETFILTER, Groups: []int{unix.NFNLGRP_NFTABLES}, ReadBuffer: 8 << 20})
	if err != nil {
		return nil, fmt.Errorf("listen to nftables: %w", err)
	}
	out := make(chan generation)
	b.watching.Go(func() {
		defer close(out)
		defer c.Close()
		for ctx.Err() == nil {
			for m, err := range c.Receive(ctx) {
				var g generation
				ok := false
				switch {
				case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EMSGSIZE):
					g, ok = generation{id: missed}, true
				case err != nil:
					return
				default:
					g, ok = parseGeneration(m)
				}
				if !ok {
					continue
				}
				select {
				case out <- g:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	return out, nil
}
