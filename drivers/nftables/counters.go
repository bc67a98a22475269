package nftables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Counters gives what was denied to and from each NIC, by reason, and what
// passed in all. The latter comes from the devices' own counters, so that the
// path of packets that pass pays nothing.
func (b *Backend) Counters(ctx context.Context) ([]core.Counter, error) {
	b.mu.Lock()
	owner := map[string]core.NICKey{}
	if b.enforced != nil {
		for k, n := range b.enforced.ruleset.NICs {
			for _, d := range n.Devices {
				owner[d] = k
			}
		}
	}
	b.mu.Unlock()

	var out []core.Counter
	denied := map[string]nft.Counter{} // sent by the device and dropped
	for _, t := range counterSets() {
		elems, err := b.conn.ReadElements(ctx, t.table, t.set)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		direction, reason, _ := parseCounterSet(t.set.Name)
		for key, e := range elems {
			device := strings.TrimRight(key.From, "\x00")
			out = append(out, core.Counter{NIC: owner[device], Device: device, Direction: direction, Reason: reason,
				Packets: e.Counter.Packets, Bytes: e.Counter.Bytes})
			if direction == core.Egress && reason != core.ReasonSystem {
				sum := denied[device]
				sum.Packets += e.Counter.Packets
				sum.Bytes += e.Counter.Bytes
				denied[device] = sum
			}
		}
	}
	stats, err := links.ReadStats(ctx, links.Options{NetNS: b.fd()})
	if err != nil {
		return nil, err
	}
	for device, nic := range owner {
		s, ok := stats[device]
		if !ok {
			continue
		}
		d := denied[device]
		out = append(out,
			core.Counter{NIC: nic, Device: device, Direction: core.Egress, Reason: core.ReasonPassed,
				Packets: s.RxPackets - min(d.Packets, s.RxPackets), Bytes: s.RxBytes - min(d.Bytes, s.RxBytes)},
			core.Counter{NIC: nic, Device: device, Direction: core.Ingress, Reason: core.ReasonPassed, Packets: s.TxPackets, Bytes: s.TxBytes})
	}
	slices.SortFunc(out, func(x, y core.Counter) int {
		return strings.Compare(x.Device+x.Direction.String()+string(x.Reason), y.Device+y.Direction.String()+string(y.Reason))
	})
	return out, nil
}

type counterRef struct {
	table nft.TableID
	set   *nft.Set
}

func counterSets() []counterRef {
	var out []counterRef
	for _, d := range []core.Direction{core.Egress, core.Ingress} {
		for _, r := range countedReasons[d] {
			out = append(out, counterRef{bridgeTable, newCounterSet(counterSet(d, r))})
		}
	}
	return append(out, counterRef{netdevTable, newCounterSet(counterSet(core.Egress, core.ReasonLinkLocal))})
}

// forget drops the counters of devices that a delta took away, so that a later
// owner of the name starts at nothing.
func (b *Backend) forget(ctx context.Context, old core.Ruleset, d core.Delta) {
	var gone []nft.Key
	set := newCounterSet("any")
	for _, k := range d.Removed {
		for _, device := range old.NICs[k].Devices {
			gone = append(gone, set.MakeKey(nft.IfName(device)))
		}
	}
	if len(gone) == 0 {
		return
	}
	for _, c := range counterSets() {
		if err := b.conn.DeleteElements(ctx, c.table, c.set, gone); err != nil && !errors.Is(err, syscall.ENOENT) {
			b.log.Warn("counters of a NIC that went could not be removed", "set", c.set.Name, "error", err)
		}
	}
}
