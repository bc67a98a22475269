package scenarios

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// A second bridge, with VM r on it, for what the host routes.
var (
	r4, r6 = netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("fd01::3")
	host4  = netip.MustParseAddr("10.0.0.254")
	host6  = netip.MustParseAddr("fd00::fe")
)

// routedWorld has a and b on br0, r on br1 and x behind the host, which routes
// between them all. a and b have no rules, r has the given ones.
func routedWorld(rules ...core.Rule) World {
	w := pair()
	r := nic(macC, "vnet2", []string{"gr"}, r4, r6)
	r.Binding.Bridge = "br1"
	w.VMs = append(w.VMs, vm("r", r))
	w.Groups = append(w.Groups, core.Group{Name: "gr", Rules: rules})
	w.Bridges = map[string][]netip.Prefix{"br0": prefixes("10.0.0.254/24", "fd00::fe/64"), "br1": prefixes("10.1.0.254/24", "fd01::fe/64")}
	w.Devices = map[string][]string{"br0": {"vnet7"}}
	w.Routed = true
	return w
}

// far are the paths of routed traffic in a family: to the router, and what
// comes from it.
type far struct {
	ends
	r, x, host         netip.Addr
	ar, ra, ax, xa     policy.Path
	ab, bx, xb, xu, ux policy.Path
	xc                 policy.Path // to the address behind a closed port
	ha, ah, hc         policy.Path // the host itself, and its way to the closed port
}

func fars() []far {
	var out []far
	for i, e := range families() {
		f := far{ends: e, r: []netip.Addr{r4, r6}[i], x: []netip.Addr{x4, x6}[i], host: []netip.Addr{host4, host6}[i]}
		gw0, gw1 := Router(0), Router(1)
		p := func(sm, dm core.MAC, s, d netip.Addr) policy.Path {
			return policy.Path{SrcMAC: sm, DstMAC: dm, Src: s, Dst: d}
		}
		f.ar, f.ra = p(macA, gw0, e.a, f.r), p(macC, gw1, f.r, e.a)
		f.ax, f.xa = p(macA, gw0, e.a, f.x), p(MACX, HostMACX, f.x, e.a)
		f.ab, f.bx, f.xb = p(macA, gw0, e.a, e.b), p(macB, gw0, e.b, f.x), p(MACX, HostMACX, f.x, e.b)
		f.xu, f.ux = p(MACX, HostMACX, f.x, e.u), p(macU, gw0, e.u, f.x)
		f.xc = p(MACX, HostMACX, f.x, e.c)
		f.ha, f.ah, f.hc = p(gw0, macA, f.host, e.a), p(macA, gw0, e.a, f.host), p(gw0, macC, f.host, e.c)
		out = append(out, f)
	}
	return out
}

// Routed shows traffic that the host routes, and its own.
func Routed() []Scenario {
	var out []Scenario
	web := allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)
	query := allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)
	shut := allow(core.Egress, core.ProtocolTCP, ports(1, 1), cidrs("203.0.113.1/32", "2001:db8::1/128"))
	synack := policy.SYN | policy.ACK
	for _, f := range fars() {
		n := f.family.String()
		out = append(out,
			Scenario{
				Name: "routed/" + n, Rows: []string{"sender 1", "sender 25", "receiver 1", "receiver 10", "receiver 16", "receiver 17", "Ports routed"},
				World: routedWorld(web),
				Steps: []Step{
					{Name: "in from behind the host", From: "x", To: "vnet0", Frame: f.xa.UDP(1, 4000), Reason: core.ReasonIngressRules},
					{Name: "out", From: "vnet0", To: "x", Frame: f.ax.UDP(2, 53), Want: true, Reason: core.ReasonDefault},
					{Name: "its answer", From: "x", To: "vnet0", Frame: f.xa.UDP(53, 2), Want: true, Reason: core.ReasonEstablished},
					{Name: "and on", From: "vnet0", To: "x", Frame: f.ax.UDP(2, 53), Want: true, Reason: core.ReasonEstablished},
					{Name: "an answer to nothing", From: "x", To: "vnet0", Frame: f.xa.UDP(53, 3), Reason: core.ReasonIngressRules},
					{Name: "bridge to bridge", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(10, 80), Want: true, Reason: core.ReasonRule},
					{Name: "its answer", From: "vnet2", To: "vnet0", Frame: f.ra.TCP(80, 10, synack), Want: true, Reason: core.ReasonEstablished},
					{Name: "bridge to bridge, by no rule", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(11, 81), Reason: core.ReasonIngressRules},
					{Name: "back, by no rule", From: "vnet2", To: "vnet0", Frame: f.ra.SYN(12, 80), Reason: core.ReasonIngressRules},
					{Name: "round the host to the same bridge", From: "vnet0", To: "vnet1", Frame: f.ab.SYN(13, 80), Reason: core.ReasonIngressRules},
					{Name: "with a neighbour's address", From: "vnet0", To: "x", Frame: spoofed(f.ax.UDP(4, 53), f.b), Reason: core.ReasonIPSpoof},
					{Name: "with the outside's address", From: "vnet0", To: "vnet2", Frame: spoofed(f.ar.SYN(14, 80), f.x), Reason: core.ReasonIPSpoof},
					{Name: "to a closed port", From: "x", To: "vnet7", Frame: f.xc.UDP(5, 53), Reason: core.ReasonClosedPort},
					{Name: "neither end a VM", From: "x", To: "uplink", Frame: f.xu.UDP(6, 7), Want: true},
					{Name: "nor back", From: "uplink", To: "x", Frame: f.ux.UDP(8, 7), Want: true},
				},
			},
			Scenario{
				Name: "routed with egress rules/" + n, Rows: []string{"sender 24", "sender 26", "receiver 16"},
				World: with(routedWorld(web, query), func(w *World) {
					w.Groups[0].Rules = []core.Rule{allow(core.Egress, core.ProtocolTCP, ports(80, 81), cidrs("10.1.0.0/16", "fd01::/16"))}
				}),
				Steps: []Step{
					{Name: "both agree", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(1, 80), Want: true},
					{Name: "the receiver does not", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(2, 81), Reason: core.ReasonIngressRules},
					{Name: "the sender does not", From: "vnet0", To: "vnet2", Frame: f.ar.UDP(3, 53), Reason: core.ReasonEgressRules},
					{Name: "to nobody's VM", From: "vnet0", To: "x", Frame: f.ax.SYN(4, 80), Reason: core.ReasonEgressRules},
				},
			},
			Scenario{
				Name: "routed flows are revoked/" + n, Rows: []string{"sender 14", "receiver 9", "Flows 1"}, Needs: []core.Feature{core.FeatureFlows},
				World: routedWorld(web, query),
				Steps: []Step{
					{Name: "syn", From: "vnet0", To: "vnet2", Frame: f.ar.SYN(10, 80), Want: true},
					{Name: "synack", From: "vnet2", To: "vnet0", Frame: f.ra.TCP(80, 10, synack), Want: true},
					{Name: "ack", From: "vnet0", To: "vnet2", Frame: f.ar.TCP(10, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "out", From: "vnet0", To: "x", Frame: f.ax.UDP(2, 53), Want: true},
					{Name: "its answer", From: "x", To: "vnet0", Frame: f.xa.UDP(53, 2), Want: true},
					{Name: "the rules of r go", Change: func(w *World) { w.Groups[2].Rules = nil }},
					{Name: "the server goes on", From: "vnet2", To: "vnet0", Frame: f.ra.TCP(80, 10, policy.ACK), Reason: core.ReasonRevoked},
					{Name: "the client goes on", From: "vnet0", To: "vnet2", Frame: f.ar.TCP(10, 80, policy.ACK), Reason: core.ReasonRevoked},
					{Name: "the other flow lives", From: "x", To: "vnet0", Frame: f.xa.UDP(53, 2), Want: true, Reason: core.ReasonEstablished},
					{Name: "a's egress is shut", Change: func(w *World) { w.Groups[0].Rules = []core.Rule{shut} }},
					{Name: "now it is dead", From: "x", To: "vnet0", Frame: f.xa.UDP(53, 2), Reason: core.ReasonRevoked},
					{Name: "both ways", From: "vnet0", To: "x", Frame: f.ax.UDP(2, 53), Reason: core.ReasonRevoked},
					{Name: "all is given back", Change: func(w *World) { w.Groups[0].Rules, w.Groups[2].Rules = nil, []core.Rule{web} }},
					{Name: "the client is heard again", From: "vnet0", To: "vnet2", Frame: f.ar.TCP(10, 80, policy.ACK), Want: true},
					{Name: "and the server", From: "vnet2", To: "vnet0", Frame: f.ra.TCP(80, 10, policy.ACK), Want: true},
					{Name: "and outside", From: "vnet0", To: "x", Frame: f.ax.UDP(2, 53), Want: true},
				},
			},
			Scenario{
				Name: "errors about routed flows/" + n, Rows: []string{"sender 16", "receiver 10"},
				World: routedWorld(query),
				Steps: []Step{
					{Name: "query", From: "vnet0", To: "vnet2", Frame: f.ar.UDP(1000, 53), Want: true},
					{Name: "answer", From: "vnet2", To: "vnet0", Frame: f.ra.UDP(53, 1000), Want: true},
					{Name: "the end complains", From: "vnet2", To: "vnet0", Frame: f.ra.Unreachable(f.ar.UDP(1000, 53)), Want: true, Reason: core.ReasonRelated},
					{Name: "a stranger forges it", From: "vnet1", To: "vnet0", Frame: from(f.ab.Reverse().TooBig(f.ar.UDP(1000, 53)), macB, Router(0)), Reason: core.ReasonNotOwner},
					{Name: "the outside may be the router", From: "x", To: "vnet0", Frame: f.xa.TooBig(f.ar.UDP(1000, 53)), Want: true, Reason: core.ReasonRelated},
					{Name: "about nothing", From: "x", To: "vnet0", Frame: f.xa.TooBig(f.ar.UDP(1001, 53)), Reason: core.ReasonInvalid},
				},
			},
			Scenario{
				Name: "routed fragments/" + n, Rows: []string{"sender 12", "Rules and families 6"}, World: routedWorld(),
				Steps: []Step{
					{Name: "out", From: "vnet0", To: "x", Fragments: f.ax.UDP(3, 99).Fragments(13, 64, 160), Want: true},
					{Name: "in by no rule", From: "x", To: "vnet0", Fragments: f.xa.UDP(4, 99).Fragments(14, 64, 160)},
					{Name: "answer", From: "x", To: "vnet0", Fragments: f.xa.UDP(99, 3).Fragments(15, 64, 160), Want: true},
					{Name: "forged tail", From: "vnet0", To: "x", Fragments: forgedTail(f.ax.UDP(5, 99).Fragments(16, 64, 160), f.b)},
				},
			},
			Scenario{
				Name: "the host's own traffic/" + n, Rows: []string{"sender 1", "receiver 2", "receiver 4", "Ports host", "Flows 3"},
				World: with(routedWorld(), func(w *World) { w.Groups[0].Rules = []core.Rule{shut} }),
				Steps: []Step{
					{Name: "to a vm", From: "host", To: "vnet0", Frame: f.ha.UDP(1, 2), Want: true, Reason: core.ReasonHost},
					{Name: "its answer", From: "vnet0", To: "host", Frame: f.ah.UDP(2, 1), Want: true, Reason: core.ReasonEstablished},
					{Name: "ping", From: "host", To: "vnet0", Frame: f.ha.Echo(5), Want: true},
					{Name: "pong", From: "vnet0", To: "host", Frame: f.ah.EchoReply(5), Want: true},
					{Name: "unasked", From: "vnet0", To: "host", Frame: f.ah.UDP(2, 3), Reason: core.ReasonEgressRules},
					{Name: "to a closed port", From: "host", To: "vnet7", Frame: f.hc.UDP(1, 2), Reason: core.ReasonClosedPort},
					{Name: "to the outside", From: "host", To: "x", Frame: policy.Path{SrcMAC: HostMACX, DstMAC: MACX, Src: f.host, Dst: f.x}.UDP(1, 2), Want: true},
					{Name: "from another address of its own", From: "host", To: "vnet0", Frame: spoofed(f.ha.UDP(1, 4), map[core.Family]netip.Addr{core.IPv4: hostX[0].Addr(), core.IPv6: hostX[1].Addr()}[f.family]), Want: true, Reason: core.ReasonHost},
				},
			},
		)
	}
	out = append(out, Scenario{
		Name: "the host's frames that are not IP", Rows: []string{"receiver 2", "receiver 4"},
		World: routedWorld(),
		Steps: []Step{
			{Name: "arp to a vm", From: "br0", To: "vnet0", Frame: policy.ARPRequest(Router(0), host4, a4), Want: true, Reason: core.ReasonHost},
			{Name: "arp to a closed port", From: "br0", To: "vnet7", Frame: policy.ARPRequest(Router(0), host4, c4), Reason: core.ReasonClosedPort},
			{Name: "arp from a vm", From: "vnet0", To: "br0", Frame: policy.ARPRequest(macA, a4, host4), Want: true},
			{Name: "arp from a closed port", From: "vnet7", To: "br0", Frame: policy.ARPRequest(macC, c4, host4), Reason: core.ReasonClosedPort},
			{Name: "anything else to a vm", From: "br0", To: "vnet0", Frame: policy.Other(Router(0), macA, 0x88b5), Want: true, Reason: core.ReasonHost},
		},
	})
	return out
}

func from(f policy.Frame, src, dst core.MAC) policy.Frame { return f.From(src).To(dst) }

// with alters a world.
func with(w World, change func(*World)) World {
	w.Groups = slices.Clone(w.Groups)
	change(&w)
	return w
}
