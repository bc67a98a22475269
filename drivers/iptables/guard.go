package iptables

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Frames to 01:80:c2:00:00:0X a bridge hands to its host on the port itself,
// past all hooks of ebtables and iptables. Each VM port has a chain of nf_tables
// at its ingress that drops them. A tc filter would do as well, but for that it
// needs the one ingress qdisc of the device, which libvirt makes for <bandwidth>
// and then would not start the VM.

// guardTable is named unlike the nftables driver's, which may stand beside it.
var guardTable = &nftables.Table{Family: nftables.TableFamilyNetdev, Name: "ringwall-ports"}

// guardedPort is a port with its chain. The chain has the device's index in its
// name, so that its being there says for which device of that name it was made:
// some kernels delete it with the device, others leave it without a hook.
type guardedPort struct {
	chain, device string
	counts        tally
}

// guards keeps what was last written. It goes by a lock of the Backend's.
type guards struct {
	ports  map[string]guardedPort // by chain; nil: look first
	failed error                  // why ports are not guarded
}

// portsToGuard are the ports of managed bridges that are VMs' or look like it,
// but for system VMs'. Where all is only counted, other rules count.
func (b *Backend) portsToGuard() map[string]guardedPort {
	ports := map[string]guardedPort{}
	rs := b.enforced.ruleset
	if rs.Options.CountOnly {
		return ports
	}
	known := map[string]bool{}
	add := func(device string, s side, r core.Reason) {
		if p := b.links.Ports[device]; b.enforced.topo.has(p.Bridge) {
			chain := device + "-" + strconv.Itoa(p.Index)
			ports[chain] = guardedPort{chain, device, s.tally(r)}
		}
	}
	for _, v := range b.enforced.objects.views {
		for _, device := range v.policy.Devices {
			if known[device] = true; !v.system() {
				add(device, v.egress(), core.ReasonLinkLocal)
			}
		}
	}
	for _, device := range b.enforced.topo.guarded {
		if !known[device] {
			add(device, side{device: device, direction: core.Egress}, core.ReasonClosedPort)
		}
	}
	return ports
}

// guardPorts makes the chains of ports that came, and removes those of ports
// that went. That is no part of a change: a device that goes away meanwhile would
// void it. Until a chain stands, the table raw drops what is IP.
func (b *Backend) guardPorts(ctx context.Context) {
	want := b.portsToGuard()
	if b.guards.ports != nil && reflect.DeepEqual(want, b.guards.ports) {
		return
	}
	changed, err := b.replaceGuards(want)
	if b.guards.ports, b.guards.failed = want, err; err != nil {
		b.guards.ports = nil
		b.log.Warn("guarding the ports against frames to 01:80:c2:00:00:0X failed; trying again at the next change", "error", err)
	}
	if changed {
		b.written = b.generationNow(ctx)
	}
}

func (b *Backend) replaceGuards(want map[string]guardedPort) (changed bool, err error) {
	c, err := b.guardConn()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	have, err := standingGuards(c)
	if err != nil {
		return false, err
	}
	for chain, g := range have {
		if _, wanted := want[chain]; wanted && g.sound {
			continue
		}
		if p, known := b.guards.ports[chain]; known {
			b.counted.before[p.counts] = b.counted.before[p.counts].Plus(g.counted)
		}
		c.DelChain(&nftables.Chain{Table: guardTable, Name: chain})
		changed = true
	}
	if len(want) > 0 {
		c.AddTable(guardTable)
	}
	for chain, p := range want {
		if !have[chain].sound {
			addGuard(c, p)
			changed = true
		}
	}
	if !changed {
		return false, nil
	}
	if err := c.Flush(); err != nil {
		return true, fmt.Errorf("netdev table %s: %w", guardTable.Name, err)
	}
	return true, nil
}

// guardConn is to be closed by CloseLasting.
func (b *Backend) guardConn() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithNetNSFd(b.fd()), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("speak to nf_tables: %w", err)
	}
	return c, nil
}

func addGuard(c *nftables.Conn, p guardedPort) {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Table: guardTable, Name: p.chain, Type: nftables.ChainTypeFilter, Device: p.device,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	c.AddRule(&nftables.Rule{Table: guardTable, Chain: chain, Exprs: guardRule()})
}

func guardRule() []expr.Any {
	return []expr.Any{
		&expr.Payload{OperationType: expr.PayloadLoad, DestRegister: 1, Base: expr.PayloadBaseLLHeader, Len: 6},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 6, Mask: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, Xor: make([]byte, 6)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x01, 0x80, 0xc2, 0, 0, 0}},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// standingGuard is a chain that was read back.
type standingGuard struct {
	sound   bool // its rule is the one that was written
	counted xtables.Counted
}

func standingGuards(c *nftables.Conn) (map[string]standingGuard, error) {
	chains, err := c.ListChainsOfTableFamily(guardTable.Family)
	if err != nil {
		return nil, fmt.Errorf("list the chains of netdev: %w", err)
	}
	out := map[string]standingGuard{}
	for _, chain := range chains {
		if chain.Table.Name != guardTable.Name {
			continue
		}
		rules, err := c.GetRules(guardTable, chain)
		if errors.Is(err, unix.ENOENT) {
			continue // its device has gone
		}
		if err != nil {
			return nil, fmt.Errorf("netdev chain %s: %w", chain.Name, err)
		}
		out[chain.Name] = readGuard(rules)
	}
	return out, nil
}

func readGuard(rules []*nftables.Rule) (g standingGuard) {
	if len(rules) != 1 {
		return g
	}
	for _, e := range rules[0].Exprs {
		if n, ok := e.(*expr.Counter); ok {
			g.counted = xtables.Counted{Packets: n.Packets, Bytes: n.Bytes}
			*n = expr.Counter{}
		}
	}
	g.sound = reflect.DeepEqual(rules[0].Exprs, guardRule())
	return g
}

// countGuards adds what the chains have counted.
func (b *Backend) countGuards(sums map[tally]xtables.Counted) error {
	if len(b.guards.ports) == 0 {
		return nil
	}
	c, err := b.guardConn()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	have, err := standingGuards(c)
	if err != nil {
		return err
	}
	for chain, p := range b.guards.ports {
		sums[p.counts] = sums[p.counts].Plus(have[chain].counted)
	}
	return nil
}

// guardDrift compares what stands with what was written. Devices that came or
// went since are not missed: the watch of the links is about to follow them.
func (b *Backend) guardDrift(now links.Snapshot) ([]core.Drift, error) {
	if len(b.guards.ports) == 0 {
		return nil, nil
	}
	c, err := b.guardConn()
	if err != nil {
		return nil, err
	}
	defer c.CloseLasting()
	have, err := standingGuards(c)
	if err != nil {
		return nil, err
	}
	var out []core.Drift
	for chain, p := range b.guards.ports {
		if l, ok := now.Ports[p.device]; ok && chain == p.device+"-"+strconv.Itoa(l.Index) && !have[chain].sound {
			out = append(out, core.Drift{Object: "netdev " + guardTable.Name + " chain " + chain, Difference: "missing, or edited", NIC: p.counts.nic})
		}
	}
	return out, nil
}

// removeGuards removes the table.
func (b *Backend) removeGuards() error {
	b.guards = guards{}
	c, err := b.guardConn()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	have, err := c.ListTablesOfFamily(guardTable.Family)
	if err != nil {
		return fmt.Errorf("list the tables of netdev: %w", err)
	}
	for _, t := range have {
		if t.Name == guardTable.Name {
			c.DelTable(guardTable)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove the netdev table %s: %w", guardTable.Name, err)
	}
	return nil
}
