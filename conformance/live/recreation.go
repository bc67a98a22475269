package live

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
)

// How much of the host changes at once, and how often.
const (
	neighbours = 2000 // NICs, each with a group of its own
	rulesEach  = 10
	upheavals  = 3
)

// Recreation replaces the rules of 2,000 other NICs at once under floods into a
// NIC and out of it, whose own rules stay: a backend that makes its tables anew
// loses packets then, in one transaction too. What is allowed loses no more than
// in a run without changes; of what is not, not one packet gets through.
func Recreation(t *testing.T, target scenarios.Target) {
	s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: []core.Rule{
		allow(core.Ingress, core.ProtocolUDP, alwaysPort, alwaysPort, nil), allow(core.Egress, core.ProtocolUDP, alwaysPort, alwaysPort, nil)}})
	vms, groups := s.input.VMs, s.input.Groups
	populate := func(kind int) error {
		s.input.VMs, s.input.Groups = vms[:len(vms):len(vms)], groups[:len(groups):len(groups)]
		for i := range neighbours {
			vm, g := neighbour(i, kind)
			s.input.VMs, s.input.Groups = append(s.input.VMs, vm), append(s.input.Groups, g)
		}
		s.compile(t)
		return s.backend.Sync(t.Context(), s.ruleset.Ruleset)
	}
	if err := populate(0); err != nil {
		t.Fatal(err)
	}
	never := s.startNever(t, core.IPv4, core.IPv6)
	start := time.Now()
	changed := s.flood(t, core.IPv4, core.IPv6, func() error {
		for i := range upheavals {
			if err := populate(1 + i); err != nil {
				return err
			}
		}
		return nil
	})
	took := time.Since(start)
	control := s.flood(t, core.IPv4, core.IPv6, func() error { time.Sleep(took); return nil })
	s.compare(t, fmt.Sprintf("%d times the rules of %d NICs in %v", upheavals, neighbours, took.Round(time.Millisecond)), changed, control)
	never()
}

// neighbour is a VM with a group of its own. Those of two kinds have no rule in
// common.
func neighbour(i, kind int) (core.VM, core.Group) {
	name := fmt.Sprintf("n%d", i)
	g := core.Group{Name: name}
	for r := range rulesEach {
		port := uint16(1000 + 100*kind + r)
		g.Rules = append(g.Rules, allow(core.Ingress, core.ProtocolTCP, port, port, &core.Peers{CIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 250), 0, 0}), 16)}}))
	}
	return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{{MAC: core.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, Groups: []string{name},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})},
		Binding:   core.Binding{Bridge: "br0", Devices: []string{fmt.Sprintf("vnet%d", 100+i)}}}}}, g
}
