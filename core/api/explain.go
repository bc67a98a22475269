package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// ExplainRequest asks why a packet passes or not. It is made up from the two
// ends, and whatever is given beside them takes the place of what would be
// usual: an address or MAC that is not the sender's shows how spoofing fares.
type ExplainRequest struct {
	// From and To: a VM (when it has one NIC), VM/MAC, a MAC, an address, or
	// uplink, host, closed, each with /ADDRESS if wanted.
	From string `json:"from"`
	To   string `json:"to"`
	// Frame is the kind of frame; empty = an IP packet of Protocol.
	Frame    string `json:"frame,omitempty"`
	Protocol string `json:"protocol,omitempty"` // empty = a ping
	SrcPort  uint16 `json:"sport,omitempty"`
	DstPort  uint16 `json:"dport,omitempty"`
	ICMPType *uint8 `json:"icmp_type,omitempty"`
	ICMPCode *uint8 `json:"icmp_code,omitempty"`
	IPv6     bool   `json:"ipv6,omitempty"` // where both families would do
	// State is conntrack's word; empty = new.
	State  string     `json:"state,omitempty"`
	Src    netip.Addr `json:"src,omitzero"`
	Dst    netip.Addr `json:"dst,omitzero"`
	SrcMAC string     `json:"src_mac,omitempty"`
	DstMAC string     `json:"dst_mac,omitempty"`
	VLAN   *uint16    `json:"vlan,omitempty"`
}

// Explanation is the verdict on a packet, and the account of it. Between NICs
// on different bridges the packet is judged twice, on its way to the router
// and from it.
type Explanation struct {
	Allowed   bool   `json:"allowed"`
	WouldDrop bool   `json:"would_drop,omitempty"` // enforce: false let it pass
	Reason    string `json:"reason"`
	Legs      []Leg  `json:"legs"`
}

// Leg is one frame's way from port to port.
type Leg struct {
	Frame   string `json:"frame"`
	From    string `json:"from"`
	To      string `json:"to"`
	Verdict string `json:"verdict"`
	Steps   []Step `json:"steps"`
}

// Step is one thing that was looked at, with its row in docs/semantics.md.
type Step struct {
	Side    string `json:"side"`
	Row     int    `json:"row"`
	Text    string `json:"text"`
	Decides bool   `json:"decides,omitempty"`
}

// FrameKinds lists what ExplainRequest.Frame may be, besides an EtherType as
// in 0x88cc.
func FrameKinds() []string {
	return []string{"arp-request", "arp-reply", "arp-probe", "gratuitous-arp", "dhcp-discover", "dhcp-offer", "dhcpv6-solicit", "dhcpv6-reply",
		"neighbour-solicitation", "neighbour-advertisement", "router-solicitation", "router-advertisement", "redirect", "mld-report", "rarp-announcement", "lldp"}
}

// Explain answers x from a ruleset. Groups, as users wrote them, may be empty.
func Explain(rs core.Ruleset, groups []core.Group, x ExplainRequest) (Explanation, error) {
	r := resolver{rs: rs, x: x}
	state, err := parseState(x.State)
	if err != nil {
		return Explanation{}, err
	}
	from, err := r.end("from", x.From)
	if err != nil {
		return Explanation{}, err
	}
	to, err := r.end("to", x.To)
	if err != nil {
		return Explanation{}, err
	}
	if from.port.Kind == policy.PortNIC && from.port == to.port {
		return Explanation{}, &core.FieldError{Path: "to", Value: x.To, Reason: "the same NIC as from; what stays in a VM is not seen here"}
	}
	frame, err := r.frame(from, to)
	if err != nil {
		return Explanation{}, err
	}
	ends := [][2]policy.Port{{from.port, to.port}}
	if r.routed(from, to) {
		ends = [][2]policy.Port{{from.port, policy.Routed}, {policy.Routed, to.port}}
	}
	out := Explanation{Allowed: true}
	for _, e := range ends {
		got := policy.Explain(policy.Query{Ruleset: rs, Groups: groups, Frame: frame, From: e[0], To: e[1], State: state})
		out.Allowed = out.Allowed && got.Verdict.Allowed
		out.WouldDrop = out.WouldDrop || got.Verdict.WouldDrop
		out.Reason = string(got.Verdict.Reason)
		leg := Leg{Frame: frame.String(), From: e[0].String(), To: e[1].String(), Verdict: got.Verdict.String()}
		for _, s := range got.Steps {
			leg.Steps = append(leg.Steps, Step{s.Side.String(), s.Row, s.Text, s.Decides})
		}
		out.Legs = append(out.Legs, leg)
		if !got.Verdict.Allowed {
			break
		}
	}
	return out, nil
}

func parseState(s string) (policy.State, error) {
	names := []string{}
	for st := policy.StateNew; st <= policy.StateAstrayReply; st++ {
		if s == st.String() || s == "" {
			return st, nil
		}
		names = append(names, st.String())
	}
	return 0, &core.FieldError{Path: "state", Value: s, Reason: "use " + strings.Join(names, ", ")}
}

// end is a resolved end of the packet's way.
type end struct {
	port  policy.Port
	nic   core.NICPolicy // of PortNIC
	addr  netip.Addr     // when the user named one
	other core.MAC       // of a port that is no NIC's
}

type resolver struct {
	rs core.Ruleset
	x  ExplainRequest
}

// Machines beyond the host's VMs have made-up MACs.
var (
	fromMAC = core.MAC{0x02, 0xff, 0, 0, 0, 0x01}
	toMAC   = core.MAC{0x02, 0xff, 0, 0, 0, 0x02}
)

func (r resolver) end(field, s string) (end, error) {
	out := end{other: fromMAC}
	if field == "to" {
		out.other = toMAC
	}
	fail := func(reason string) (end, error) {
		return end{}, &core.FieldError{Path: field, Value: s, Reason: reason}
	}
	if s == "" {
		return fail("missing; name a VM, VM/MAC, an address, uplink or host")
	}
	word, addr, hasAddr := strings.Cut(s, "/")
	ports := map[string]policy.Port{"uplink": policy.Uplink, "host": policy.Host, "closed": policy.Closed}
	if p, ok := ports[word]; ok && len(r.vm(word)) == 0 {
		out.port = p
		if hasAddr {
			a, err := netip.ParseAddr(addr)
			if err != nil {
				return fail("after " + word + "/ comes an IP address")
			}
			out.addr = a
		}
		return out, nil
	}
	var found []core.NICPolicy
	if a, err := netip.ParseAddr(s); err == nil {
		if found = r.holders(a); len(found) == 0 {
			out.port, out.addr = policy.Uplink, a
			return out, nil
		}
		out.addr = a
	} else if m, err := core.ParseMAC(s); err == nil {
		found = r.where(func(n core.NICPolicy) bool { return n.Key.MAC == m })
	} else if k, err := core.ParseNICKey(s); err == nil {
		found = r.where(func(n core.NICPolicy) bool {
			return n.Key.MAC == k.MAC && (n.Key.VM == k.VM || n.VM == string(k.VM))
		})
	} else {
		found = r.vm(s)
	}
	switch len(found) {
	case 0:
		return fail("no NIC on this host answers to that; see ringwall get nics")
	case 1:
		out.port, out.nic = policy.AtNIC(found[0].Key), found[0]
		return out, nil
	}
	var keys []string
	for _, n := range found {
		keys = append(keys, n.Key.String())
	}
	return fail("several NICs: say which, " + strings.Join(keys, " or "))
}

func (r resolver) where(ok func(core.NICPolicy) bool) (out []core.NICPolicy) {
	for _, n := range r.rs.NICs {
		if ok(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b core.NICPolicy) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

func (r resolver) vm(name string) []core.NICPolicy {
	return r.where(func(n core.NICPolicy) bool { return n.VM == name || string(n.Key.VM) == name })
}

// holders lists the NICs with an address of their own, else those with a pair.
func (r resolver) holders(a netip.Addr) []core.NICPolicy {
	if own := r.where(func(n core.NICPolicy) bool { return slices.Contains(n.Addresses, a) }); len(own) > 0 {
		return own
	}
	return r.where(func(n core.NICPolicy) bool {
		return slices.ContainsFunc(n.Pairs, func(p core.AddressPair) bool { return p.Prefix.IsSingleIP() && p.Prefix.Addr() == a })
	})
}

func (r resolver) routed(from, to end) bool {
	return from.port.Kind == policy.PortNIC && to.port.Kind == policy.PortNIC && from.nic.Bridge != to.nic.Bridge
}

// path is who speaks to whom, as the request says or as is usual.
func (r resolver) path(from, to end) (p policy.Path, err error) {
	p.SrcMAC, p.DstMAC = from.mac(), to.mac()
	for _, m := range []struct {
		field, text string
		dst         *core.MAC
	}{{"src_mac", r.x.SrcMAC, &p.SrcMAC}, {"dst_mac", r.x.DstMAC, &p.DstMAC}} {
		if m.text == "" {
			continue
		}
		if strings.EqualFold(m.text, core.BroadcastMAC.String()) {
			*m.dst = core.BroadcastMAC
		} else if *m.dst, err = core.ParseMAC(m.text); err != nil {
			return p, &core.FieldError{Path: m.field, Value: m.text, Reason: strings.TrimSuffix(err.Error(), ": "+core.ErrInvalid.Error())}
		}
	}
	first, second := core.IPv4, core.IPv6
	if r.x.IPv6 || r.x.Protocol == core.ProtocolICMPv6.String() {
		first, second = second, first
	}
	for _, f := range []core.Family{first, second} {
		src, dst := pick(f, r.x.Src, from), pick(f, r.x.Dst, to)
		if src.IsValid() && dst.IsValid() {
			p.Src, p.Dst = src, dst
			return p, nil
		}
		if r.x.IPv6 || r.x.Protocol == core.ProtocolICMP.String() || r.x.Protocol == core.ProtocolICMPv6.String() {
			break
		}
	}
	return p, &core.FieldError{Path: "to", Value: r.x.To, Reason: "no family in which both ends have an address; give --src and --dst"}
}

// pick is the address of an end in a family: the one asked for, the one it was
// named by, its first, or an example where it has none of its own.
func pick(f core.Family, asked netip.Addr, e end) netip.Addr {
	if asked.IsValid() {
		if core.FamilyOf(asked) == f {
			return asked
		}
		return netip.Addr{}
	}
	if e.addr.IsValid() {
		if core.FamilyOf(e.addr) == f {
			return e.addr
		}
		return netip.Addr{}
	}
	for _, a := range e.nic.Addresses {
		if core.FamilyOf(a) == f {
			return a
		}
	}
	if e.port.Kind == policy.PortNIC {
		return netip.Addr{}
	}
	// TEST-NET-1 and the documentation prefix stand for somebody out there.
	if f == core.IPv4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, e.other[5]})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: e.other[5]})
}

func (e end) mac() core.MAC {
	if e.port.Kind == policy.PortNIC {
		return e.nic.Key.MAC
	}
	return e.other
}

func (r resolver) frame(from, to end) (policy.Frame, error) {
	f, err := r.build(from, to)
	if err != nil {
		return f, err
	}
	if r.x.VLAN != nil {
		f = f.Tagged(*r.x.VLAN)
	}
	return f, nil
}

func (r resolver) build(from, to end) (policy.Frame, error) {
	kind := r.x.Frame
	if strings.HasPrefix(kind, "0x") {
		n, err := strconv.ParseUint(kind[2:], 16, 16)
		if err != nil {
			return policy.Frame{}, &core.FieldError{Path: "frame", Value: kind, Reason: "not an EtherType; use a form like 0x88cc"}
		}
		return policy.Other(from.mac(), to.mac(), policy.EtherType(n)), nil
	}
	switch kind {
	case "":
		return r.packet(from, to)
	case "lldp":
		return policy.Other(from.mac(), core.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, policy.TypeLLDP), nil
	case "rarp-announcement":
		return policy.RARPAnnouncement(from.mac()), nil
	case "dhcp-discover":
		return policy.DHCPDiscover(from.mac()), nil
	}
	if !slices.Contains(FrameKinds(), kind) {
		return policy.Frame{}, &core.FieldError{Path: "frame", Value: kind, Reason: "use " + strings.Join(FrameKinds(), ", ") + ", or an EtherType like 0x88cc"}
	}
	if v6 := []string{"dhcpv6-solicit", "dhcpv6-reply", "neighbour-solicitation", "neighbour-advertisement", "router-solicitation", "router-advertisement", "redirect", "mld-report"}; slices.Contains(v6, kind) {
		return r.discovery(kind, from, to)
	}
	r.x.IPv6, r.x.Protocol = false, core.ProtocolICMP.String() // IPv4 only
	p, err := r.path(from, to)
	if err != nil {
		return policy.Frame{}, err
	}
	switch kind {
	case "arp-request":
		return policy.ARPRequest(p.SrcMAC, p.Src, p.Dst), nil
	case "arp-reply":
		return p.ARPReply(), nil
	case "arp-probe":
		return policy.ARPProbe(p.SrcMAC, p.Src), nil
	case "gratuitous-arp":
		return policy.GratuitousARP(p.SrcMAC, p.Src), nil
	default: // dhcp-offer
		return p.UDP(67, 68), nil
	}
}

// discovery is a frame of ND, MLD or DHCPv6. They are spoken from link-local
// addresses, whatever other addresses an end has.
func (r resolver) discovery(kind string, from, to end) (policy.Frame, error) {
	r.x.IPv6 = true
	p, err := r.path(from, to)
	if err != nil {
		p.Src, p.Dst = p.SrcMAC.LinkLocal(), p.DstMAC.LinkLocal()
	}
	src := p.SrcMAC.LinkLocal()
	if r.x.Src.IsValid() {
		src = r.x.Src
	}
	switch kind {
	case "dhcpv6-solicit":
		return policy.DHCPv6Solicit(p.SrcMAC, src), nil
	case "dhcpv6-reply":
		return policy.Path{SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, Src: src, Dst: p.DstMAC.LinkLocal()}.UDP(547, 546), nil
	case "neighbour-solicitation":
		return policy.Solicitation(p.SrcMAC, p.Src, p.Dst), nil
	case "neighbour-advertisement":
		return p.Advertisement(p.Src), nil
	case "router-solicitation":
		return policy.RouterSolicitation(p.SrcMAC, src), nil
	case "router-advertisement":
		return policy.RouterAdvertisement(p.SrcMAC, src), nil
	case "redirect":
		return policy.Path{SrcMAC: p.SrcMAC, DstMAC: p.DstMAC, Src: src, Dst: p.Dst}.Redirect(p.Dst), nil
	default: // mld-report
		return policy.MLDReport(p.SrcMAC, src), nil
	}
}

// ephemeral is the source port of a packet for which nobody named one.
const ephemeral = 50000

func (r resolver) packet(from, to end) (policy.Frame, error) {
	name := r.x.Protocol
	if name == "" && r.x.DstPort != 0 {
		return policy.Frame{}, &core.FieldError{Path: "protocol", Reason: "missing; a port is of tcp, udp or sctp"}
	}
	p, err := r.path(from, to)
	if err != nil {
		return policy.Frame{}, err
	}
	if name == "" {
		return p.Echo(1), nil
	}
	proto, err := core.ParseProtocol(name)
	if err != nil || proto == core.AnyProtocol {
		return policy.Frame{}, &core.FieldError{Path: "protocol", Value: name, Reason: "use tcp, udp, icmp, icmpv6, sctp or a number from 1 to 255"}
	}
	if !proto.HasPorts() && (r.x.SrcPort != 0 || r.x.DstPort != 0) {
		return policy.Frame{}, &core.FieldError{Path: "dport", Value: fmt.Sprint(r.x.DstPort), Reason: name + " has no ports"}
	}
	if proto.HasPorts() && r.x.DstPort == 0 {
		return policy.Frame{}, &core.FieldError{Path: "dport", Reason: "missing; say which port, as in --dport 80"}
	}
	sport := r.x.SrcPort
	if sport == 0 {
		sport = ephemeral
	}
	typ, code := r.x.ICMPType, r.x.ICMPCode
	if typ != nil && !proto.IsICMP() {
		return policy.Frame{}, &core.FieldError{Path: "icmp_type", Value: fmt.Sprint(*typ), Reason: name + " has no ICMP types"}
	}
	switch proto {
	case core.ProtocolTCP:
		return p.SYN(sport, r.x.DstPort), nil
	case core.ProtocolUDP:
		return p.UDP(sport, r.x.DstPort), nil
	case core.ProtocolSCTP:
		return p.SCTP(sport, r.x.DstPort), nil
	case core.ProtocolICMP:
		return p.Packet(policy.ICMP{Type: or(typ, policy.ICMPEcho), Code: or(code, 0), ID: 1}), nil
	case core.ProtocolICMPv6:
		return p.Packet(policy.ICMPv6{Type: or(typ, policy.ICMPv6Echo), Code: or(code, 0), ID: 1}), nil
	}
	return p.Raw(proto), nil
}

func or(p *uint8, def uint8) uint8 {
	if p != nil {
		return *p
	}
	return def
}
