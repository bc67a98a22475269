package nftables

import (
	"context"
	"errors"
	"os"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Preflight looks at the host by trying: it builds the very tables that Sync
// would, in a transaction that never comes into force.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) {
	return []core.Check{b.checkKernel(ctx), checkBridgeNetfilter()}, nil
}

func (b *Backend) checkKernel(ctx context.Context) core.Check {
	c := core.Check{Name: "nf-tables", Summary: "the kernel takes every rule and set that the driver uses"}
	s := skeleton{options: core.Options{Bridges: []core.Pattern{"probe*"}, VMPorts: []core.Pattern{"probe*"}, AllowDNS: true}, marks: b.settings.marks}
	for _, t := range []*nft.Table{s.bridge(), s.ip(fam4), s.ip(fam6)} {
		if err := b.conn.Probe(ctx, t); err != nil {
			c.Status, c.Evidence = core.StatusError, err.Error()
			c.Summary = "the kernel refuses a part of the ruleset in family " + t.Family.String()
			c.Fix = "use the iptables driver (backend: {driver: iptables}), or a kernel from 5.7 on with nf_tables' bridge family"
			return c
		}
	}
	return c
}

func checkBridgeNetfilter() core.Check {
	const path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	c := core.Check{Name: "br-netfilter", Summary: "bridged packets can be handed to conntrack"}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		c.Status, c.Evidence, c.Fix = core.StatusError, path+": no such file", "modprobe br_netfilter && echo br_netfilter >/etc/modules-load.d/ringwall.conf"
		c.Summary = "br_netfilter is not loaded: no bridged packet would reach conntrack, and every managed port would stay closed"
	}
	return c
}
