package live

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// strange loads rules of another program into the host. The backend must let
// them be.
func (s *site) strange(t *testing.T, rules string) {
	t.Helper()
	labtest.Check(t, s.host.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = bytes.NewReader([]byte(rules))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}))
}

// Untracked has another program keep b's traffic from connection tracking, ahead
// of a backend's zones and behind them: what no rule allows stays closed, and
// what one allows passes.
func Untracked(t *testing.T, target scenarios.Target) {
	for _, x := range []struct {
		name     string
		priority int
	}{
		{"ahead of zones", -460},
		{"behind zones", -290},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: []core.Rule{allow(core.Ingress, core.ProtocolTCP, 80, 80, nil)}})
			s.strange(t, fmt.Sprintf(`
				table ip stranger { chain c { type filter hook prerouting priority %[1]d; ip saddr 10.0.0.2 notrack; ip daddr 10.0.0.2 notrack; }; }
				table ip6 stranger { chain c { type filter hook prerouting priority %[1]d; ip6 saddr fd00::2 notrack; ip6 daddr fd00::2 notrack; }; }`, x.priority))
			m := lab.NewMatrix(s.a, s.b, s.u)
			for _, f := range core.Families {
				m.Expect("u", "b", lab.TCP(80).Over(f), true)
				m.Expect("u", "b", lab.TCP(81).Over(f), false)
				m.Expect("a", "b", lab.TCP(81).Over(f), false)
				m.Expect("b", "a", lab.TCP(81).Over(f), false)
				m.Expect("u", "a", lab.TCP(80).Over(f), false)
				m.Expect("a", "u", lab.TCP(80).Over(f), true)
			}
			labtest.Verify(t, m)
			s.insync(t)
		})
	}
}

// Masquerade has the host translate what a VM sends to a network behind it, as
// libvirt's NAT networks do. Answers find their way, nobody comes in unasked, and
// a rule that goes cuts such flows as well.
func Masquerade(t *testing.T, target scenarios.Target) {
	open := []core.Rule{{Direction: core.Egress, Protocol: core.AnyProtocol, Peers: &core.Peers{CIDRs: prefixes("0.0.0.0/0", "::/0")}}}
	s := newSite(t, target, core.Group{Name: "ga", Rules: open}, core.Group{Name: "gb"})
	x := s.behind(t)
	s.strange(t, `
		table ip nat { chain c { type nat hook postrouting priority 100; oifname eth9 masquerade; }; }
		table ip6 nat { chain c { type nat hook postrouting priority 100; oifname eth9 masquerade; }; }`)
	var flows []*lab.Flow
	for _, f := range core.Families {
		for _, service := range []lab.Service{lab.TCP(7000), lab.UDP(7001)} {
			flows = append(flows, labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.a, Server: x, Service: service.Over(f)}))(t))
			defer flows[len(flows)-1].Stop()
		}
	}
	m := lab.NewMatrix(s.a, x)
	for _, f := range core.Families {
		m.Expect("a", "x", lab.TCP(80).Over(f), true).Expect("x", "a", lab.TCP(80).Over(f), false)
	}
	labtest.Verify(t, m)
	if _, lacks := scenarios.Lacks(s.backend, core.FeatureFlows); lacks {
		return
	}
	goOn := func(want bool, d time.Duration) {
		t.Helper()
		for i, f := range flows {
			if there, back := f.Progress(t.Context(), d); there != want || back != want {
				t.Errorf("flow %d goes on to the server: %v, to the client: %v, want %v", i, there, back, want)
			}
		}
	}
	s.change(t, func(in *policy.Input) {
		in.Groups[0].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, 80, 80, nil)}
	})
	labtest.Check(t, s.sweep(t.Context()))
	time.Sleep(50 * time.Millisecond) // what had passed before is read by now
	goOn(false, time.Second)
	s.change(t, func(in *policy.Input) { in.Groups[0].Rules = open })
	labtest.Check(t, s.sweep(t.Context()))
	goOn(true, goesOn)
}

// behind adds x to a site, which the host routes a and b to. x knows no way back
// but to the host's own addresses.
func (s *site) behind(t *testing.T) *lab.Station {
	t.Helper()
	x := s.host.AddStation(lab.StationSpec{Name: "x", Ports: []lab.PortSpec{{Device: "eth9", MAC: core.MAC{2, 0, 0, 0, 0, 0x99},
		HostAddresses: prefixes("192.0.2.254/24", "2001:db8::fe/64"), Addresses: prefixes("192.0.2.9/24", "2001:db8::9/64")}}})
	labtest.Check(t, s.host.SetSysctl(map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}))
	for _, vm := range []*lab.Station{s.a, s.b} {
		labtest.Check(t, vm.Do(func() error {
			for _, gateway := range []string{"10.0.0.254", "fd00::fe"} {
				if err := netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr(gateway).AsSlice()}); err != nil {
					return fmt.Errorf("route by %s: %w", gateway, err)
				}
			}
			return nil
		}))
	}
	return x
}
