package nftables

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

func (b *Backend) eachFlow(ctx context.Context, visit func(core.Flow, conntrack.Entry)) error {
	b.mu.Lock()
	zones := map[uint16]string{}
	for name, br := range b.topo.bridges {
		zones[br.zone] = name
	}
	ours := map[netip.Addr]bool{}
	var routers bool // NICs whose flows no address tells
	var byMAC portMACs
	if b.enforced != nil {
		byMAC = macsOfNICs(b.enforced.ruleset)
		for _, n := range b.enforced.ruleset.NICs {
			for _, a := range n.Addresses {
				ours[a] = true
			}
			routers = routers || n.SpoofingAllowed || len(n.Pairs) > 0
		}
	}
	b.mu.Unlock()
	local, err := hostaddrs.List(ctx, hostaddrs.Options{NetNS: b.fd()})
	if err != nil {
		return err
	}
	for e, err := range b.flows.Entries(ctx, conntrack.Filter{}) {
		if err != nil {
			return err
		}
		name, managed := zones[e.Zone.ID]
		if !managed && (e.Zone.ID != 0 || !routers && !ours[e.Orig.Src] && !ours[e.Orig.Dst] && !ours[e.Reply.Src]) {
			continue
		}
		f := e.Flow()
		if e.Status.Has(conntrack.SourceNAT) && !ours[e.Orig.Src] && ours[f.Dst] {
			// The receiver was shown the translated source. A sender that is a NIC
			// was asked about the other one, and there is room for one only.
			f.Src = e.Reply.Dst
			if !f.Protocol.IsICMP() {
				f.SrcPort = e.Reply.DstPort
			}
		}
		f.Bridge = name
		f.From, f.To = byMAC.ends(name, e.Labels)
		f.Revoked = e.Mark&b.settings.marks.revoked() != 0
		f.HostSrc = !managed && local.Contains(e.Orig.Src)
		visit(f, e)
	}
	return nil
}

// RevokeFlows sets or clears the revoked bit of the flows' conntrack marks.
func (b *Backend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (int, error) {
	return b.flows.Revoke(ctx, conntrack.Revocation{Revoke: revoke, Restore: restore, Bit: b.settings.marks.revoked(), Each: b.eachFlow})
}
