package plugins_test

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
	"github.com/ringwall/ringwall/core/policy"
)

// A plugin that is killed, or stands still, in the middle of a flood costs no
// packet and opens nothing; what comes after it finds what is enforced.
func TestTrafficSurvivesThePlugin(t *testing.T) {
	program := plugintest.Build(t, "./ringwall-plugin-nftables")
	host := labtest.New(t, lab.Options{})
	host.AddBridge(lab.BridgeSpec{Name: "br0"})
	spec := func(name, device string, last byte) lab.StationSpec {
		return lab.StationSpec{Name: name, Ports: []lab.PortSpec{{Bridge: "br0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last},
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 24)}}}}
	}
	stations := host.AddStations(spec("a", "vnet0", 1), spec("b", "vnet1", 2))
	a, b := stations[0].Port(0), stations[1].Port(0)
	vm := func(name, device string, last byte) core.VM {
		return core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, last}, Groups: []string{"web"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last})}, Binding: core.Binding{Bridge: "br0", Devices: []string{device}}}}}
	}
	ruleset := labtest.Must(policy.Compile(policy.Input{
		Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}},
		Groups:  []core.Group{{Name: "web", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolUDP, Ports: []core.Span{{First: 5000, Last: 5000}}}}}},
		VMs:     []core.VM{vm("a", "vnet0", 1), vm("b", "vnet1", 2)},
	}))(t)

	var p *plugin.Plugin
	var backend core.SecurityGroupBackend
	labtest.Check(t, host.Do(func() (err error) {
		if p, err = plugintest.Start(t.Context(), t, program); err != nil {
			return err
		}
		d, err := p.Backend(t.Context())
		if err != nil {
			return err
		}
		backend, err = d.Open(t.Context(), nil)
		return err
	}))
	labtest.Check(t, backend.Sync(t.Context(), ruleset))

	flow := lab.FlowBetween(a, b, core.IPv4)
	flood := labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: stations[0], To: stations[1], Service: lab.UDP(5000), Rate: 500}))(t)
	watch := labtest.Observe(t, a, b)
	for round, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		stuck := p.State().PID
		labtest.Check(t, syscall.Kill(stuck, signal))
		if signal == syscall.SIGSTOP {
			time.Sleep(200 * time.Millisecond)
			if labtest.Send(t, watch, lab.Probe{Name: "denied", From: a, Frame: flow.UDP(4001, 5001, "x")})[0].At(b) {
				t.Error("a denied packet passed while the plugin stood still")
			}
			labtest.Check(t, syscall.Kill(stuck, syscall.SIGKILL))
		}
		for deadline := time.Now().Add(time.Minute); p.State().Restarts <= round; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not restarted: %+v", p.State())
			}
		}
		o, err := backend.Observe(t.Context())
		if err != nil || len(o.Drift) > 0 || o.Fingerprint != ruleset.Fingerprint() {
			t.Errorf("after the restart: %+v, %v", o, err)
		}
		if err := backend.Apply(t.Context(), core.Delta{From: o.Fingerprint, To: o.Fingerprint}); !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), "ringwall-plugin-nftables") {
			t.Errorf("after the restart: %v", err)
		}
		labtest.Check(t, backend.Sync(t.Context(), ruleset))
	}
	if labtest.Send(t, watch, lab.Probe{Name: "denied", From: a, Frame: flow.UDP(4001, 5001, "x")})[0].At(b) {
		t.Error("a denied packet passed")
	}
	if s := flood.Stop(); s.LostTotal() > 0 {
		t.Errorf("lost packets: %s", s)
	}
}
