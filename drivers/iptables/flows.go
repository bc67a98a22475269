package iptables

import (
	"context"
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/conntrack"
	"github.com/ringwall/ringwall/drivers/internal/kernel/hostaddrs"
)

// Flows lists the connections of managed bridges' zones, and those of the
// host's zone that have a NIC's address at an end.
func (b *Backend) Flows(ctx context.Context) ([]core.Flow, error) {
	var out []core.Flow
	err := b.eachFlow(ctx, func(f core.Flow, _ conntrack.Entry) { out = append(out, f) })
	return out, err
}

// ends is what tells the flows that concern this point.
type ends struct {
	zones map[uint16]string // bridges
	nics  map[netip.Addr]bool
	any   bool // some NIC's flows are told by no address
	byMAC owners
}

func (b *Backend) ends() ends {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := ends{zones: map[uint16]string{}, nics: map[netip.Addr]bool{}}
	if b.enforced == nil {
		return e
	}
	for _, br := range b.enforced.topo.bridges {
		e.zones[br.zone] = br.name
	}
	for _, n := range b.enforced.ruleset.NICs {
		for _, a := range n.Addresses {
			e.nics[a] = true
		}
	}
	if e.any = ambiguous(b.enforced.ruleset); e.any {
		e.byMAC = b.settings.marks.owners(b.enforced.ruleset)
	}
	return e
}

func (b *Backend) eachFlow(ctx context.Context, visit func(core.Flow, conntrack.Entry)) error {
	ends := b.ends()
	local, err := hostaddrs.List(ctx, hostaddrs.Options{NetNS: b.fd()})
	if err != nil {
		return err
	}
	for entry, err := range b.flows.Entries(ctx, conntrack.Filter{}) {
		if err != nil {
			return err
		}
		bridge, managed := ends.zones[entry.Zone.ID]
		ours := ends.any || ends.nics[entry.Orig.Src] || ends.nics[entry.Orig.Dst] || ends.nics[entry.Reply.Src]
		if !managed && (entry.Zone.ID != 0 || !ours) {
			continue
		}
		f := entry.Flow()
		f.Bridge = bridge
		if ends.any {
			f.From, f.To = ends.byMAC.ends(bridge, entry.Mark)
		}
		f.Revoked = entry.Mark&b.settings.marks.revoked != 0
		f.HostSrc = !managed && local.Contains(f.Src)
		visit(f, entry)
	}
	return nil
}

// RevokeFlows sets or clears the revoked bit of the flows' conntrack marks. The
// bit and the zones are those of the nftables driver by default, so that what is
// revoked stays so when one driver follows the other.
func (b *Backend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (int, error) {
	return b.flows.Revoke(ctx, conntrack.Revocation{Revoke: revoke, Restore: restore, Bit: b.settings.marks.revoked, Each: b.eachFlow})
}
