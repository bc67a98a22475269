package dom0_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// onBoth runs a test on a dom0 of each driver, which CloudStack drives, with two
// VMs: a, which web and ping are open to, with two cards, and b, which nothing is
// open to.
func onBoth(t *testing.T, test func(t *testing.T, d *dom0, a, b *guest)) {
	forEach(t, func(t *testing.T, driver string) {
		d := build(t, options{driver: driver, cloudstack: true})
		a := d.start(d.vm("i-2-3-VM", 3, 2, nil), "i-2-3-VM", 3)
		b := d.start(d.vm("i-2-8-VM", 8, 1, nil), "i-2-8-VM", 8)
		a.program(1, "I:tcp;80;80;0.0.0.0/0,::/0,NEXT I:icmp;8;0;10.1.0.0/16,NEXT ")
		b.program(1, "")
		test(t, d, a, b)
	})
}

func flow6(from, to *lab.Port) frame.Flow { return lab.FlowBetween(from, to, core.IPv6) }

// The behaviours of the stock plugin, one by one, on both ends of a card.
func TestSeedBehaviours(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, b *guest) {
		out := d.outside.Port(0)
		for _, end := range []struct {
			name string
			port *lab.Port
		}{{"vif", a.vif[0]}, {"tap", a.tap[0]}} {
			p, n := end.port, end.name+": "
			in, away := flow(out, p), flow(p, out)
			d.send(
				probe{n + "ARP for itself", p, out, frame.ARPRequest(mac(3), addr(3), addr(9)), true}, // and the bridge learns where it is
				probe{n + "ingress is denied", out, p, in.SYN(1, 22), false},
				probe{n + "ingress that a rule allows", out, p, in.SYN(1, 80), true},
				probe{n + "ping that a rule allows", out, p, in.Echo(1, 1, "x"), true},
				probe{n + "egress is allowed", p, out, away.SYN(2, 443), true},
				probe{n + "its answer", out, p, in.TCP(frame.TCP{SrcPort: 443, DstPort: 2, Flags: frame.SYN | frame.ACK}, ""), true},
				probe{n + "DHCP", p, out, frame.DHCPDiscover(mac(3)), true},
				probe{n + "DNS", p, out, away.UDP(3, 53, "q"), true},
				probe{n + "another's IP address", p, out, spoof(away, addr(77)).SYN(4, 80), false},
				probe{n + "another's MAC address", p, out, away.SYN(5, 80).From(mac(77)), false},
				probe{n + "ARP for another", p, out, frame.ARPRequest(mac(3), addr(77), addr(9)), false},
				probe{n + "broadcast", out, p, frame.Multicast(core.MAC{2, 0, 0, 0, 0, 9}, out.Addr(core.IPv4), netip.MustParseAddr("255.255.255.255")).UDP(1, 80, "x"), false},
				probe{n + "multicast", out, p, frame.Multicast(core.MAC{2, 0, 0, 0, 0, 9}, out.Addr(core.IPv4), netip.MustParseAddr("224.0.0.5")).UDP(1, 80, "x"), false},
				probe{n + "802.1Q", p, out, away.SYN(6, 80).Tagged(frame.VLAN{ID: 5}), false},
				probe{n + "another ethertype", p, out, frame.LLDP(mac(3)), false},
				probe{n + "a neighbour asks its rules", p, b.vif[0], flow(p, b.vif[0]).SYN(7, 22), false},
			)
		}
		// System VMs pass everything; the host's framework: between uplinks too.
		r := d.start(d.vm("r-5-VM", 5, 1, nil), "r-5-VM", 5)
		d.must("true", "default_network_rules_systemvm", "vmName", "r-5-VM")
		d.send(probe{"a system VM hears all", out, r.vif[0], flow(out, r.vif[0]).SYN(1, 22), true},
			probe{"a system VM sends as others", r.vif[0], out, spoof(flow(r.vif[0], out), addr(77)).SYN(1, 22), true})
		// A port that nobody has spoken of passes nothing.
		c := d.start(d.vm("i-2-9-VM", 9, 1, nil), "i-2-9-VM", 9)
		d.send(probe{"no rules yet: in", out, c.vif[0], flow(out, c.vif[0]).SYN(1, 80), false}, probe{"no rules yet: out", c.vif[0], out, flow(c.vif[0], out).SYN(1, 80), false})
		// Egress rules: what is not in them is denied, and RETURN still asks the
		// receiver.
		b.rules(2, "E:tcp;80;80;0.0.0.0/0,NEXT E:tcp;23;23;0.0.0.0/0,NEXT ")
		d.send(
			probe{"a is at its vif again", a.vif[0], out, frame.ARPRequest(mac(3), addr(3), addr(9)), true},
			probe{"egress by a rule", b.vif[0], out, flow(b.vif[0], out).SYN(1, 80), true},
			probe{"egress without one", b.vif[0], out, flow(b.vif[0], out).SYN(1, 81), false},
			probe{"egress and the receiver's rule", b.vif[0], a.vif[0], flow(b.vif[0], a.vif[0]).SYN(2, 80), true},
			probe{"egress, but not the receiver's rule", b.vif[0], a.vif[0], flow(b.vif[0], a.vif[0]).SYN(2, 23), false})
		if out, err := d.call("get_rule_logs_for_vms", "host_uuid", "x"); err != nil || !strings.Contains(out, "i-2-3-VM,3,10.1.0.3,1,00000000000000000000000000000001,1") {
			t.Error(out, err)
		}
		d.must("true", "destroy_network_rules_for_vm", "vmName", "i-2-3-VM")
		a.Stop()
		d.wait(5*time.Second, "the port of a VM that has stopped closes", func() bool {
			return !d.seen(probe{"gone", out, a.vif[0], flow(out, a.vif[0]).SYN(9, 80), false})[0]
		})
	})
}

func spoof(f frame.Flow, a netip.Addr) frame.Flow {
	f.Src = a
	return f
}

// S6: DHCP from any source to anybody, past the receiver's rules.
func TestFaultS6(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, b *guest) {
		out := d.outside.Port(0)
		d.send(probe{"a DHCP client in disguise", a.vif[0], out, spoof(flow(a.vif[0], out), addr(77)).UDP(68, 67, "x"), false},
			probe{"to a neighbour", a.vif[0], b.vif[0], flow(a.vif[0], b.vif[0]).UDP(68, 67, "x"), false})
	})
}

// S7: established is accepted before the source is checked.
func TestFaultS7(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, b *guest) {
		out := d.outside.Port(0)
		d.send(probe{"a flow", a.vif[0], out, flow(a.vif[0], out).SYN(5, 443), true})
		d.send(probe{"in another's name", b.vif[0], out, flow(a.vif[0], out).TCP(frame.TCP{SrcPort: 5, DstPort: 443, Seq: 1001, Flags: frame.ACK}, "x").From(mac(8)), false})
	})
}

// S8: neighbour discovery speaks for anybody.
func TestFaultS8(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out, gateway := d.outside.Port(0), netip.MustParseAddr("fd00::1")
		f := flow6(a.vif[0], out)
		d.send(probe{"its own advertisement", a.vif[0], out, f.Advertise(), true},
			probe{"an advertisement of the gateway", a.vif[0], out, f.Packet(frame.NA{Target: gateway, LinkLayer: f.SrcMAC, Solicited: true, Override: true}), false},
			probe{"a solicitation in another's name", a.vif[0], out, frame.Solicit(f.SrcMAC, gateway, f.Dst), false})
	})
}

// S9: one card with the other's address.
func TestFaultS9(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		d.send(probe{"the second card as the first", a.vif[1], out, spoof(flow(a.vif[1], out), addr(3)).SYN(1, 80), false},
			probe{"with its MAC too", a.vif[1], out, flow(a.vif[0], out).SYN(1, 80), false},
			probe{"the second card as itself", a.vif[1], out, flow(a.vif[1], out).SYN(1, 80), true},
			probe{"rules are on the second card too", out, a.vif[1], flow(out, a.vif[1]).SYN(2, 80), true})
	})
}

// S10: the host itself.
func TestFaultS10(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		host := d.host.Port("xenbr0")
		f := lab.FlowBetween(a.vif[0], host, core.IPv4)
		d.send(probe{"to the host in another's name", a.vif[0], d.stack, spoof(f, addr(77)).UDP(1, 9, "x"), false},
			probe{"to the host as itself", a.vif[0], d.stack, f.UDP(1, 9, "x"), true})
		a.rules(2, "E:tcp;80;80;0.0.0.0/0,NEXT ")
		d.send(probe{"past its egress rules", a.vif[0], d.stack, f.UDP(2, 9, "x"), false})
	})
}

// S16: a DHCP server in a VM.
func TestFaultS16(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, b *guest) {
		out := d.outside.Port(0)
		offer := flow(a.vif[0], b.vif[0]).DHCPOffer(mac(8), addr(88))
		broadcast := frame.Flow{SrcMAC: mac(3), DstMAC: core.BroadcastMAC, Src: addr(3), Dst: netip.MustParseAddr("255.255.255.255")}.DHCPOffer(mac(8), addr(88))
		d.send(probe{"an offer", a.vif[0], b.vif[0], offer, false}, probe{"an offer to all", a.vif[0], b.vif[0], broadcast, false},
			probe{"an offer outside", a.vif[0], out, broadcast, false},
			probe{"what others ask for is not heard", out, a.vif[0], frame.DHCPDiscover(mac(99)), false},
			probe{"the real server", out, b.vif[0], flow(out, b.vif[0]).DHCPOffer(mac(8), addr(8)), true})
	})
}

// S17: who flushes FORWARD opens all VMs.
func TestFaultS17(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		closed := probe{"closed", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 22), false}
		labtest.Check(t, d.host.Do(func() error { return exec.Command("iptables", "-F", "FORWARD").Run() }))
		d.send(closed)
		labtest.Check(t, d.host.Do(func() error { return exec.Command("nft", "flush", "ruleset").Run() }))
		d.wait(20*time.Second, "what was flushed is put back", func() bool { return !d.seen(closed)[0] })
	})
}

// R18: protocol all with 0.0.0.0/0.
func TestFaultR18(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		a.rules(2, "I:all;0;0;0.0.0.0/0,NEXT E:all;0;0;0.0.0.0/0,NEXT ")
		d.send(probe{"in", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 22), true}, probe{"out", a.vif[0], out, flow(a.vif[0], out).SYN(2, 22), true},
			probe{"any protocol", out, a.vif[0], flow(out, a.vif[0]).IPProtocol(47, "x"), true})
	})
}

// R17, R19: numbers of protocols, and IPv6 among IPv4 CIDRs.
func TestFaultR19(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		a.rules(2, "I:tcp;22;22;10.1.0.0/16,fd00::/64,NEXT I:47;0;0;10.1.0.0/16,NEXT ")
		d.send(probe{"IPv4", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 22), true}, probe{"IPv6", out, a.vif[0], flow6(out, a.vif[0]).SYN(2, 22), true},
			probe{"by number", out, a.vif[0], flow(out, a.vif[0]).IPProtocol(47, "x"), true}, probe{"another number", out, a.vif[0], flow(out, a.vif[0]).IPProtocol(50, "x"), false})
	})
}

// R20: the guard of a MAC goes with its VM: a domain id that comes again is the
// next VM's.
func TestFaultR20(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		domid := a.Domid()
		d.must("true", "destroy_network_rules_for_vm", "vmName", a.name)
		a.leave()
		a.Stop()
		next := d.vm("i-2-7-VM", 7, 1, nil)
		next.Start(d.xen)
		g := &guest{VM: next, d: d, name: "i-2-7-VM", n: 7}
		d.pool.SetDomid(next, domid)
		g.plug(1)
		g.program(1, "")
		if g.vif[0].Device() != "vif1.0" {
			t.Fatal(g.vif[0].Device())
		}
		d.send(probe{"the next VM's MAC", g.vif[0], out, flow(g.vif[0], out).SYN(1, 80), true}, probe{"the former's", g.vif[0], out, flow(g.vif[0], out).SYN(1, 80).From(mac(3)), false})
	})
}

// R21: long names, and names that are alike at their beginning.
func TestFaultR21(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, _, _ *guest) {
		out := d.outside.Port(0)
		a := d.start(d.vm("i-123456-7890123-CUSTOMER", 20, 1, nil), "i-123456-7890123-CUSTOMER", 20)
		b := d.start(d.vm("i-123456-7890123-CUSTOMERS", 21, 1, nil), "i-123456-7890123-CUSTOMERS", 21)
		a.program(1, "I:tcp;80;80;10.1.250.9/32,NEXT ")
		b.program(1, "I:tcp;80;80;10.1.250.8/32,NEXT ")
		d.send(probe{"a", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 80), true}, probe{"b", out, b.vif[0], flow(out, b.vif[0]).SYN(1, 80), false})
		d.must("true", "destroy_network_rules_for_vm", "vmName", a.name)
		a.Stop()
		if out, err := d.call("cleanup_rules", "instance", "VM"); err != nil || out != "0" && out != "1" { // the agent may have seen it stop
			t.Error(out, err)
		}
		b.rules(2, "I:tcp;80;80;10.1.250.9/32,NEXT ")
		d.send(probe{"b after", out, b.vif[0], flow(out, b.vif[0]).SYN(2, 80), true})
	})
}

// R22: many changes in one second.
func TestFaultR22(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out := d.outside.Port(0)
		for seq := range 5 {
			a.rules(10+seq, "I:tcp;80;80;10.1.250.9/32,NEXT I:tcp;1;112;10.9.0.0/16,NEXT I:tcp;11;12;10.1.250.9/32,NEXT ")
		}
		d.send(probe{"by the list", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 11), true}, probe{"not by it", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 112), false})
	})
}

// R23: secondary addresses survive a reboot, and calls run side by side.
func TestFaultR23(t *testing.T) {
	onBoth(t, func(t *testing.T, d *dom0, a, _ *guest) {
		out, second := d.outside.Port(0), addr(200)
		d.must("true", "network_rules_vmSecondaryIp", "vmName", a.name, "vmMac", mac(3).String(), "vmSecIp", second.String(), "action", "-A")
		a.leave()
		a.Reboot()
		a.plug(2)
		d.wait(5*time.Second, "the VM is programmed on its new domain", func() bool {
			return d.seen(probe{"web", out, a.vif[0], flow(out, a.vif[0]).SYN(1, 80), true})[0]
		})
		d.send(probe{"ARP for the secondary address", a.vif[0], out, frame.ARPRequest(mac(3), second, addr(9)), true},
			probe{"from it", a.vif[0], out, spoof(flow(a.vif[0], out), second).SYN(1, 80), true},
			probe{"to it", out, a.vif[0], frame.Flow{SrcMAC: core.MAC{2, 0, 0, 0, 0, 9}, DstMAC: mac(3), Src: out.Addr(core.IPv4), Dst: second}.SYN(2, 80), true})
		done := make(chan string, 8)
		for i := range 8 {
			go func() {
				v, err := d.call("network_rules_vmSecondaryIp", "vmName", a.name, "vmMac", mac(3).String(), "vmSecIp", addr(201+i).String(), "action", "-A")
				if err != nil {
					v = err.Error()
				}
				done <- v
			}()
		}
		for range 8 {
			if v := <-done; v != "true" {
				t.Error(v)
			}
		}
		for i := range 8 {
			d.send(probe{"from each", a.vif[0], out, spoof(flow(a.vif[0], out), addr(201+i)).SYN(3, 80), true})
		}
	})
}
