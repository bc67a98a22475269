package frame

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket/layers"
	"github.com/ringwall/ringwall/core"
)

// DHCP is an IPv4 message, behind UDP. Whether it is a request or a reply (the
// BOOTP operation) follows from Type.
type DHCP struct {
	Type      layers.DHCPMsgType
	ClientMAC core.MAC
	Xid       uint32
	ClientIP  netip.Addr // ciaddr
	YourIP    netip.Addr // yiaddr
	Requested netip.Addr // option 50
	Server    netip.Addr // option 54, and siaddr
	Router    netip.Addr // option 3
	Broadcast bool       // answers are to be broadcast
}

func (d DHCP) encode(payload []byte, _ *encoding) []byte {
	m := &layers.DHCPv4{
		Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6,
		Xid: d.Xid, ClientHWAddr: d.ClientMAC[:],
		ClientIP: as4(d.ClientIP), YourClientIP: as4(d.YourIP), NextServerIP: as4(d.Server), RelayAgentIP: as4(netip.Addr{}),
		Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(d.Type)})},
	}
	option := func(code layers.DHCPOpt, value []byte) {
		m.Options = append(m.Options, layers.NewDHCPOption(code, value))
	}
	switch d.Type {
	case layers.DHCPMsgTypeOffer, layers.DHCPMsgTypeAck, layers.DHCPMsgTypeNak:
		m.Operation = layers.DHCPOpReply
		option(layers.DHCPOptLeaseTime, binary.BigEndian.AppendUint32(nil, 3600))
	}
	if d.Broadcast {
		m.Flags = 0x8000
	}
	for _, o := range []struct {
		code layers.DHCPOpt
		addr netip.Addr
	}{{layers.DHCPOptRequestIP, d.Requested}, {layers.DHCPOptServerID, d.Server}, {layers.DHCPOptRouter, d.Router}} {
		if o.addr.IsValid() {
			option(o.code, o.addr.AsSlice())
		}
	}
	option(layers.DHCPOptEnd, nil)
	return serialize(m, payload)
}
func (d DHCP) id() identity { return identity{} }

var (
	toDHCPServer = UDP{SrcPort: 68, DstPort: 67}
	toDHCPClient = UDP{SrcPort: 67, DstPort: 68}
	limited      = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// DHCPDiscover is a client without an address looking for a server.
func DHCPDiscover(mac core.MAC) Frame {
	return Multicast(mac, netip.IPv4Unspecified(), limited).Packet(toDHCPServer,
		DHCP{Type: layers.DHCPMsgTypeDiscover, ClientMAC: mac, Xid: 1, Broadcast: true})
}

// DHCPRequest is a client without an address taking an offer.
func DHCPRequest(mac core.MAC, requested, server netip.Addr) Frame {
	return Multicast(mac, netip.IPv4Unspecified(), limited).Packet(toDHCPServer,
		DHCP{Type: layers.DHCPMsgTypeRequest, ClientMAC: mac, Xid: 1, Requested: requested, Server: server, Broadcast: true})
}

// DHCPRenew is a client asking its server, in unicast, to keep its address.
func (f Flow) DHCPRenew() Frame {
	return f.Packet(toDHCPServer, DHCP{Type: layers.DHCPMsgTypeRequest, ClientMAC: f.SrcMAC, Xid: 2, ClientIP: f.Src})
}

// DHCPOffer and DHCPAck are a server's answers to the client at the other end of
// the flow. With Dst 255.255.255.255 (see Multicast) name the client yourself.
func (f Flow) DHCPOffer(client core.MAC, offered netip.Addr) Frame {
	return f.dhcpAnswer(layers.DHCPMsgTypeOffer, client, offered)
}

func (f Flow) DHCPAck(client core.MAC, offered netip.Addr) Frame {
	return f.dhcpAnswer(layers.DHCPMsgTypeAck, client, offered)
}

func (f Flow) dhcpAnswer(t layers.DHCPMsgType, client core.MAC, offered netip.Addr) Frame {
	return f.Packet(toDHCPClient, DHCP{Type: t, ClientMAC: client, Xid: 1, YourIP: offered, Server: f.Src, Router: f.Src})
}

// DHCPv6 is a message with client (and, for a server, server) identifiers made
// from MAC addresses (DUID-LL), behind UDP.
type DHCPv6 struct {
	Type      layers.DHCPv6MsgType
	ClientMAC core.MAC
	ServerMAC core.MAC   // zero: no option
	Address   netip.Addr // offered, in an IA_NA; invalid: an empty IA_NA
}

func (d DHCPv6) encode(payload []byte, _ *encoding) []byte {
	m := &layers.DHCPv6{MsgType: d.Type, TransactionID: []byte{0, 0, 1}}
	option := func(code layers.DHCPv6Opt, value []byte) {
		m.Options = append(m.Options, layers.NewDHCPv6Option(code, value))
	}
	duid := func(mac core.MAC) []byte { return append([]byte{0, 3, 0, 1}, mac[:]...) }
	option(layers.DHCPv6OptClientID, duid(d.ClientMAC))
	if d.ServerMAC != (core.MAC{}) {
		option(layers.DHCPv6OptServerID, duid(d.ServerMAC))
	}
	ia := make([]byte, 12) // identity association 0, the server chooses the times
	if d.Address.IsValid() {
		ia = append(ia, 0, byte(layers.DHCPv6OptIAAddr), 0, 24)
		ia = append(ia, d.Address.AsSlice()...)
		ia = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(ia, 1800), 3600)
	}
	option(layers.DHCPv6OptIANA, ia)
	return serialize(m, payload)
}
func (d DHCPv6) id() identity { return identity{} }

// DHCPv6Solicit is a client looking for a server, from its link-local address.
func DHCPv6Solicit(mac core.MAC, src netip.Addr) Frame {
	return Multicast(mac, src, AllDHCPv6Servers).Packet(UDP{SrcPort: 546, DstPort: 547},
		DHCPv6{Type: layers.DHCPv6MsgTypeSolicit, ClientMAC: mac})
}

// DHCPv6Request is a client taking an offer.
func DHCPv6Request(mac core.MAC, src netip.Addr, server core.MAC, address netip.Addr) Frame {
	return Multicast(mac, src, AllDHCPv6Servers).Packet(UDP{SrcPort: 546, DstPort: 547},
		DHCPv6{Type: layers.DHCPv6MsgTypeRequest, ClientMAC: mac, ServerMAC: server, Address: address})
}

// DHCPv6Advertise and DHCPv6Reply are a server's answers to the client at the
// other end of the flow.
func (f Flow) DHCPv6Advertise(offered netip.Addr) Frame {
	return f.dhcpv6Answer(layers.DHCPv6MsgTypeAdvertise, offered)
}

func (f Flow) DHCPv6Reply(offered netip.Addr) Frame {
	return f.dhcpv6Answer(layers.DHCPv6MsgTypeReply, offered)
}

func (f Flow) dhcpv6Answer(t layers.DHCPv6MsgType, offered netip.Addr) Frame {
	return f.Packet(UDP{SrcPort: 547, DstPort: 546},
		DHCPv6{Type: t, ClientMAC: f.DstMAC, ServerMAC: f.SrcMAC, Address: offered})
}
