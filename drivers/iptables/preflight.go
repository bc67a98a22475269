package iptables

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
)

// Preflight looks at the programs, the kernel and the bridges, and changes
// nothing. Before the first Sync the options are not known, and every bridge
// counts as one that may be managed.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) {
	now, err := links.List(ctx, links.Options{NetNS: b.fd()})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	managed := func(string) bool { return true }
	if b.enforced != nil {
		managed = b.enforced.ruleset.Options.ManagesBridge
	}
	return []core.Check{b.checkVariant(ctx), b.checkSets(ctx), checkNetfilter(), checkSpanningTree(now, managed, b.guards.failed)}, nil
}

func (b *Backend) checkVariant(ctx context.Context) core.Check {
	c := core.Check{Name: "iptables", Summary: "iptables-" + string(b.tools.IP) + " is used"}
	if err := b.refuseOtherVariant(ctx); err != nil {
		c.Status, c.Summary, c.Evidence = core.StatusError, "both variants of iptables hold rules of ours", err.Error()
		c.Fix = "set backend.settings.variant to the variant that holds them, or flush and delete the rw- chains of the other one"
	}
	return c
}

func (b *Backend) checkSets(ctx context.Context) core.Check {
	c := core.Check{Name: "ipset", Summary: "the kernel has IP sets"}
	if _, err := b.sets.List(ctx); err != nil {
		c.Status, c.Summary, c.Evidence = core.StatusError, "the kernel has no IP sets", err.Error()
		c.Fix = "modprobe ip_set ip_set_hash_ip ip_set_hash_net xt_set"
	}
	return c
}

const netfilterSwitches = "/proc/sys/net/bridge"

func checkNetfilter() core.Check {
	c := core.Check{Name: "br-netfilter", Summary: "br_netfilter is there"}
	if _, err := os.Stat(netfilterSwitches); err != nil {
		c.Status, c.Summary, c.Evidence = core.StatusError, "br_netfilter is not loaded: managed bridges would be closed", err.Error()
		c.Fix = "modprobe br_netfilter; echo br_netfilter >/etc/modules-load.d/br_netfilter.conf"
	}
	return c
}

// checkSpanningTree: frames to 01:80:c2:00:00:0X meet no hook that ebtables has.
// Where the ports could not be guarded against them, a VM can speak STP with a
// bridge that does.
func checkSpanningTree(s links.Snapshot, managed func(string) bool, unguarded error) core.Check {
	c := core.Check{Name: "spanning-tree", Summary: "no managed bridge speaks STP"}
	var speaking []string
	for name, br := range s.Bridges {
		if br.STP && managed(name) {
			speaking = append(speaking, name)
		}
	}
	switch {
	case len(speaking) == 0:
		return c
	case unguarded == nil:
		c.Summary = "bridges speak STP, and no VM's port that is under management lets it in"
		return c
	}
	slices.Sort(speaking)
	c.Status, c.Summary = core.StatusWarning, "a VM can speak STP with "+strings.Join(speaking, ", ")+": its port is not guarded"
	c.Evidence = unguarded.Error()
	c.Fix = "use a kernel with CONFIG_NF_TABLES_NETDEV; or ip link set " + speaking[0] + " type bridge stp_state 0, or bridge link set dev <each VM port> guard on"
	return c
}
