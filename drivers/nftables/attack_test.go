package nftables

import (
	"bytes"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// arena is a host with two VMs of an attacker and two of others: mallory and
// her helper may send what they like; victim lets everything in; quiet lets
// nothing in and nothing out. Only the guards are between them.
type arena struct {
	*labtest.Host
	mallory, helper, victim, quiet, fabric *lab.Port
	backend                                *Backend
	input                                  policy.Input
	watch                                  *lab.Observatory
}

var (
	anywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	nowhere  = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")}
)

func newArena(t *testing.T) *arena {
	t.Helper()
	a := &arena{Host: labtest.New(t, lab.Options{Forwarding: true})}
	a.AddBridge(lab.BridgeSpec{Name: "br0", MAC: mac(t, "02:00:00:00:00:fe"), NoSnooping: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24"), netip.MustParsePrefix("fd00::fe/64")}})
	var specs []lab.StationSpec
	for i, s := range []struct{ name, device, group string }{
		{"mallory", "vnet0", "loose"}, {"helper", "vnet1", "loose"}, {"victim", "vnet2", "loose"}, {"quiet", "vnet3", "tight"}, {"fabric", "eth0", ""},
	} {
		m := core.MAC{2, 0, 0, 0, 0, byte(i + 1)}
		v4 := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		v6 := netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)})
		specs = append(specs, lab.StationSpec{Name: s.name, Mute: true, Ports: []lab.PortSpec{{Bridge: "br0", Device: s.device, MAC: m,
			Addresses: []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}}}})
		if s.group != "" {
			a.input.VMs = append(a.input.VMs, core.VM{Key: core.VMKey(s.name), Name: s.name, NICs: []core.NIC{{MAC: m,
				Groups: []string{s.group}, Addresses: []netip.Addr{v4, v6}, Binding: core.Binding{Bridge: "br0", Devices: []string{s.device}}}}})
		}
	}
	all := a.AddStations(specs...)
	a.mallory, a.helper, a.victim, a.quiet, a.fabric = all[0].Port(0), all[1].Port(0), all[2].Port(0), all[3].Port(0), all[4].Port(0)
	a.input.Options = core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}}
	a.input.Groups = []core.Group{
		{Name: "loose", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.AnyProtocol, Peers: &core.Peers{CIDRs: anywhere}}}},
		{Name: "tight", Rules: []core.Rule{{Direction: core.Egress, Protocol: core.AnyProtocol, Peers: &core.Peers{CIDRs: nowhere}}}},
	}
	for _, p := range []*lab.Port{a.mallory, a.helper, a.victim, a.quiet, a.fabric} {
		a.neighbour(t, p) // mute stations answer no ARP
	}
	a.backend = openBackend(t, a.Host)
	a.sync(t)
	a.watch = labtest.Observe(t, a.mallory, a.helper, a.victim, a.quiet, a.fabric, a.Stack())
	for _, p := range []*lab.Port{a.mallory, a.helper, a.victim, a.quiet, a.fabric} { // the bridge learns where they are
		labtest.Check(t, p.SendFrames(frame.GratuitousARP(p.MAC(), p.Addr(core.IPv4))))
	}
	return a
}

func (a *arena) neighbour(t *testing.T, p *lab.Port) {
	t.Helper()
	nl := labtest.Must(a.Links())(t)
	bridge := labtest.Must(nl.LinkByName("br0"))(t)
	for _, f := range core.Families {
		m := p.MAC()
		labtest.Check(t, nl.NeighSet(&netlink.Neigh{LinkIndex: bridge.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: p.Addr(f).AsSlice(), HardwareAddr: m[:]}))
	}
}

func (a *arena) ruleset(t *testing.T) core.Ruleset {
	t.Helper()
	return labtest.Must(policy.Compile(a.input))(t)
}

func (a *arena) sync(t *testing.T) {
	t.Helper()
	labtest.Check(t, a.backend.Sync(t.Context(), a.ruleset(t)))
}

func (a *arena) flow(from, to *lab.Port, f core.Family) frame.Flow {
	return lab.FlowBetween(from, to, f)
}

// seen sends frames one after another and says where the last was seen.
func (a *arena) seen(t *testing.T, shots ...shot) []string {
	t.Helper()
	var where []string
	for _, s := range shots {
		got := labtest.Send(t, a.watch, lab.Probe{Name: "shot", From: s.from, Frame: s.frame, Match: s.leftTrace})
		where = nil
		for _, p := range got[0].Ports() {
			where = append(where, p.Namespace().Name())
		}
	}
	return where
}

type shot struct {
	from  *lab.Port
	frame frame.Frame
}

// leftTrace: reassembled, unwrapped or routed, it still has its sender or its end.
func (s shot) leftTrace(c lab.Captured) bool {
	return c.Frame.Src() == s.frame.Src() || bytes.HasSuffix(c.Frame, s.frame[len(s.frame)-9:])
}

func linkLocal(p *lab.Port) netip.Addr { return p.MAC().LinkLocal() }

// TestAttacks sends what a hostile VM may try. Each attack's last frame may be
// seen at the named stations alone.
func TestAttacks(t *testing.T) {
	a := newArena(t)
	m, h, v, q, up := a.mallory, a.helper, a.victim, a.quiet, a.fabric
	mv4, mv6 := a.flow(m, v, core.IPv4), a.flow(m, v, core.IPv6)
	mq4, mq6 := a.flow(m, q, core.IPv4), a.flow(m, q, core.IPv6)
	hm4, hm6 := a.flow(h, m, core.IPv4), a.flow(h, m, core.IPv6)
	bridgeMAC := mac(t, "02:00:00:00:00:fe")
	toAll := func(f frame.Flow) frame.Flow { f.DstMAC = core.BroadcastMAC; return f }
	spoof := func(f frame.Flow, p *lab.Port) frame.Flow { f.Src = p.Addr(core.FamilyOf(f.Src)); return f }
	allNodes := frame.Multicast(m.MAC(), linkLocal(m), frame.AllNodes)
	ra := frame.RA{Lifetime: 1800}
	fromNobody := frame.Multicast(m.MAC(), netip.IPv6Unspecified(), frame.AllNodes)
	options := func(b ...byte) frame.IPv4 { return frame.IPv4{Src: mv4.Src, Dst: mv4.Dst, Options: b} }

	one := func(f frame.Frame) []shot { return []shot{{m, f}} }
	all := func(fs []frame.Frame) (out []shot) {
		for _, f := range fs {
			out = append(out, shot{m, f})
		}
		return out
	}
	offer := frame.Flow{SrcMAC: m.MAC(), DstMAC: core.BroadcastMAC, Src: m.Addr(core.IPv4), Dst: policy.Broadcast}
	for _, c := range []struct {
		name  string
		shots []shot
		at    []string
	}{
		// The arena works at all.
		{"control: udp to victim", one(mv4.UDP(1, 2, "x")), []string{"victim"}},
		{"control: udp to victim, IPv6", one(mv6.UDP(1, 2, "x")), []string{"victim"}},
		{"control: udp to quiet", one(mq4.UDP(1, 2, "x")), nil},

		// Router advertisements, behind all that may stand before them.
		{"RA", one(allNodes.Packet(ra)), nil},
		{"RA behind hop-by-hop", one(allNodes.Packet(frame.HopByHop{}, ra)), nil},
		{"RA behind destination options", one(allNodes.Packet(frame.DestinationOptions{}, ra)), nil},
		{"RA behind a routing header", one(allNodes.Packet(frame.Routing{Type: 4}, ra)), nil},
		{"RA behind a chain", one(allNodes.Packet(frame.HopByHop{}, frame.DestinationOptions{}, frame.Routing{Type: 4}, frame.DestinationOptions{}, ra)), nil},
		{"RA behind options out of order", one(allNodes.Packet(frame.DestinationOptions{}, frame.HopByHop{}, ra)), nil},
		{"RA in an atomic fragment", one(allNodes.Packet(frame.Fragment{ID: 1}, ra)), nil},
		{"RA in two fragment headers", one(allNodes.Packet(frame.Fragment{ID: 2}, frame.Fragment{ID: 3}, ra)), nil},
		// Who has no key for it reads nothing behind it (RFC 4302), so it is a protocol to rules.
		{"RA behind an authentication header", one(allNodes.Packet(frame.DestinationOptions{}, ra).With(20, 51)), []string{"helper", "victim", "fabric"}},
		{"RA in fragments", all(allNodes.Packet(ra, frame.Payload("0123456789abcdef")).Fragments(8, 4)), nil},
		{"RA in fragments behind options", all(allNodes.Packet(frame.DestinationOptions{Options: make([]byte, 30)}, ra).Fragments(16, 5)), nil},
		{"RA from nobody", one(fromNobody.Packet(ra)), nil},
		{"RA to one VM", one(mv6.Packet(ra)), nil},
		{"redirect", one(mv6.Packet(frame.Redirect{Target: m.Addr(core.IPv6), Destination: up.Addr(core.IPv6)})), nil},

		// Neighbours.
		{"NA for another", one(mv6.Packet(frame.NA{Target: q.Addr(core.IPv6), LinkLayer: m.MAC(), Override: true})), nil},
		{"NA for another, behind options", one(mv6.Packet(frame.DestinationOptions{}, frame.NA{Target: q.Addr(core.IPv6), Override: true})), nil},
		{"NA for another, atomic fragment", one(mv6.Packet(frame.Fragment{ID: 6}, frame.NA{Target: q.Addr(core.IPv6), Override: true})), nil},
		{"NA for the router", one(allNodes.Packet(frame.NA{Target: netip.MustParseAddr("fd00::fe"), LinkLayer: m.MAC(), Override: true})), nil},
		{"DAD for another", one(frame.DADSolicitation(m.MAC(), q.Addr(core.IPv6))), nil},
		{"echo from nobody", one(fromNobody.Echo(1, 1, "x")), nil},
		{"udp from nobody", one(fromNobody.UDP(1, 2, "x")), nil},
		{"another's link-local source", one(frame.Multicast(m.MAC(), linkLocal(q), frame.AllNodes).Echo(1, 2, "x")), nil},
		{"DHCPv6 advertisement", one(frame.Flow{SrcMAC: m.MAC(), DstMAC: v.MAC(), Src: linkLocal(m), Dst: linkLocal(v)}.DHCPv6Advertise(netip.MustParseAddr("fd00::99"))), nil},
		{"DHCPv6 advertisement from another port", one(frame.Flow{SrcMAC: m.MAC(), DstMAC: v.MAC(), Src: linkLocal(m), Dst: linkLocal(v)}.UDP(1547, 546, "x")), nil},

		// ARP.
		{"ARP for another", one(spoof(mv4, q).ARPReply()), nil},
		{"ARP, truncated", one(spoof(mv4, q).ARPReply()[:30]), nil},
		{"ARP, truncated before the sender", one(spoof(mv4, q).ARPReply()[:20]), nil},
		{"ARP, odd address lengths", one(spoof(mv4, q).ARPReply().With(18, 5, 5)), nil},
		{"ARP, odd protocol", one(mv4.ARPReply().With(16, 0x86, 0xdd)), nil},
		{"ARP, odd hardware", one(mv4.ARPReply().With(14, 0, 6)), nil},
		{"ARP probe for another", one(frame.ARPProbe(m.MAC(), q.Addr(core.IPv4))), nil},
		{"ARP reply from 0.0.0.0", one(frame.Build(mv4.Ethernet(), frame.ARP{Op: frame.ARPReplyOp, SenderMAC: m.MAC(), TargetMAC: v.MAC(), TargetIP: m.Addr(core.IPv4)})), nil},
		{"ARP, hardware address of another", one(frame.Build(mv4.Ethernet(), frame.ARP{Op: frame.ARPReplyOp, SenderMAC: q.MAC(), SenderIP: mv4.Src, TargetMAC: v.MAC(), TargetIP: mv4.Dst})), nil},
		{"RARP reply", one(frame.Build(frame.Ethernet{Src: m.MAC(), Dst: core.BroadcastMAC}, frame.ARP{Op: frame.RARPReplyOp, SenderMAC: m.MAC(), TargetMAC: m.MAC(), Reverse: true})), nil},

		// Wrappings.
		{"802.1Q", one(mv4.UDP(1, 3, "x").Tagged(frame.VLAN{ID: 5})), nil},
		{"priority tag", one(mv4.UDP(1, 4, "x").Tagged(frame.VLAN{ID: 0})), nil},
		{"802.1ad", one(mv4.UDP(1, 5, "x").Tagged(frame.VLAN{TPID: frame.TypeQinQ, ID: 5})), nil},
		{"QinQ", one(mv4.UDP(1, 6, "x").Tagged(frame.VLAN{TPID: frame.TypeQinQ, ID: 5}, frame.VLAN{ID: 0})), nil},
		{"tagged RA", one(allNodes.Packet(ra).Tagged(frame.VLAN{ID: 0})), nil},
		{"PPPoE", one(frame.Build(mv4.Ethernet(), frame.PPPoE{Session: 1}, mv4.IP(), frame.UDP{SrcPort: 1, DstPort: 7})), nil},
		{"SNAP", one(frame.Build(mv4.Ethernet(), frame.LLC{DSAP: 0xaa, SSAP: 0xaa, Control: 3}, frame.Payload(append([]byte{0, 0, 0, 8, 0}, spoof(mv4, q).UDP(1, 8, "x").Body()...)))), nil},
		{"length in place of a type", one(mv4.UDP(1, 9, "x").With(12, 0, 50)), nil},
		{"BPDU", one(frame.BPDU(m.MAC())), nil},
		{"LLDP", one(frame.LLDP(m.MAC())), nil},
		{"IP to a bridge's reserved group", one(mv4.UDP(1, 10, "x").To(frame.STPGroupMAC)), nil},
		{"IPv4 that says IPv6", one(mv4.UDP(1, 11, "x").With(12, 0x86, 0xdd)), nil},
		{"IPv6 that says IPv4", one(mv6.UDP(1, 12, "x").With(12, 8, 0)), nil},

		// Sources.
		{"source of another", one(spoof(mv4, q).UDP(1, 13, "x")), nil},
		{"MAC of another", one(mv4.UDP(1, 14, "x").From(q.MAC())), nil},
		{"source 0.0.0.0", one(frame.Flow{SrcMAC: m.MAC(), DstMAC: v.MAC(), Src: netip.IPv4Unspecified(), Dst: v.Addr(core.IPv4)}.UDP(68, 67, "x")), nil},
		{"discover in another's name", one(frame.DHCPDiscover(q.MAC()).From(q.MAC())), nil},
		{"source of the host", one(frame.Flow{SrcMAC: m.MAC(), DstMAC: v.MAC(), Src: netip.MustParseAddr("10.0.0.254"), Dst: v.Addr(core.IPv4)}.UDP(1, 15, "x")), nil},
		{"later fragment of another", one(spoof(mv4, q).UDP(1, 16, "0123456789abcdef").Fragment(8, 8, false, 7)), nil},
		{"lone later fragment", one(mv4.UDP(1, 17, "0123456789abcdef").Fragment(8, 8, false, 8)), nil},
		{"header shorter than a header", one(mv4.UDP(1, 18, "x").With(14, 0x44)), nil},
		{"header longer than the packet", one(mv4.UDP(1, 19, "x").With(14, 0x4f)), nil},
		{"options that hide the ports", one(frame.Build(mq4.Ethernet(), frame.IPv4{Src: mq4.Src, Dst: mq4.Dst, Options: []byte{7, 7, 4, 0, 0, 0, 0}}, frame.UDP{SrcPort: 67, DstPort: 68})), nil},
		{"source route through the host", one(frame.Build(frame.Ethernet{Src: m.MAC(), Dst: bridgeMAC},
			frame.IPv4{Src: m.Addr(core.IPv4), Dst: netip.MustParseAddr("10.0.0.254"), Options: append([]byte{131, 7, 4}, q.Addr(core.IPv4).AsSlice()...)},
			frame.UDP{SrcPort: 1, DstPort: 20})), []string{"host"}},
		{"DHCP answer behind options", one(frame.Build(mv4.Ethernet(), options(7, 7, 4, 0, 0, 0, 0), frame.UDP{SrcPort: 67, DstPort: 68})), nil},

		// DHCP servers.
		{"offer", one(offer.DHCPOffer(v.MAC(), netip.MustParseAddr("10.0.0.99"))), nil},
		{"offer from another port", one(offer.UDP(1067, 68, "x")), nil},
		{"offer in a flow opened for it", []shot{
			{h, hm4.UDP(68, 67, "open").To(up.MAC())},
			{m, toAll(hm4.Reverse()).UDP(67, 68, "offer in a flow")},
		}, nil},

		// Destinations.
		{"another's address at a MAC", one(mq4.UDP(1, 21, "x").To(v.MAC())), nil},
		{"a group's address at a MAC", one(frame.Multicast(m.MAC(), mv4.Src, netip.MustParseAddr("224.0.0.1")).UDP(1, 22, "x").To(v.MAC())), nil},
		{"a MAC at the host's address", one(frame.Flow{SrcMAC: m.MAC(), DstMAC: q.MAC(), Src: mq4.Src, Dst: netip.MustParseAddr("10.0.0.254")}.UDP(1, 23, "x")), nil},
		{"through the host", one(mq4.UDP(1, 24, "x").To(bridgeMAC)), []string{"host", "mallory"}},
		{"through the host, IPv6", one(mq6.UDP(1, 24, "x").To(bridgeMAC)), []string{"host", "mallory"}},
		{"protocol 0", one(mq4.IPProtocol(0, "x")), nil},
		{"protocol 255", one(mq4.IPProtocol(255, "x")), nil},
		{"no next header", one(mq6.IPProtocol(59, "x")), nil},
		{"mobility header", one(mq6.IPProtocol(135, "xxxxxxxx")), nil},

		// Flows.
		{"stray SYN+ACK", one(mq4.TCP(frame.TCP{SrcPort: 80, DstPort: 1000, Seq: 1, Ack: 1, Flags: frame.SYN | frame.ACK}, "")), nil},
		{"stray ACK", one(mq4.TCP(frame.TCP{SrcPort: 80, DstPort: 1001, Seq: 1, Ack: 1, Flags: frame.ACK}, "")), nil},
		{"no flags", one(mq4.TCP(frame.TCP{SrcPort: 80, DstPort: 1002}, "")), nil},
		{"all flags", one(mq4.TCP(frame.TCP{SrcPort: 80, DstPort: 1003, Flags: 255}, "")), nil},
		{"stray echo reply", one(mq4.EchoReply(1, 1, "x")), nil},
		{"stray error", one(mq4.Error(frame.ICMP{Type: 3, Code: 4, Rest: 600}, mq4.Reverse().UDP(5, 6, "x"))), nil},
		{"stray error, IPv6", one(mq6.Error(frame.ICMPv6{Type: 2, Rest: 600}, mq6.Reverse().UDP(5, 6, "x"))), nil},
		{"error about a stranger's flow", []shot{
			{h, a.flow(h, v, core.IPv4).UDP(7, 8, "open")},
			{m, mv4.Error(frame.ICMP{Type: 3, Code: 4, Rest: 600}, a.flow(v, h, core.IPv4).UDP(8, 7, "x"))},
		}, nil},
		{"error about a stranger's flow, IPv6", []shot{
			{h, a.flow(h, v, core.IPv6).UDP(7, 8, "open")},
			{m, mv6.Error(frame.ICMPv6{Type: 2, Rest: 600}, a.flow(v, h, core.IPv6).UDP(8, 7, "x"))},
		}, nil},
		{"a flow's packets to everybody", []shot{
			{h, hm6.UDP(12, 12, "open")},
			{m, hm6.Reverse().UDP(12, 12, "answer")},
			{q, frame.Flow{SrcMAC: q.MAC(), DstMAC: core.BroadcastMAC, Src: q.Addr(core.IPv4), Dst: m.Addr(core.IPv4)}.UDP(12, 12, "x")},
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := a.seen(t, c.shots...)
			got = slices.DeleteFunc(got, func(s string) bool { return slices.Contains(c.at, s) })
			if len(got) > 0 {
				t.Errorf("got through to %v", got)
			}
		})
	}
	for _, name := range []string{"victim"} { // the first control must have got through
		if got := a.seen(t, shot{m, mv4.UDP(99, 99, "control")}); !cmp.Equal(got, []string{name}) {
			t.Errorf("the control packet arrived at %v", got)
		}
	}
}

// sweep revokes the flows that no rule allows, as the engine does.
func (a *arena) sweep(t *testing.T) (revoked int) {
	t.Helper()
	flows := labtest.Must(a.backend.Flows(t.Context()))(t)
	revoke, restore := policy.StaleFlows(a.ruleset(t), flows)
	return labtest.Must(a.backend.RevokeFlows(t.Context(), revoke, restore))(t)
}

// TestFlowOpenedPastItsEnd: a flow whose first packet went out by the uplink was
// never asked for at its end, which is no end of it then. A sweep finds it too.
func TestFlowOpenedPastItsEnd(t *testing.T) {
	a := newArena(t)
	flow := a.flow(a.mallory, a.quiet, core.IPv4)
	a.seen(t, shot{a.mallory, flow.UDP(9, 9, "open").To(a.fabric.MAC())})
	if at := a.seen(t, shot{a.quiet, flow.Reverse().UDP(9, 9, "as if it answered")}); at != nil {
		t.Errorf("the answer arrived at %v", at)
	}
	if n := a.sweep(t); n != 1 {
		t.Errorf("%d flows revoked, want 1", n)
	}
}

// TestTranslatedFlowRevoked: the host forwards a port of its own to a VM. The
// flow's first packet does not name the VM, and is its all the same.
func TestTranslatedFlowRevoked(t *testing.T) {
	a := newArena(t)
	labtest.Check(t, a.Do(func() error {
		return exec.Command("nft", "table ip nat { chain pre { type nat hook prerouting priority dstnat; ip daddr 192.0.2.9 udp dport 53 dnat to "+
			a.victim.Addr(core.IPv4).String()+":5353; }; }").Run()
	}))
	bridgeMAC := mac(t, "02:00:00:00:00:fe")
	in := frame.Flow{SrcMAC: a.fabric.MAC(), DstMAC: bridgeMAC, Src: a.fabric.Addr(core.IPv4), Dst: netip.MustParseAddr("192.0.2.9")}
	out := frame.Flow{SrcMAC: a.victim.MAC(), DstMAC: bridgeMAC, Src: a.victim.Addr(core.IPv4), Dst: a.fabric.Addr(core.IPv4)}
	hears := func(token string) bool {
		got := labtest.Send(t, a.watch, lab.Probe{Name: token, From: a.fabric, Frame: in.UDP(1000, 53, token), Match: lab.HasToken(token)})
		return got[0].At(a.victim)
	}
	if !hears("question") {
		t.Fatal("the forwarded port is not reached")
	}
	a.seen(t, shot{a.victim, out.UDP(5353, 1000, "answer")})
	a.input.Groups[0].Rules = nil
	a.sync(t)
	if n := a.sweep(t); n != 1 {
		t.Errorf("%d flows revoked, want 1", n)
	}
	if hears("again") {
		t.Error("the flow goes on after the rule went")
	}
	a.input.Groups[0].Rules = []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolUDP,
		Ports: []core.Span{{First: 5353, Last: 5353}}, Peers: &core.Peers{CIDRs: anywhere}}}
	a.sync(t)
	if n := a.sweep(t); n != 1 || !hears("restored") {
		t.Errorf("%d flows restored, want 1 that goes on", n)
	}
}

// TestTranslatedSource: the host routes to a VM in its own name. The VM's port
// sees that name alone, and so does a revocation.
func TestTranslatedSource(t *testing.T) {
	a := newArena(t)
	labtest.Check(t, a.Do(func() error {
		return exec.Command("nft", "table ip nat { chain post { type nat hook postrouting priority srcnat; ip saddr "+
			a.fabric.Addr(core.IPv4).String()+" udp dport 53 masquerade; }; }").Run()
	}))
	in := frame.Flow{SrcMAC: a.fabric.MAC(), DstMAC: mac(t, "02:00:00:00:00:fe"), Src: a.fabric.Addr(core.IPv4), Dst: a.victim.Addr(core.IPv4)}
	hears := func(token string) bool {
		got := labtest.Send(t, a.watch, lab.Probe{Name: token, From: a.fabric, Frame: in.UDP(1000, 53, token), Match: lab.HasToken(token)})
		return got[0].At(a.victim)
	}
	from := func(who string) {
		a.input.Groups[0].Rules = []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolUDP,
			Ports: []core.Span{{First: 53, Last: 53}}, Peers: &core.Peers{CIDRs: []netip.Prefix{netip.MustParsePrefix(who)}}}}
		a.sync(t)
	}
	from("10.0.0.254/32") // the host
	if !hears("as the host") {
		t.Fatal("the VM is not reached in the host's name")
	}
	if n := a.sweep(t); n != 0 {
		t.Errorf("%d flows revoked, want none", n)
	}
	from(a.fabric.Addr(core.IPv4).String() + "/32")
	if n := a.sweep(t); n != 1 || hears("as itself") {
		t.Errorf("%d flows revoked, want 1 that stands still", n)
	}
}

// TestLostTablesAreDrift: a change of the links that does not fit what somebody
// has done to the tables must not leave the backend content.
func TestLostTablesAreDrift(t *testing.T) {
	a := newArena(t)
	labtest.Check(t, a.Do(func() error { return exec.Command("nft", "delete table ip ringwall").Run() }))
	a.AddBridge(lab.BridgeSpec{Name: "br1"})
	deadline := time.Now().Add(5 * time.Second)
	for lost := false; !lost; {
		a.backend.mu.Lock()
		lost = a.backend.enforced == nil
		a.backend.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("the new bridge was not followed")
		}
		time.Sleep(time.Millisecond)
	}
	if o := labtest.Must(a.backend.Observe(t.Context()))(t); len(o.Drift) == 0 {
		t.Error("no drift is reported")
	}
	a.sync(t)
	if o := labtest.Must(a.backend.Observe(t.Context()))(t); len(o.Drift) > 0 {
		t.Errorf("after Sync: %+v", o.Drift)
	}
}

// TestGuardFollowsDevice: a device that is made anew under its name, or late, and
// whatever its name is, has the guard for reserved groups again.
func TestGuardFollowsDevice(t *testing.T) {
	a := newArena(t)
	m := core.MAC{2, 0, 0, 0, 0, 0x77}
	a.input.VMs = append(a.input.VMs, core.VM{Key: "late", Name: "late", NICs: []core.NIC{{MAC: m, Groups: []string{"loose"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.77")}, Binding: core.Binding{Bridge: "br0", Devices: []string{"oddly0"}}}}})
	a.sync(t)
	late := a.AddStation(lab.StationSpec{Name: "late", Mute: true, Ports: []lab.PortSpec{{Bridge: "br0", Device: "oddly0", MAC: m}}})
	a.guarded(t, "oddly0")
	for range 3 {
		labtest.Check(t, late.Stop())
		labtest.Check(t, late.Start())
		a.guarded(t, "oddly0")
	}
}

// guarded waits until frames to a reserved group are counted at a device.
func (a *arena) guarded(t *testing.T, device string) {
	t.Helper()
	var out []byte
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		labtest.Check(t, a.Do(func() (err error) {
			out, err = exec.Command("nft", "list", "table", "netdev", "ringwall").CombinedOutput()
			return err
		}))
		if bytes.Contains(out, []byte(device)) {
			return
		}
	}
	t.Errorf("%s is not guarded: %s", device, out)
}

// TestNestedPairs: pairs may nest, with whatever MACs and on whatever NICs, and
// changes may come in any order.
func TestNestedPairs(t *testing.T) {
	a := newArena(t)
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	pair := func(p string, m core.MAC) core.AddressPair {
		return core.AddressPair{Prefix: netip.MustParsePrefix(p), MAC: m}
	}
	apply := func(mallory, helper []core.AddressPair) {
		t.Helper()
		before := a.ruleset(t)
		a.input.VMs[0].NICs[0].Pairs, a.input.VMs[1].NICs[0].Pairs = mallory, helper
		after := a.ruleset(t)
		if err := a.backend.Apply(t.Context(), policy.Diff(policy.Version(before), policy.Version(after))); err != nil {
			t.Errorf("mallory %v, helper %v: %v", mallory, helper, err)
			a.sync(t)
		}
		if o := labtest.Must(a.backend.Observe(t.Context()))(t); len(o.Drift) > 0 {
			t.Errorf("mallory %v, helper %v: %+v", mallory, helper, o.Drift)
		}
	}
	none := core.MAC{}
	apply([]core.AddressPair{pair("::/0", none), pair("0.0.0.0/0", none)}, nil)
	apply([]core.AddressPair{pair("fd00::/64", none), pair("fd00::/80", virtual)}, nil)
	apply([]core.AddressPair{pair("fd00::/64", virtual), pair("fd00::/80", none), pair("fd00::5/128", none)}, nil)
	wide, narrow := []core.AddressPair{pair("10.1.0.0/16", virtual)}, []core.AddressPair{pair("10.1.1.0/24", virtual)}
	apply(wide, nil)
	apply(wide, narrow)
	apply(nil, narrow)
	apply(wide, narrow)
	apply(wide, wide)
	apply(narrow, wide)
	apply(nil, nil)
}
