package lab_test

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// site is the usual playground: a host with two bridges and no firewall, VMs a
// and b and an uplink on the first, c on the second, and a routed neighbour x.
type site struct {
	*labtest.Host
	a, b, up, c, x *lab.Station
}

func newSite(t testing.TB, mute bool) site {
	t.Helper()
	h := labtest.New(t, lab.Options{Forwarding: true})
	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: mac(0xfe), Addresses: prefixes("10.0.0.254/24", "fd00::fe/64")})
	h.AddBridge(lab.BridgeSpec{Name: "br1", MAC: mac(0xfd), Addresses: prefixes("10.1.0.254/24", "fd01::fe/64")})
	port := func(bridge, device string, last byte, addrs ...string) lab.PortSpec {
		spec := lab.PortSpec{Bridge: bridge, Device: device, MAC: mac(last), Addresses: prefixes(addrs...),
			Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("fd00::fe")}}
		if bridge == "br1" {
			spec.Gateways = []netip.Addr{netip.MustParseAddr("10.1.0.254"), netip.MustParseAddr("fd01::fe")}
		}
		return spec
	}
	st := h.AddStations(
		lab.StationSpec{Name: "a", Mute: mute, Ports: []lab.PortSpec{port("br0", "vneta", 0xa, "10.0.0.1/24", "fd00::1/64")}},
		lab.StationSpec{Name: "b", Mute: mute, Ports: []lab.PortSpec{port("br0", "vnetb", 0xb, "10.0.0.2/24", "fd00::2/64")}},
		lab.StationSpec{Name: "fabric", Mute: mute, Ports: []lab.PortSpec{port("br0", "eth1", 0x9, "10.0.0.9/24", "fd00::9/64")}},
		lab.StationSpec{Name: "c", Mute: mute, Ports: []lab.PortSpec{port("br1", "vnetc", 0xc, "10.1.0.3/24", "fd01::3/64")}},
		lab.StationSpec{Name: "x", Ports: []lab.PortSpec{{Device: "eth9", MAC: mac(0x99), HostAddresses: prefixes("192.0.2.254/24", "fd02::fe/64"),
			Addresses: prefixes("192.0.2.9/24", "fd02::9/64"),
			Gateways:  []netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("fd02::fe")}}}},
	)
	return site{Host: h, a: st[0], b: st[1], up: st[2], c: st[3], x: st[4]}
}

func (s site) ports() []*lab.Port {
	return []*lab.Port{s.a.Port(0), s.b.Port(0), s.up.Port(0), s.c.Port(0), s.x.Port(0)}
}

func mac(last byte) core.MAC { return core.MAC{2, 0, 0, 0, 0, last} }

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
