package cloudstack_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// What the stock script gets wrong, by the numbers of docs/cloudstack/kvm.md.
// Each test shows the right behaviour on packets.

const (
	openAll = "I:all;0;0;0.0.0.0/0,::/0,NEXT;"
	openOut = "E:all;0;0;0.0.0.0/0,::/0,NEXT;"
)

// TestFaultS1: the receiver's rules are asked when the sender is on the same
// bridge, whatever the sender may do; in both families, DNS included.
func TestFaultS1(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.boot(1, 1), r.boot(2, 1)
	a.program(1, openOut)
	b.program(1, "I:tcp;80;80;0.0.0.0/0,::/0,NEXT;")
	to, to6 := between(a.Port(0), b.Port(0)), lab.FlowBetween(a.Port(0), b.Port(0), core.IPv6)
	r.send(
		probe{"IPv4, allowed", a.Port(0), b.Port(0), to.SYN(1, 80), true},
		probe{"IPv6, allowed", a.Port(0), b.Port(0), to6.SYN(1, 80), true},
		probe{"IPv4", a.Port(0), b.Port(0), to.SYN(2, 22), false},
		probe{"IPv6", a.Port(0), b.Port(0), to6.SYN(2, 22), false},
		probe{"DNS over IPv4", a.Port(0), b.Port(0), to.UDP(2, 53, "q"), false},
		probe{"DNS over IPv6", a.Port(0), b.Port(0), to6.UDP(2, 53, "q"), false},
	)
}

// TestFaultS2: a rule that lets everything out does not cost the answers.
func TestFaultS2(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.bootLoud(1)
	a.program(1, openOut)
	e := labtest.Must(lab.StartEcho(t.Context(), r.outside, lab.TCP(80), lab.UDP(80), lab.TCP(80).Over(core.IPv6)))(t)
	defer e.Close()
	for _, s := range []lab.Service{lab.TCP(80), lab.UDP(80), lab.TCP(80).Over(core.IPv6), lab.ICMP()} {
		labtest.Check(t, lab.Connect(t.Context(), a, r.outside.Addr(s.Family), s, lab.ConnectOptions{Timeout: 5 * time.Second}))
	}
}

// TestFaultS3: a port on a bridge of ours passes nothing before its first call,
// and only what always passes before its rules; with its own addresses.
func TestFaultS3(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.boot(1, 1).program(1, openAll)
	a, out := r.boot(2, 1), r.outside.Port(0)
	to := between(a.Port(0), out)
	spoofed := to
	spoofed.Src = netip.MustParseAddr("10.1.9.9")
	r.send(
		probe{"no call yet: out", a.Port(0), out, to.UDP(1, 1, "x"), false},
		probe{"no call yet: ARP", a.Port(0), out, frame.ARPRequest(a.Port(0).MAC(), addr(2, 0), r.outside.Addr(core.IPv4)), false},
		probe{"no call yet: spoofed", a.Port(0), out, spoofed.UDP(1, 1, "x"), false},
		probe{"no call yet: in", out, a.Port(0), to.Reverse().UDP(1, 1, "x"), false},
	)
	r.must(a.defaults(0)...)
	r.send(
		probe{"no rules yet: out", a.Port(0), out, to.UDP(2, 1, "x"), false},
		probe{"no rules yet: DNS", a.Port(0), out, to.UDP(2, 53, "x"), true},
		probe{"no rules yet: ARP", a.Port(0), out, frame.ARPRequest(a.Port(0).MAC(), addr(2, 0), r.outside.Addr(core.IPv4)), true},
		probe{"no rules yet: DHCP", a.Port(0), out, frame.DHCPDiscover(a.Port(0).MAC()), true},
		probe{"no rules yet: spoofed DNS", a.Port(0), out, spoofed.UDP(2, 53, "x"), false},
		probe{"no rules yet: in", out, a.Port(0), to.Reverse().UDP(2, 1, "x"), false},
	)
}

// TestFaultS4: a VLAN tag takes nobody past the rules.
func TestFaultS4(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	a.program(1, "")
	b.program(1, openAll)
	to := between(a.Port(0), b.Port(0)).UDP(1, 1, "x")
	probes := []probe{{"plain", a.Port(0), b.Port(0), to, true}}
	for _, id := range []uint16{0, 5, 4094} {
		probes = append(probes,
			probe{fmt.Sprintf("802.1Q %d to a VM", id), a.Port(0), b.Port(0), to.Tagged(frame.VLAN{ID: id}), false},
			probe{fmt.Sprintf("802.1Q %d out", id), a.Port(0), out, between(a.Port(0), out).UDP(1, 1, "x").Tagged(frame.VLAN{ID: id}), false})
	}
	r.send(probes...)
}

// TestFaultS5: no other ethertype passes.
func TestFaultS5(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	a.program(1, "")
	b.program(1, openAll)
	raw := func(to core.MAC, ethertype uint16) frame.Frame {
		return frame.Build(frame.Ethernet{Src: a.Port(0).MAC(), Dst: to, Type: ethertype}, frame.Payload("experimental................................."))
	}
	r.send(
		probe{"0x88b5 to a VM", a.Port(0), b.Port(0), raw(b.Port(0).MAC(), 0x88b5), false},
		probe{"0x88b5 out", a.Port(0), out, raw(out.MAC(), 0x88b5), false},
		probe{"0x8035 to a VM", a.Port(0), b.Port(0), raw(b.Port(0).MAC(), 0x8035), false},
		probe{"0x8035 out", a.Port(0), out, raw(out.MAC(), 0x8035), false},
	)
}

// TestFaultS6: what looks like DHCP has to come from the VM itself, and the
// receiver's rules are asked.
func TestFaultS6(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	a.program(1, "")
	b.program(1, "")
	spoofed, own, toVM := between(a.Port(0), out), between(a.Port(0), out), between(a.Port(0), b.Port(0))
	spoofed.Src = netip.MustParseAddr("10.1.9.9")
	r.send(
		probe{"a discovery", a.Port(0), out, frame.DHCPDiscover(a.Port(0).MAC()), true},
		probe{"from its own address", a.Port(0), out, own.UDP(68, 67, "x"), true},
		probe{"from another's address", a.Port(0), out, spoofed.UDP(68, 67, "x"), false},
		probe{"to a VM without a rule for it", a.Port(0), b.Port(0), toVM.UDP(68, 67, "x"), false},
	)
}

// TestFaultS7: a packet with a stranger's source dies even in the tuple of a
// flow that is established.
func TestFaultS7(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	a.program(1, "")
	b.program(1, openAll)
	legal := between(b.Port(0), out)
	forged := legal // by a, in b's name
	forged.SrcMAC = a.Port(0).MAC()
	r.send(
		probe{"the flow begins", b.Port(0), out, legal.UDP(5, 6, "one"), true},
		probe{"and is answered", out, b.Port(0), legal.Reverse().UDP(6, 5, "two"), true},
		probe{"a joins in", a.Port(0), out, forged.UDP(5, 6, "three"), false},
		probe{"with b's MAC too", a.Port(0), out, legal.UDP(5, 6, "four"), false},
	)
}

// TestFaultS8: a VM speaks for its own addresses only, in neighbour discovery
// too, and errors that belong to no flow do not come in.
func TestFaultS8(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b, out := r.boot(1, 1), r.boot(2, 1), r.outside.Port(0)
	a.program(1, "")
	b.program(1, "")
	gateway, m := r.outside.Addr(core.IPv6), a.Port(0).MAC()
	claim := frame.Flow{SrcMAC: m, DstMAC: b.Port(0).MAC(), Src: addr6(1, 0), Dst: addr6(2, 0)}
	offending := lab.FlowBetween(b.Port(0), a.Port(0), core.IPv6).UDP(1, 2, "x")
	r.send(
		probe{"a solicitation of its own", a.Port(0), out, frame.Solicit(m, addr6(1, 0), gateway), true},
		probe{"from another's address", a.Port(0), out, frame.Solicit(m, addr6(2, 0), gateway), false},
		probe{"an advertisement of its own", a.Port(0), b.Port(0), claim.Advertise(), true},
		probe{"for the gateway", a.Port(0), b.Port(0), claim.Packet(frame.NA{Target: gateway, LinkLayer: m, Override: true, Solicited: true}), false},
		probe{"to all, for the gateway", a.Port(0), out, frame.UnsolicitedNA(m, gateway), false},
		probe{"an error about nothing", out, b.Port(0), lab.FlowBetween(out, b.Port(0), core.IPv6).Error(frame.ICMPv6{Type: 1, Code: 4}, offending), false},
	)
}

// TestFaultS9: no NIC may use what is another's, of the same VM neither.
func TestFaultS9(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 2), r.outside.Port(0)
	a.program(1, openAll)
	own, borrowed, both := between(a.Port(0), out), between(a.Port(0), out), between(a.Port(1), out)
	borrowed.Src = addr(1, 1)
	r.send(
		probe{"its own", a.Port(0), out, own.UDP(1, 1, "x"), true},
		probe{"the second NIC's address", a.Port(0), out, borrowed.UDP(1, 1, "x"), false},
		probe{"the second NIC's address and MAC", a.Port(0), out, both.UDP(1, 1, "x"), false},
		probe{"ARP for the second's", a.Port(0), out, frame.ARPRequest(mac(1, 0), addr(1, 1), r.outside.Addr(core.IPv4)), false},
		probe{"on the second, its own", a.Port(1), out, both.UDP(1, 1, "x"), true},
	)
}

// TestFaultS10: the host is not to be spoofed to, and a VM's egress rules count
// towards it.
func TestFaultS10(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)
	a.program(1, "E:udp;1000;1000;0.0.0.0/0,NEXT;")
	stack, bridge := r.stack, r.host.Port("cloudbr0")
	to := frame.Flow{SrcMAC: mac(1, 0), DstMAC: bridge.MAC(), Src: addr(1, 0), Dst: netip.MustParseAddr("10.1.0.254")}
	spoofed := to
	spoofed.Src = netip.MustParseAddr("10.1.250.9")
	r.send(
		probe{"allowed", a.Port(0), stack, to.UDP(1, 1000, "x"), true},
		probe{"not allowed", a.Port(0), stack, to.UDP(1, 22, "x"), false},
		probe{"spoofed", a.Port(0), stack, spoofed.UDP(1, 1000, "x"), false},
	)
}

// TestFaultS11: nothing in a call is ever run.
func TestFaultS11(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)
	a.program(3, "I:tcp;22;22;0.0.0.0/0,NEXT;")
	bait := filepath.Join(r.dir, "bait")
	for _, evil := range []string{"$(touch " + bait + ")", "`touch " + bait + "`", ";touch " + bait + ";", "'; touch " + bait + " #"} {
		for _, args := range [][]string{
			a.rules(4, "I:"+evil+";0;0;0.0.0.0/0,NEXT;"),
			a.rules(4, "I:tcp;"+evil+";22;0.0.0.0/0,NEXT;"),
			a.defaults(0, "--vif="+evil),
			a.defaults(0, "--brname="+evil),
			{"destroy_network_rules_for_vm", "--vmname=" + evil},
			{"network_rules_vmSecondaryIp", "--vmname", a.name, "--vmmac", mac(1, 0).String(), "--nicsecips=" + evil, "--action=-A"},
		} {
			if res := r.call(args...); res.code == 0 {
				t.Errorf("%q: exit 0", args)
			}
		}
		// What stands in the place of a CIDR is no CIDR.
		r.must(a.rules(3, "I:tcp;22;22;0.0.0.0/0,"+strings.ReplaceAll(evil, ";", "")+",NEXT;")...)
	}
	if _, err := os.Stat(bait); err == nil {
		t.Error("it was run")
	}
	if seq := r.logs()[a.name]; seq != "3" {
		t.Errorf("sequence number %s", seq)
	}
	r.send(probe{"the rules are as before", r.outside.Port(0), a.Port(0), between(r.outside.Port(0), a.Port(0)).SYN(1, 22), true})
}

// TestFaultS13: a rule that goes takes its flows along, whoever sends next.
func TestFaultS13(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.bootLoud(1)
	a.program(1, "I:tcp;80;81;0.0.0.0/0,NEXT;")
	flow := func(port uint16) *lab.Flow {
		f := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: r.outside, Server: a, Service: lab.TCP(port)}))(t)
		t.Cleanup(f.Stop)
		return f
	}
	goes, stays := flow(80), flow(81)
	r.must(a.rules(2, "I:tcp;81;81;0.0.0.0/0,NEXT;")...)
	if server, client := goes.Progress(t.Context(), time.Second); server || client {
		t.Errorf("the flow goes on: at the VM %v, outside %v", server, client)
	}
	if server, client := stays.Progress(t.Context(), 5*time.Second); !server || !client {
		t.Errorf("the other flow is cut: at the VM %v, outside %v", server, client)
	}
}

// TestFaultS14: protocol number 0 opens nothing, and rules for ICMP and for
// numbers do not let in what belongs to no flow.
func TestFaultS14(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	in := between(out, a.Port(0))
	a.program(1, "I:0;0;0;0.0.0.0/0,::/0,NEXT;E:0;0;0;0.0.0.0/0,NEXT;")
	r.send(
		probe{"number 0: tcp", out, a.Port(0), in.SYN(1, 22), false},
		probe{"number 0: udp", out, a.Port(0), in.UDP(1, 22, "x"), false},
		probe{"number 0: out", a.Port(0), out, in.Reverse().UDP(1, 22, "x"), false},
		probe{"number 0: IPv6 out is not spoken of", a.Port(0), out, lab.FlowBetween(a.Port(0), out, core.IPv6).UDP(1, 22, "x"), true},
	)
	r.must(a.rules(2, "I:icmp;-1;-1;0.0.0.0/0,NEXT;I:6;0;0;0.0.0.0/0,NEXT;")...)
	r.send(
		probe{"echo", out, a.Port(0), in.Echo(1, 1, "x"), true},
		probe{"tcp", out, a.Port(0), in.SYN(2, 22), true},
		probe{"an answer that nobody asked for", out, a.Port(0), in.EchoReply(9, 9, "x"), false},
		probe{"flags that no TCP sends", out, a.Port(0), in.TCP(frame.TCP{SrcPort: 3, DstPort: 22, Flags: frame.SYN | frame.FIN}, ""), false},
	)
}

// TestFaultS15: uplinks are what no VM can be, all of them work, and none makes
// a VM's rules void.
func TestFaultS15(t *testing.T) {
	r := newRig(t, rigOptions{})
	second := r.host.AddStation(lab.StationSpec{Name: "second", Mute: true, Ports: []lab.PortSpec{{Bridge: "cloudbr0", Device: "bond0.7", MAC: core.MAC{2, 0, 0, 0, 0, 8},
		Addresses: prefixes("10.1.250.8/16", "fd00::8/64")}}})
	first := r.boot(1, 1) // before any call: a tap that nobody knows
	a := r.boot(2, 1)
	a.program(1, "I:tcp;80;80;0.0.0.0/0,NEXT;")
	var probes []probe
	for _, up := range []*lab.Port{r.outside.Port(0), second.Port(0)} {
		to := between(up, a.Port(0))
		probes = append(probes,
			probe{"in by rule from " + up.Device(), up, a.Port(0), to.SYN(1, 80), true},
			probe{"in without a rule from " + up.Device(), up, a.Port(0), to.SYN(1, 81), false},
			probe{"out to " + up.Device(), a.Port(0), up, to.Reverse().SYN(1, 82), true})
	}
	to := between(a.Port(0), first.Port(0))
	r.send(append(probes,
		probe{"to a tap that nobody knows", a.Port(0), first.Port(0), to.SYN(1, 80), false},
		probe{"from it", first.Port(0), a.Port(0), to.Reverse().SYN(1, 80), false},
		probe{"from it to the uplink", first.Port(0), r.outside.Port(0), between(first.Port(0), r.outside.Port(0)).SYN(1, 80), false})...)
}
