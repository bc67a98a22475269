package dom0_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
)

const groups = `groups:
- name: web
  rules:
  - {direction: ingress, protocol: tcp, ports: [80], from: {cidrs: [0.0.0.0/0]}}
`

// ringwall runs the command.
func (d *dom0) ringwall(stdin string, args ...string) {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(d.bin, "ringwall"), args...)
	cmd.Env = append(slices.Clone(d.agent.Env), "HOME=/")
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("ringwall %q: %v\n%s", args, err, out)
	}
}

func web(n int) map[string]string {
	return map[string]string{"ringwall-groups": "web", "ringwall-addresses": addr(n).String()}
}

// The local way: bindings and groups from other_config, policy from a manifest,
// a VM that reboots, hot-plugs and migrates.
func TestLocalWay(t *testing.T) {
	forEach(t, func(t *testing.T, driver string) {
		d := build(t, options{driver: driver})
		d.ringwall(groups, "apply", "-f", "-")
		out := d.outside.Port(0)
		g := d.start(d.vm("web", 3, 1, web(3)), "web", 3)
		open := func(card int, pass bool) probe {
			return probe{"web", out, g.vif[card], flow(out, g.vif[card]).SYN(1, 80), pass}
		}
		passes := func(card int) func() bool { return func() bool { return d.seen(open(card, true))[0] } }
		d.wait(5*time.Second, "the VM's policy", passes(0))
		d.send(probe{"ssh", out, g.vif[0], flow(out, g.vif[0]).SYN(1, 22), false})

		g.Plug(sim.VIFSpec{Network: d.network, MAC: mac(4).String(), OtherConfig: web(4)})
		g.hotplug(1)
		d.wait(5*time.Second, "the plugged card's policy", passes(1))

		g.leave()
		g.Reboot()
		g.plug(2)
		t.Log("policy on the new domain after", d.wait(5*time.Second, "the new domain's policy", passes(0)))
		g.leave()
		g.Stop()
		x := d.start(d.vm("stranger", 9, 1, nil), "stranger", 9)
		d.send(probe{"a VM of which nobody has said anything", out, x.vif[0], flow(out, x.vif[0]).SYN(1, 80), false},
			probe{"out", x.vif[0], out, flow(x.vif[0], out).SYN(1, 80), false})
	})
}

// hotplug adds the ends of one more card.
func (g *guest) hotplug(card int) {
	g.d.t.Helper()
	full := g.n
	for _, kind := range []string{"vif", "tap"} {
		s := g.d.host.AddStation(lab.StationSpec{Name: g.name + "-" + kind + "-hot", Mute: true, Ports: []lab.PortSpec{{Bridge: "xenbr0",
			Device: kind + g.Device(card)[3:], MAC: mac(full + card), Addresses: append(pfx(addr(full+card)), pfx(addr6(full+card))...)}}})
		g.stations = append(g.stations, s)
		if kind == "vif" {
			g.vif = append(g.vif, s.Port(0))
		} else {
			g.tap = append(g.tap, s.Port(0))
		}
	}
}

// The hook: xenopsd's call comes while XAPI still says that the VM is halted.
// Its policy is in force when the hook returns, and the link is up.
func TestHook(t *testing.T) {
	forEach(t, func(t *testing.T, driver string) {
		d := build(t, options{driver: driver})
		d.ringwall(groups, "apply", "-f", "-")
		vm := d.vm("web", 3, 1, web(3))
		out := d.outside.Port(0)
		s := d.host.AddStation(lab.StationSpec{Name: "web", Mute: true, Ports: []lab.PortSpec{{Bridge: "xenbr0", Device: "vif1.0", MAC: mac(3), Addresses: pfx(addr(3))}}})
		vif := s.Port(0)
		hook := func(args ...string) *exec.Cmd {
			cmd := exec.Command(filepath.Join(d.bin, "setup-vif-rules"), args...)
			cmd.Env = d.agent.Env
			labtest.Check(t, d.host.Do(cmd.Start))
			_ = cmd.Wait()
			return cmd
		}
		if c := hook("classic", "vif1.0", vm.UUID, "0", "filter"); c.ProcessState.ExitCode() != 0 {
			t.Fatalf("exit %d; the agent said:\n%s", c.ProcessState.ExitCode(), d.log.String())
		}
		links := labtest.Must(d.host.Links())(t)
		if l, err := links.LinkByName("vif1.0"); err != nil || l.Attrs().Flags&1 == 0 {
			t.Errorf("the link is not up: %v", err)
		}
		d.wait(5*time.Second, "the link carries", func() bool {
			l, err := links.LinkByName("vif1.0")
			return err == nil && l.Attrs().OperState == netlink.OperUp
		})
		d.send(probe{"web", out, vif, flow(out, vif).SYN(1, 80), true}, probe{"ssh", out, vif, flow(out, vif).SYN(1, 22), false})
		for _, bad := range [][]string{{"classic", "vif1.0", vm.UUID, "0"}, {"classic", "eth0", vm.UUID, "0", "filter"}, {"classic", "vif1.0", vm.UUID, "1", "filter"}, {"classic", "vif1.0", vm.UUID, "0", "burn"}, {}} {
			if c := hook(bad...); c.ProcessState.ExitCode() != 1 {
				t.Errorf("%q: exit %d", bad, c.ProcessState.ExitCode())
			}
		}
		// Without an agent the VIF comes up as the kernel holds it: closed for a VM
		// that it does not know.
		other := d.host.AddStation(lab.StationSpec{Name: "other", Mute: true, Ports: []lab.PortSpec{{Bridge: "xenbr0", Device: "vif2.0", MAC: mac(5), Addresses: pfx(addr(5))}}})
		_ = d.agent.Process.Kill()
		_ = d.agent.Wait()
		if c := hook("classic", "vif2.0", d.vm("other", 5, 1, web(5)).UUID, "0", "filter"); c.ProcessState.ExitCode() != 0 {
			t.Errorf("exit %d", c.ProcessState.ExitCode())
		}
		d.send(probe{"closed", out, other.Port(0), flow(out, other.Port(0)).SYN(1, 80), false})
	})
}

// A migration between two hosts of a pool, in CloudStack's mode: the port is
// closed on the new host until the call comes, and nothing is left on the old.
func TestMigration(t *testing.T) {
	forEach(t, func(t *testing.T, driver string) {
		one := build(t, options{driver: driver, cloudstack: true})
		two := build(t, options{driver: driver, cloudstack: true, pool: one.pool, network: one.network, name: "xen2"})
		vm := one.vm("i-2-3-VM", 3, 1, nil)
		g := one.start(vm, "i-2-3-VM", 3)
		g.program(1, "I:tcp;80;80;0.0.0.0/0,NEXT ")
		one.send(probe{"before", one.outside.Port(0), g.vif[0], flow(one.outside.Port(0), g.vif[0]).SYN(1, 80), true})
		g.leave()
		vm.Migrate(two.xen)
		moved := time.Now()
		h := &guest{VM: vm, d: two, name: g.name, n: 3}
		h.plug(1)
		out := two.outside.Port(0)
		two.send(probe{"closed until the call", out, h.vif[0], flow(out, h.vif[0]).SYN(1, 80), false}, probe{"both ways", h.vif[0], out, flow(h.vif[0], out).SYN(1, 80), false})
		called := time.Now()
		h.rules(2, "I:tcp;80;80;0.0.0.0/0,NEXT ")
		t.Logf("the call came %s after the move and took %s", called.Sub(moved).Round(time.Millisecond), time.Since(called).Round(time.Millisecond))
		two.send(probe{"open", out, h.vif[0], flow(out, h.vif[0]).SYN(2, 80), true})
		one.wait(5*time.Second, "nothing is left on the source", func() bool {
			logs, err := one.call("get_rule_logs_for_vms", "host_uuid", "x")
			return err == nil && logs == ""
		})
		again := one.host.AddStation(lab.StationSpec{Name: "again", Mute: true, Ports: []lab.PortSpec{{Bridge: "xenbr0", Device: "vif1.0", MAC: mac(3), Addresses: pfx(addr(3))}}})
		one.send(probe{"its former port is closed", one.outside.Port(0), again.Port(0), lab.FlowBetween(one.outside.Port(0), again.Port(0), core.IPv4).SYN(1, 80), false})
	})
}

// A host that uses Open vSwitch is refused, and the way out is named.
func TestOpenVSwitchIsRefused(t *testing.T) {
	d := build(t, options{cloudstack: true})
	d.must("true", "can_bridge_firewall", "host_uuid", d.xen.UUID, "instance", "VM")
	d.xen.SetBackend("openvswitch")
	d.must("false", "can_bridge_firewall", "host_uuid", d.xen.UUID, "instance", "VM")
	cmd := exec.Command(filepath.Join(d.bin, "ringwall"), "doctor")
	cmd.Env = d.agent.Env
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "xe-switch-network-backend bridge") {
		t.Errorf("%v\n%s", err, out)
	}
}
