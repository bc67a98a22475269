package policytest

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"pgregory.net/rapid"
)

// Passage is a frame from one port to another.
type Passage struct {
	Frame    policy.Frame
	From, To policy.Port
}

// OutsideMAC and its addresses are a machine behind the uplink.
var (
	OutsideMAC = core.MAC{0x02, 0, 0, 0, 0xee, 0x01}
	outside4   = addrs("10.0.0.200", "192.0.2.1", "10.0.0.9", "10.9.0.9", "172.16.0.1")
	outside6   = addrs("fd00::200", "2001:db8::1", "fd00::f", "fd00:9::9")
	groups4    = addrs("255.255.255.255", "10.0.0.255", "224.0.0.1", "224.0.0.18")
	groups6    = addrs("ff02::1", "ff02::2", "ff02::16", "ff02::1:2", "ff02::1:ff00:10")
)

func addrs(ss ...string) []netip.Addr {
	var as []netip.Addr
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// Ports lists the world's NICs, sorted, and one of each other kind.
func (w World) Ports() []policy.Port {
	ps := w.NICPorts()
	return append(ps, policy.Closed, policy.Uplink, policy.Host, policy.Routed)
}

// NICPorts lists the world's NICs, sorted.
func (w World) NICPorts() []policy.Port {
	var ps []policy.Port
	keys := slices.SortedFunc(maps.Keys(w.Ruleset.NICs), func(a, b core.NICKey) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	for _, k := range keys {
		ps = append(ps, policy.AtNIC(k))
	}
	return ps
}

// States draws what conntrack may say, mostly new.
func States() *rapid.Generator[policy.State] {
	return rapid.SampledFrom([]policy.State{policy.StateNew, policy.StateNew, policy.StateNew, policy.StateEstablished,
		policy.StateRelated, policy.StateInvalid, policy.StateUntracked, policy.StateRevoked, policy.StateUnfiltered})
}

// Passages draws frames of every kind between two different ports of which one
// at least is a NIC's: most of them honest and well addressed, some off by one
// field.
func (w World) Passages() *rapid.Generator[Passage] {
	return rapid.Custom(func(t *rapid.T) Passage {
		nics := w.NICPorts()
		p := Passage{From: rapid.SampledFrom(nics).Draw(t, "from")}
		p.To = rapid.SampledFrom(w.peersOf(p.From)).Draw(t, "to")
		if rapid.Bool().Draw(t, "turn round") {
			p.From, p.To = p.To, p.From
		}
		p.Frame = w.frame(t, p.From, p.To)
		return p
	})
}

// peersOf lists the ports that share a bridge with a NIC, and the host.
func (w World) peersOf(nic policy.Port) []policy.Port {
	ps := []policy.Port{policy.Uplink, policy.Uplink, policy.Host, policy.Routed, policy.Closed}
	for _, o := range w.NICPorts() {
		if o != nic && w.Ruleset.NICs[o.NIC].Bridge == w.Ruleset.NICs[nic.NIC].Bridge {
			ps = append(ps, o, o)
		}
	}
	return ps
}

// end draws a MAC and an address that belong together at a port; hasty ones
// are somebody else's.
func (w World) end(t *rapid.T, p policy.Port, f core.Family) (core.MAC, netip.Addr) {
	n, ok := w.Ruleset.NICs[p.NIC]
	outside := map[core.Family][]netip.Addr{core.IPv4: outside4, core.IPv6: slices.Concat(outside6, []netip.Addr{OutsideMAC.LinkLocal()})}[f]
	if !ok || p.Kind != policy.PortNIC {
		return OutsideMAC, rapid.SampledFrom(outside).Draw(t, "outside address")
	}
	type end struct {
		mac  core.MAC
		addr netip.Addr
	}
	var own []end
	for _, a := range n.Addresses {
		if core.FamilyOf(a) == f {
			own = append(own, end{n.Key.MAC, a}, end{n.Key.MAC, a}, end{n.Key.MAC, a})
		}
	}
	for _, pair := range n.Pairs {
		if core.FamilyOf(pair.Prefix.Addr()) == f {
			m := pair.MAC
			if m == (core.MAC{}) {
				m = n.Key.MAC
			}
			own = append(own, end{m, pair.Prefix.Addr()}, end{m, pair.Prefix.Addr().Next()})
		}
	}
	if f == core.IPv6 {
		own = append(own, end{n.Key.MAC, n.Key.MAC.LinkLocal()}, end{VRRPMAC, VRRPMAC.LinkLocal()})
	}
	own = append(own, end{n.Key.MAC, rapid.SampledFrom(outside).Draw(t, "foreign address")})
	e := rapid.SampledFrom(own).Draw(t, "end")
	if rapid.IntRange(0, 11).Draw(t, "foreign MAC") == 0 {
		e.mac = rapid.SampledFrom([]core.MAC{OutsideMAC, VRRPMAC, NICMAC(0, 0), NICMAC(0, 1)}).Draw(t, "MAC")
	}
	return e.mac, e.addr
}

func (w World) family(t *rapid.T) core.Family {
	if w.Shape.can(core.FeatureIPv6) && rapid.Bool().Draw(t, "ipv6") {
		return core.IPv6
	}
	return core.IPv4
}

func (w World) frame(t *rapid.T, from, to policy.Port) policy.Frame {
	var f policy.Frame
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0:
		f = w.arp(t, from, to)
	case 1, 2:
		f = w.control(t, from, to)
	case 3:
		f = w.oddity(t, from)
	case 4, 5:
		f = w.packet(t, from, to)
	default:
		f = w.aimed(t, from, to)
	}
	if rapid.IntRange(0, 19).Draw(t, "tagged") == 0 {
		f = f.Tagged(rapid.SampledFrom([]uint16{0, 1, 100}).Draw(t, "vid"))
	}
	return f
}

// Path draws the ends of a packet, to a group now and then.
func (w World) path(t *rapid.T, f core.Family, from, to policy.Port) policy.Path {
	var p policy.Path
	p.SrcMAC, p.Src = w.end(t, from, f)
	p.DstMAC, p.Dst = w.end(t, to, f)
	if rapid.IntRange(0, 9).Draw(t, "to a group") == 0 {
		p.Dst = rapid.SampledFrom(map[core.Family][]netip.Addr{core.IPv4: groups4, core.IPv6: groups6}[f]).Draw(t, "group")
		p.DstMAC = policy.GroupMAC(p.Dst)
	}
	return p
}

// port draws a destination port: an edge of a rule, or one beside it.
func (w World) port(t *rapid.T) uint16 {
	return rapid.SampledFrom(edgePorts).Draw(t, "port") + rapid.SampledFrom([]uint16{0, 0, 0, 1, 65535}).Draw(t, "off by")
}

func (w World) packet(t *rapid.T, from, to policy.Port) policy.Frame {
	p := w.path(t, w.family(t), from, to)
	src := rapid.SampledFrom([]uint16{1000, 40000, 53, 67, 547}).Draw(t, "source port")
	switch rapid.IntRange(0, 7).Draw(t, "transport") {
	case 0, 1, 2:
		return p.TCP(src, w.port(t), rapid.SampledFrom([]policy.TCPFlags{policy.SYN, policy.SYN, policy.ACK, policy.SYN | policy.ACK,
			policy.FIN | policy.ACK, policy.RST, 0}).Draw(t, "flags"))
	case 3, 4:
		return p.UDP(src, w.port(t))
	case 5:
		return p.SCTP(src, w.port(t))
	case 6:
		return p.Raw(rapid.SampledFrom([]core.Protocol{core.ProtocolIGMP, 47, 50}).Draw(t, "protocol"))
	}
	if p.Src.Is4() {
		return p.Packet(policy.ICMP{Type: rapid.SampledFrom([]uint8{policy.ICMPEcho, policy.ICMPEcho, policy.ICMPEchoReply, policy.ICMPTimestamp, 9}).Draw(t, "type"), ID: 7})
	}
	return p.Packet(policy.ICMPv6{Type: rapid.SampledFrom([]uint8{policy.ICMPv6Echo, policy.ICMPv6Echo, policy.ICMPv6EchoReply, policy.ICMPv6NodeQuery, 200}).Draw(t, "type"), ID: 7})
}

func (w World) arp(t *rapid.T, from, to policy.Port) policy.Frame {
	mac, ip := w.end(t, from, core.IPv4)
	dst, target := w.end(t, to, core.IPv4)
	switch rapid.IntRange(0, 4).Draw(t, "arp") {
	case 0:
		return policy.ARPRequest(mac, ip, target)
	case 1:
		return policy.ARPProbe(mac, ip)
	case 2:
		return policy.GratuitousARP(mac, ip)
	case 3:
		f := policy.ARPRequest(mac, ip, target)
		f.ARP.SenderMAC = dst
		return f
	}
	return policy.Path{SrcMAC: mac, DstMAC: dst, Src: ip, Dst: target}.ARPReply()
}

// control draws ND, MLD and DHCP, honest and not.
func (w World) control(t *rapid.T, from, to policy.Port) policy.Frame {
	if w.family(t) == core.IPv4 {
		p := w.path(t, core.IPv4, from, to)
		mac, _ := w.end(t, from, core.IPv4)
		switch rapid.IntRange(0, 4).Draw(t, "dhcp") {
		case 0:
			return policy.DHCPDiscover(mac)
		case 1:
			return policy.Multicast(mac, netip.IPv4Unspecified(), policy.Broadcast).UDP(1000, 67)
		case 2:
			return p.UDP(67, 68)
		case 3:
			return policy.Multicast(p.SrcMAC, p.Src, policy.Broadcast).UDP(67, 68)
		}
		return p.UDP(68, 67)
	}
	mac, ip := w.end(t, from, core.IPv6)
	dst, target := w.end(t, to, core.IPv6)
	p := policy.Path{SrcMAC: mac, DstMAC: dst, Src: ip, Dst: target}
	frames := []policy.Frame{
		policy.DAD(mac, ip), policy.DAD(mac, target), policy.DAD(mac, mac.LinkLocal()),
		policy.Solicitation(mac, ip, target), p.Advertisement(ip), p.Advertisement(target),
		policy.RouterSolicitation(mac, ip), policy.RouterAdvertisement(mac, ip), p.Redirect(target),
		policy.MLDReport(mac, ip), policy.MLDReport(mac, netip.IPv6Unspecified()),
		policy.Multicast(mac, ip, policy.AllNodes).Packet(policy.ICMPv6{Type: policy.ICMPv6MLDQuery}),
		policy.DHCPv6Solicit(mac, ip), policy.DHCPv6Solicit(mac, mac.LinkLocal()), p.UDP(547, 546), p.UDP(546, 547),
	}
	f := rapid.SampledFrom(frames).Draw(t, "control")
	if rapid.IntRange(0, 7).Draw(t, "hops") == 0 {
		f = f.WithHopLimit(64)
	}
	return f
}

// oddity draws what no VM should send.
func (w World) oddity(t *rapid.T, from policy.Port) policy.Frame {
	mac, _ := w.end(t, from, core.IPv4)
	rarp := policy.RARPAnnouncement(mac)
	rarp.ARP.TargetIP = outside4[0]
	return rapid.SampledFrom([]policy.Frame{
		policy.RARPAnnouncement(mac), rarp,
		policy.Other(mac, core.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, policy.TypeLLDP),
		policy.Other(mac, core.MAC{0x01, 0x80, 0xc2, 0, 0, 0}, 38),
		policy.Other(mac, core.BroadcastMAC, 0x88b5),
		policy.Other(mac, OutsideMAC, 0x8864),
	}).Draw(t, "oddity")
}
