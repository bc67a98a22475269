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
		if e.Status.Has(conntrack.DestNAT) {
			// Both ends were asked about the packet as translated.
			f.Dst = e.Reply.Src
			if !f.Protocol.IsICMP() {
				f.DstPort = e.Reply.SrcPort
			}
		}
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

// RevokeFlows sets or clears the revoked bit of the flows' conntrack marks. A
// deleted entry would not end a flow: the other end's next packet makes a new
// one.
func (b *Backend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (int, error) {
	want := make(map[core.Flow]bool, len(revoke)+len(restore))
	key := func(f core.Flow) core.Flow {
		f.Revoked, f.From, f.To = false, core.NICKey{}, core.NICKey{}
		return f
	}
	for _, f := range revoke {
		want[key(f)] = true
	}
	for _, f := range restore {
		want[key(f)] = false
	}
	var mark, clear []conntrack.Entry
	err := b.eachFlow(ctx, func(f core.Flow, e conntrack.Entry) {
		if revoked, ok := want[key(f)]; ok && revoked != f.Revoked {
			if revoked {
				mark = append(mark, e)
			} else {
				clear = append(clear, e)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	bit := b.settings.marks.revoked()
	n, err := b.flows.SetMark(ctx, mark, conntrack.Mark{Value: bit, Mask: bit})
	if err != nil {
		return n, err
	}
	// Given back, a flow goes on where it was, whichever end speaks next. Without
	// its entry, the answering end's next packet would be asked as if it opened
	// a flow the other way.
	m, err := b.flows.SetMark(ctx, clear, conntrack.Mark{Mask: bit})
	return n + m, err
}
