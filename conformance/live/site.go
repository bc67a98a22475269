// Package live shows what must hold for running traffic, with real sockets at
// both ends: changes that do not concern it are not felt, what a rule that went
// no longer allows is cut, and what other programs break is noticed and mended.
package live

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// site is a host with VMs a and b on a bridge and u behind the uplink, all with
// kernels that speak, and a backend.
type site struct {
	host    *labtest.Host
	a, b, u *lab.Station
	backend core.SecurityGroupBackend

	input   policy.Input
	ruleset policy.Versioned
}

func newSite(t *testing.T, target scenarios.Target, groups ...core.Group) *site {
	t.Helper()
	s := &site{host: labtest.New(t, lab.Options{})}
	// Bridges are filtered because the backend says so, not the host.
	labtest.Check(t, s.host.SetSysctl(map[string]string{"net.bridge.bridge-nf-call-iptables": "0", "net.bridge.bridge-nf-call-ip6tables": "0", "net.bridge.bridge-nf-call-arptables": "0"}))
	s.host.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}, Addresses: prefixes("10.0.0.254/24", "fd00::fe/64")})
	station := func(name, device string, last byte, addrs ...string) lab.StationSpec {
		return lab.StationSpec{Name: name, Ports: []lab.PortSpec{{Bridge: "br0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last}, Addresses: prefixes(addrs...)}}}
	}
	all := s.host.AddStations(station("a", "vnet0", 0x0a, "10.0.0.1/24", "fd00::1/64"), station("b", "vnet1", 0x0b, "10.0.0.2/24", "fd00::2/64"),
		station("u", "eth0", 0x09, "10.0.0.9/24", "fd00::9/64"))
	s.a, s.b, s.u = all[0], all[1], all[2]
	s.backend = labtest.Must(target.Open(t.Context(), t, s.host))(t)
	t.Cleanup(func() {
		if err := s.backend.Close(); err != nil {
			t.Error(err)
		}
	})
	vm := func(name, device string, last byte, group string, addrs ...string) core.VM {
		nic := core.NIC{MAC: core.MAC{2, 0, 0, 0, 0, last}, Groups: []string{group}, Binding: core.Binding{Bridge: "br0", Devices: []string{device}}}
		for _, a := range addrs {
			nic.Addresses = append(nic.Addresses, netip.MustParseAddr(a))
		}
		return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{nic}}
	}
	s.input = policy.Input{Options: core.Options{Bridges: []core.Pattern{"br0"}, VMPorts: []core.Pattern{"vnet*"}}, Groups: groups,
		VMs: []core.VM{vm("a", "vnet0", 0x0a, "ga", "10.0.0.1", "fd00::1"), vm("b", "vnet1", 0x0b, "gb", "10.0.0.2", "fd00::2")}}
	s.compile(t)
	labtest.Check(t, s.backend.Sync(t.Context(), s.ruleset.Ruleset))
	return s
}

func prefixes(all ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, s := range all {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func (s *site) compile(t *testing.T) {
	t.Helper()
	s.ruleset = policy.Version(labtest.Must(policy.Compile(s.input))(t))
}

// change tells the backend by difference.
func (s *site) change(t *testing.T, alter func(*policy.Input)) {
	t.Helper()
	before := s.ruleset
	alter(&s.input)
	s.compile(t)
	labtest.Check(t, s.backend.Apply(t.Context(), policy.Diff(before, s.ruleset)))
}

// sweep revokes flows and gives them back, as the engine does after a change:
// until there is none left to. A packet that was under way while the rules
// changed may bring one more.
func (s *site) sweep(ctx context.Context) error {
	b, ok := s.backend.(core.FlowBackend)
	if !ok {
		return fmt.Errorf("the backend has the feature %s, and no flows: %w", core.FeatureFlows, core.ErrUnsupported)
	}
	for range 20 {
		flows, err := b.Flows(ctx)
		if err != nil {
			return err
		}
		revoke, restore := policy.StaleFlows(s.ruleset.Ruleset, flows)
		if len(revoke)+len(restore) == 0 {
			return nil
		}
		if _, err := b.RevokeFlows(ctx, revoke, restore); err != nil {
			return err
		}
	}
	return fmt.Errorf("there is no end to the flows to revoke: %w", core.ErrConflict)
}

func allow(d core.Direction, p core.Protocol, first, last uint16, peers *core.Peers) core.Rule {
	return core.Rule{Direction: d, Protocol: p, Ports: []core.Span{{First: first, Last: last}}, Peers: peers}
}
