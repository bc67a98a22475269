package frame

import (
	"encoding/binary"
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// Neighbour discovery messages (RFC 4861). The IP header in front of them gets
// the hop limit 255 that receivers insist on. LinkLayer, when not zero, is sent
// as the option that belongs to the message.
type (
	// RS is a router solicitation.
	RS struct{ LinkLayer core.MAC }
	// RA is a router advertisement.
	RA struct {
		Lifetime  uint16         // seconds; 0: not a default router
		Prefixes  []netip.Prefix // on-link, for autoconfiguration, for an hour
		LinkLayer core.MAC
		MTU       uint32       // 0: no option
		DNS       []netip.Addr // RFC 8106, for an hour
	}
	// NS is a neighbor solicitation.
	NS struct {
		Target    netip.Addr
		LinkLayer core.MAC
	}
	// NA is a neighbor advertisement.
	NA struct {
		Target                      netip.Addr
		LinkLayer                   core.MAC
		Router, Solicited, Override bool
	}
	// Redirect sends the receiver to another router.
	Redirect struct {
		Target, Destination netip.Addr
		LinkLayer           core.MAC
	}
)

// Groups of RFC 4291 2.7.1 and RFC 3810.
var (
	AllNodes         = netip.MustParseAddr("ff02::1")
	AllRouters       = netip.MustParseAddr("ff02::2")
	AllMLDv2Routers  = netip.MustParseAddr("ff02::16")
	AllDHCPv6Servers = netip.MustParseAddr("ff02::1:2")
)

const (
	optSourceLinkLayer = 1
	optTargetLinkLayer = 2
)

func (m RS) encode(p []byte, c *encoding) []byte {
	return nd(c, 133, 0, linkLayer(optSourceLinkLayer, m.LinkLayer), p)
}
func (m RS) id() identity { return ndIdentity }

func (m RA) encode(p []byte, c *encoding) []byte {
	b := make([]byte, 8) // reachable and retransmission time: unspecified
	b = append(b, linkLayer(optSourceLinkLayer, m.LinkLayer)...)
	if m.MTU != 0 {
		b = binary.BigEndian.AppendUint32(append(b, 5, 1, 0, 0), m.MTU)
	}
	const hour = 3600
	for _, prefix := range m.Prefixes {
		b = append(b, 3, 4, byte(prefix.Bits()), 0xc0)
		b = binary.BigEndian.AppendUint32(b, hour)
		b = binary.BigEndian.AppendUint32(b, hour)
		b = append(append(b, 0, 0, 0, 0), prefix.Addr().AsSlice()...)
	}
	if len(m.DNS) > 0 {
		b = binary.BigEndian.AppendUint32(append(b, 25, byte(1+2*len(m.DNS)), 0, 0), hour)
		for _, a := range m.DNS {
			b = append(b, a.AsSlice()...)
		}
	}
	return nd(c, 134, 64<<24|uint32(m.Lifetime), b, p) // 64: the hop limit to use
}
func (m RA) id() identity { return ndIdentity }

func (m NS) encode(p []byte, c *encoding) []byte {
	return nd(c, 135, 0, append(m.Target.AsSlice(), linkLayer(optSourceLinkLayer, m.LinkLayer)...), p)
}
func (m NS) id() identity { return ndIdentity }

func (m NA) encode(p []byte, c *encoding) []byte {
	var flags uint32
	for i, set := range []bool{m.Router, m.Solicited, m.Override} {
		if set {
			flags |= 1 << (31 - i)
		}
	}
	return nd(c, 136, flags, append(m.Target.AsSlice(), linkLayer(optTargetLinkLayer, m.LinkLayer)...), p)
}
func (m NA) id() identity { return ndIdentity }

func (m Redirect) encode(p []byte, c *encoding) []byte {
	b := append(m.Target.AsSlice(), m.Destination.AsSlice()...)
	return nd(c, 137, 0, append(b, linkLayer(optTargetLinkLayer, m.LinkLayer)...), p)
}
func (m Redirect) id() identity { return ndIdentity }

var ndIdentity = identity{protocol: 58, hopLimit: 255}

func nd(c *encoding, typ uint8, rest uint32, body, payload []byte) []byte {
	return ICMPv6{Type: typ, Rest: rest}.encode(append(body[:len(body):len(body)], payload...), c)
}

func linkLayer(option byte, m core.MAC) []byte {
	if m == (core.MAC{}) {
		return nil
	}
	return append([]byte{option, 1}, m[:]...)
}

// Solicit asks for target's MAC address at its solicited-node group.
func Solicit(mac core.MAC, src, target netip.Addr) Frame {
	return Multicast(mac, src, core.SolicitedNode(target)).Packet(NS{Target: target, LinkLayer: mac})
}

// DADSolicitation asks whether target is free (RFC 4862): the source is "::"
// and there is no option.
func DADSolicitation(mac core.MAC, target netip.Addr) Frame {
	return Multicast(mac, netip.IPv6Unspecified(), core.SolicitedNode(target)).Packet(NS{Target: target})
}

// Advertise tells the other end of the flow that Src is at SrcMAC.
func (f Flow) Advertise() Frame {
	return f.Packet(NA{Target: f.Src, LinkLayer: f.SrcMAC, Solicited: true, Override: true})
}

// UnsolicitedNA announces target to all nodes.
func UnsolicitedNA(mac core.MAC, target netip.Addr) Frame {
	return Multicast(mac, target, AllNodes).Packet(NA{Target: target, LinkLayer: mac, Override: true})
}

// MLD messages travel with hop limit 1 and a router alert in front of them
// (RFC 2710, RFC 3810).
type (
	// MLDv1 is a query (130), report (131) or done (132).
	MLDv1 struct {
		Type          uint8
		ResponseDelay uint16 // milliseconds, in a query
		Group         netip.Addr
	}
	// MLDv2Report lists groups that the sender joins (change to exclude none).
	MLDv2Report struct{ Groups []netip.Addr }
)

func (m MLDv1) encode(p []byte, c *encoding) []byte {
	group := m.Group
	if !group.IsValid() {
		group = netip.IPv6Unspecified() // a general query
	}
	return ICMPv6{Type: m.Type, Rest: uint32(m.ResponseDelay) << 16}.encode(append(group.AsSlice(), p...), c)
}
func (m MLDv1) id() identity { return mldIdentity }

func (m MLDv2Report) encode(p []byte, c *encoding) []byte {
	var b []byte
	for _, g := range m.Groups {
		b = append(append(b, 4, 0, 0, 0), g.AsSlice()...) // 4: CHANGE_TO_EXCLUDE_MODE
	}
	return ICMPv6{Type: 143, Rest: uint32(len(m.Groups))}.encode(append(b, p...), c)
}
func (m MLDv2Report) id() identity { return mldIdentity }

var mldIdentity = identity{protocol: 58, hopLimit: 1}

// RouterAlert is the hop-by-hop header that MLD messages carry.
var RouterAlert = HopByHop{Options: []byte{5, 2, 0, 0}}

// JoinGroup is the MLDv2 report of a host that joins group.
func JoinGroup(mac core.MAC, src, group netip.Addr) Frame {
	return Multicast(mac, src, AllMLDv2Routers).Packet(RouterAlert, MLDv2Report{Groups: []netip.Addr{group}})
}

// QueryGroups is the MLDv1 general query of a router.
func QueryGroups(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllNodes).Packet(RouterAlert, MLDv1{Type: 130, ResponseDelay: 1000})
}
