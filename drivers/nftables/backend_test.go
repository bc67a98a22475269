package nftables

import (
	"context"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// site is a host with two VMs and an uplink, and a backend opened in it.
type site struct {
	host         *labtest.Host
	a, b, fabric *lab.Station
	backend      *Backend
	options      core.Options
	groups       []core.Group
	vms          []core.VM
}

func mac(t testing.TB, s string) core.MAC { return labtest.Must(core.ParseMAC(s))(t) }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{host: labtest.New(t, lab.Options{Forwarding: true})}
	s.host.AddBridge(lab.BridgeSpec{Name: "br0", MAC: mac(t, "02:00:00:00:00:fe"),
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24"), netip.MustParsePrefix("fd00::fe/64")}})
	station := func(name, device, m, v4, v6 string) lab.StationSpec {
		return lab.StationSpec{Name: name, Ports: []lab.PortSpec{{Bridge: "br0", Device: device, MAC: mac(t, m),
			Addresses: []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)},
			Gateways:  []netip.Addr{netip.MustParseAddr("10.0.0.254")}}}}
	}
	all := s.host.AddStations(
		station("a", "vnet0", "02:00:00:00:00:0a", "10.0.0.1/24", "fd00::1/64"),
		station("b", "vnet1", "02:00:00:00:00:0b", "10.0.0.2/24", "fd00::2/64"),
		station("fabric", "eth1", "02:00:00:00:00:09", "10.0.0.9/24", "fd00::9/64"))
	s.a, s.b, s.fabric = all[0], all[1], all[2]
	labtest.Check(t, s.host.Do(func() error {
		b, err := Driver().Open(t.Context(), nil)
		if err == nil {
			s.backend = b.(*Backend)
		}
		return err
	}))
	t.Cleanup(func() { s.backend.Close() })
	s.options = core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}}
	vm := func(name, device, m, v4, v6, group string) core.VM {
		return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{{MAC: mac(t, m), Groups: []string{group},
			Addresses: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)},
			Binding:   core.Binding{Bridge: "br0", Devices: []string{device}}}}}
	}
	s.vms = []core.VM{vm("a", "vnet0", "02:00:00:00:00:0a", "10.0.0.1", "fd00::1", "web"), vm("b", "vnet1", "02:00:00:00:00:0b", "10.0.0.2", "fd00::2", "db")}
	s.groups = []core.Group{{Name: "web"}, {Name: "db", Rules: []core.Rule{
		{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 80}}, Peers: &core.Peers{Groups: []string{"web"}}},
		{Direction: core.Ingress, Protocol: core.ProtocolUDP, Ports: []core.Span{{First: 5000, Last: 6000}}, Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}},
	}}}
	return s
}

func (s *site) compile(t *testing.T) core.Ruleset {
	t.Helper()
	return labtest.Must(policy.Compile(policy.Input{Options: s.options, Groups: s.groups, VMs: s.vms}))(t)
}

func TestSmoke(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	r := s.compile(t)
	labtest.Check(t, s.backend.Sync(ctx, r))
	o := labtest.Must(s.backend.Observe(ctx))(t)
	if len(o.Drift) > 0 || o.Fingerprint != r.Fingerprint() {
		t.Fatalf("observed %+v", o)
	}
	watch := labtest.Observe(t, s.a.Port(0), s.b.Port(0), s.fabric.Port(0), s.host.Stack())
	ab4 := lab.FlowBetween(s.a.Port(0), s.b.Port(0), core.IPv4)
	ab6 := lab.FlowBetween(s.a.Port(0), s.b.Port(0), core.IPv6)
	ub := lab.FlowBetween(s.fabric.Port(0), s.b.Port(0), core.IPv4)
	bu := lab.FlowBetween(s.b.Port(0), s.fabric.Port(0), core.IPv4)
	for _, c := range []struct {
		p  lab.Probe
		at *lab.Port
		ok bool
	}{
		{lab.Probe{Name: "a>b tcp 80", From: s.a.Port(0), Frame: ab4.SYN(1000, 80)}, s.b.Port(0), true},
		{lab.Probe{Name: "a>b tcp 80 v6", From: s.a.Port(0), Frame: ab6.SYN(1000, 80)}, s.b.Port(0), true},
		{lab.Probe{Name: "a>b tcp 81", From: s.a.Port(0), Frame: ab4.SYN(1001, 81)}, s.b.Port(0), false},
		{lab.Probe{Name: "u>b udp 5500", From: s.fabric.Port(0), Frame: ub.UDP(1001, 5500, "hello")}, s.b.Port(0), true},
		{lab.Probe{Name: "u>b udp 6500", From: s.fabric.Port(0), Frame: ub.UDP(1001, 6500, "hello")}, s.b.Port(0), false},
		{lab.Probe{Name: "b>u udp", From: s.b.Port(0), Frame: bu.UDP(1001, 6500, "hello")}, s.fabric.Port(0), true},
		{lab.Probe{Name: "b>u spoof", From: s.b.Port(0), Frame: ab4.UDP(1001, 6500, "hello")}, s.fabric.Port(0), false},
	} {
		got := labtest.Send(t, watch, c.p)
		if got[0].At(c.at) != c.ok {
			t.Errorf("%s: arrived %v, want %v", c.p.Name, got[0].At(c.at), c.ok)
		}
	}
	counters := labtest.Must(s.backend.Counters(ctx))(t)
	for _, c := range counters {
		t.Logf("%+v", c)
	}
	labtest.Check(t, s.backend.Teardown(ctx))
}
