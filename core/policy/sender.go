package policy

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// senderLink are the rows that hold for every frame, fragments too.
var senderLink = []row{
	{1, senderOutside},
	{2, senderClosed},
	{3, senderSystem},
	{4, senderLinkLocalGroup},
	{5, senderTagged},
	{6, senderSelfAnnouncement},
	{7, senderEtherType},
	{8, senderMAC},
	{9, senderARP},
	{10, senderIPv4},
	{11, senderIPv6},
}

// senderDatagram are the rows about IPv4 and IPv6.
var senderDatagram = []row{
	{13, senderUnfiltered},
	{14, senderDead},
	{15, senderEstablished},
	{16, senderRelated},
	{17, senderND},
	{18, senderRouter},
	{19, senderDHCPServer},
	{20, senderDHCPClient},
	{21, senderNDAndMLD},
	{22, senderHomeless},
	{23, senderDNS},
	{24, senderRules},
	{25, senderDefault},
	{26, senderDenied},
}

func judgeSender(rs *core.Ruleset, f Frame, from, to Port, state State) Opinion {
	q := ask(AtSender, rs, f, from, to, state)
	if o := firstOf(senderLink, q); o != nil {
		return *o
	}
	return *firstOf(senderDatagram, q) // the last row always has an opinion
}

func senderOutside(q *question) *Opinion {
	switch q.from.Kind {
	case PortHost:
		return pass(core.ReasonHost)
	case PortUplink, PortRouted:
		return pass(core.ReasonUplink)
	}
	return nil
}

func senderClosed(q *question) *Opinion {
	if q.from.Kind != PortNIC {
		return drop(core.ReasonClosedPort)
	}
	return nil
}

func senderSystem(q *question) *Opinion {
	if q.nic.Kind == core.SystemVM {
		return pass(core.ReasonSystem)
	}
	return nil
}

func senderLinkLocalGroup(q *question) *Opinion {
	if q.frame.Dst.IsBridgeReserved() {
		return drop(core.ReasonLinkLocal)
	}
	return nil
}

func senderTagged(q *question) *Opinion {
	if len(q.frame.Tags) > 0 {
		return drop(core.ReasonVLAN)
	}
	return nil
}

func senderSelfAnnouncement(q *question) *Opinion {
	mac, none := q.nic.Key.MAC, netip.IPv4Unspecified()
	want := ARP{Op: RARPRequestOp, SenderMAC: mac, TargetMAC: mac, SenderIP: none, TargetIP: none}
	if f := q.frame; f.EtherType == TypeRARP && f.ARP != nil && *f.ARP == want && f.Src == mac && f.Dst == core.BroadcastMAC {
		return pass(core.ReasonAlways)
	}
	return nil
}

func senderEtherType(q *question) *Opinion {
	if q.frame.EtherType != TypeARP && !isIP(q.frame) {
		return drop(core.ReasonEtherType)
	}
	return nil
}

func senderMAC(q *question) *Opinion {
	if q.nic.checked() && !q.nic.hasMAC(q.frame.Src) {
		return drop(core.ReasonMACSpoof)
	}
	return nil
}

func senderARP(q *question) *Opinion {
	if q.frame.EtherType != TypeARP {
		return nil
	}
	if q.nic.checked() && !ownARP(q) {
		return drop(core.ReasonARPSpoof)
	}
	return pass(core.ReasonAlways)
}

func ownARP(q *question) bool {
	a := q.frame.ARP
	if a == nil || a.SenderMAC != q.frame.Src {
		return false
	}
	probe := a.Op == ARPRequestOp && a.SenderIP.IsUnspecified()
	return q.nic.hasEnd(a.SenderMAC, a.SenderIP) || probe && q.nic.hasEnd(a.SenderMAC, a.TargetIP)
}

func senderIPv4(q *question) *Opinion {
	f := q.frame
	if f.EtherType != TypeIPv4 || !q.nic.checked() {
		return nil
	}
	if q.family == 0 {
		return drop(core.ReasonIPSpoof)
	}
	if q.nic.hasEnd(f.Src, f.IP.Src) {
		return nil
	}
	u, _ := q.udp()
	switch client := u == (UDP{68, 67}); {
	case !client || !f.IP.Src.IsUnspecified():
		return drop(core.ReasonIPSpoof)
	case f.Src != q.nic.Key.MAC || f.IP.Dst != Broadcast:
		return drop(core.ReasonDHCPGuard)
	}
	return nil
}

func senderIPv6(q *question) *Opinion {
	f := q.frame
	if f.EtherType != TypeIPv6 || !q.nic.checked() {
		return nil
	}
	if q.family == 0 {
		return drop(core.ReasonIPSpoof)
	}
	if q.nic.hasEnd(f.Src, f.IP.Src) || f.IP.Src.IsUnspecified() && fromNobody(q) {
		return nil
	}
	return drop(core.ReasonIPSpoof)
}

// fromNobody: what a host sends before it has an address (RFC 4862, RFC 3810).
func fromNobody(q *question) bool {
	m, _ := q.icmpv6()
	switch m.Type {
	case ICMPv6NeighbourSolicitation:
		return m.Target.Is6() && q.nic.ownAddress(m.Target) && q.frame.IP.Dst == core.SolicitedNode(m.Target)
	case ICMPv6MLDReport, ICMPv6MLDv2Report:
		return true
	}
	return false
}

func senderUnfiltered(q *question) *Opinion {
	if q.state == StateUnfiltered {
		return drop(core.ReasonUnfiltered)
	}
	return nil
}

func senderDead(q *question) *Opinion {
	switch {
	case q.state == StateRevoked:
		return drop(core.ReasonRevoked)
	case q.state == StateInvalid, q.malformed():
		return drop(core.ReasonInvalid)
	}
	return nil
}

func senderEstablished(q *question) *Opinion {
	if (q.state == StateEstablished || q.state == StateAstray) && !q.homeless() && !q.frame.Dst.IsGroup() {
		return pass(core.ReasonEstablished)
	}
	return nil
}

func senderRelated(q *question) *Opinion {
	if q.state != StateRelated || q.homeless() {
		return nil
	}
	a, b := relatedEnds(q.frame)
	switch {
	case q.nic.checked() && !q.nic.hasAddress(a) && !q.nic.hasAddress(b):
		return drop(core.ReasonNotOwner)
	case q.frame.Dst.IsGroup():
		return nil
	}
	return pass(core.ReasonRelated)
}

// relatedEnds are the ends of the flow that a related packet belongs to: of the
// packet it quotes. A flow that a helper expected has ends of its own.
func relatedEnds(f Frame) (a, b netip.Addr) {
	p := f.IP
	switch m := p.Transport.(type) {
	case ICMP:
		if m.Quote != nil {
			p = m.Quote
		}
	case ICMPv6:
		if m.Quote != nil {
			p = m.Quote
		}
	}
	return p.Src, p.Dst
}

func senderND(q *question) *Opinion {
	m, ok := q.icmpv6()
	if !ok || !q.nic.checked() {
		return nil
	}
	switch {
	case m.Type == ICMPv6NeighbourSolicitation && q.frame.IP.Src.IsUnspecified() && !q.nic.ownAddress(m.Target),
		m.Type == ICMPv6NeighbourAdvertisement && !q.nic.hasAddress(m.Target):
		return drop(core.ReasonNDSpoof)
	}
	return nil
}

func senderRouter(q *question) *Opinion {
	if m, _ := q.icmpv6(); m.Type == ICMPv6RouterAdvertisement || m.Type == ICMPv6Redirect {
		return drop(core.ReasonRAGuard)
	}
	return nil
}

// DHCP ports of server and client.
func dhcpPorts(f core.Family) (server, client uint16) {
	if f == core.IPv4 {
		return 67, 68
	}
	return 547, 546
}

func senderDHCPServer(q *question) *Opinion {
	server, client := dhcpPorts(q.family)
	if u, ok := q.udp(); ok && (u.SrcPort == server || u.DstPort == client) {
		return drop(core.ReasonDHCPGuard)
	}
	return nil
}

func senderDHCPClient(q *question) *Opinion {
	server, client := dhcpPorts(q.family)
	if u, ok := q.udp(); !ok || u != (UDP{client, server}) {
		return nil
	}
	if q.family == core.IPv4 || !q.nic.checked() || q.frame.IP.Src.IsLinkLocalUnicast() {
		return pass(core.ReasonAlways)
	}
	return drop(core.ReasonDHCPGuard)
}

func senderNDAndMLD(q *question) *Opinion {
	m, _ := q.icmpv6()
	switch m.Type {
	case ICMPv6RouterSolicitation, ICMPv6NeighbourSolicitation, ICMPv6NeighbourAdvertisement:
		if q.frame.IP.HopLimit != 255 {
			return nil
		}
	case ICMPv6MLDReport, ICMPv6MLDDone, ICMPv6MLDv2Report:
	default:
		return nil
	}
	return pass(core.ReasonAlways)
}

func senderHomeless(q *question) *Opinion {
	if q.homeless() {
		return drop(core.ReasonIPSpoof)
	}
	return nil
}

func senderDNS(q *question) *Opinion {
	if !q.rs.Options.AllowDNS {
		return nil
	}
	switch t := q.frame.IP.Transport.(type) {
	case UDP:
		if t.DstPort == 53 {
			return pass(core.ReasonAlways)
		}
	case TCP:
		if t.DstPort == 53 {
			return pass(core.ReasonAlways)
		}
	}
	return nil
}

func senderRules(q *question) *Opinion {
	return byRule(match(q.rs, q.nic.NICPolicy, core.Egress, q.frame.IP, q.frame.IP.Dst))
}

func byRule(m *Match) *Opinion {
	if m == nil {
		return nil
	}
	return &Opinion{Pass: true, Reason: core.ReasonRule, Rule: m}
}

func senderDefault(q *question) *Opinion {
	if !q.nic.EgressDeny(q.family) {
		return pass(core.ReasonDefault)
	}
	return nil
}

func senderDenied(*question) *Opinion { return drop(core.ReasonEgressRules) }
