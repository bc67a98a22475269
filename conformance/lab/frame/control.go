package frame

import (
	"encoding/binary"

	"github.com/gopacket/gopacket/layers"
	"github.com/ringwall/ringwall/core"
)

// Addresses that bridges keep to themselves (IEEE 802.1Q table 8-1).
var (
	STPGroupMAC  = core.MAC{0x01, 0x80, 0xc2, 0, 0, 0x00}
	LLDPGroupMAC = core.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
)

// BPDU is a spanning tree configuration message by which mac claims to be the
// root bridge, of priority 0.
func BPDU(mac core.MAC) Frame {
	bridge := layers.STPSwitchID{HwAddr: mac[:]}
	stp := &layers.STP{RouteID: bridge, BridgeID: bridge, PortID: 0x8001,
		// Times are in 1/256 s (IEEE 802.1D 9.2.8).
		MaxAge: 20 << 8, HelloTime: 2 << 8, FDelay: 15 << 8}
	return Build(Ethernet{Src: mac, Dst: STPGroupMAC}, LLC{DSAP: 0x42, SSAP: 0x42, Control: 3},
		Payload(serialize(stp, nil)))
}

// LLDP announces a neighbour to the port it is plugged into.
func LLDP(mac core.MAC) Frame {
	tlv := func(b []byte, typ uint16, value ...byte) []byte {
		return append(binary.BigEndian.AppendUint16(b, typ<<9|uint16(len(value))), value...)
	}
	b := tlv(nil, 1, append([]byte{4}, mac[:]...)...) // chassis: a MAC address
	b = tlv(b, 2, append([]byte{3}, mac[:]...)...)    // port: a MAC address
	b = tlv(b, 3, 0, 120)                             // seconds to live
	b = tlv(b, 0)
	return Build(Ethernet{Src: mac, Dst: LLDPGroupMAC, Type: TypeLLDP}, Payload(b))
}
