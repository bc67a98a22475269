package frame

import (
	"encoding/binary"
	"net/netip"

	"github.com/ringwall/ringwall/core"
)

// ARPOp is an operation of ARP and RARP.
type ARPOp uint16

const (
	ARPRequestOp  ARPOp = 1
	ARPReplyOp    ARPOp = 2
	RARPRequestOp ARPOp = 3
	RARPReplyOp   ARPOp = 4
)

// ARP is an Ethernet/IPv4 message (RFC 826); an invalid address is 0.0.0.0.
type ARP struct {
	Op                   ARPOp // 0: request
	SenderMAC, TargetMAC core.MAC
	SenderIP, TargetIP   netip.Addr
	Reverse              bool // EtherType 0x8035 in front of it
}

func (a ARP) encode(payload []byte, _ *encoding) []byte {
	if a.Op == 0 {
		a.Op = ARPRequestOp
	}
	b := []byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, their address lengths
	b = binary.BigEndian.AppendUint16(b, uint16(a.Op))
	b = append(append(b, a.SenderMAC[:]...), as4(a.SenderIP)...)
	b = append(append(b, a.TargetMAC[:]...), as4(a.TargetIP)...)
	return append(b, payload...)
}

func (a ARP) id() identity {
	if a.Reverse {
		return identity{etherType: TypeRARP}
	}
	return identity{etherType: TypeARP}
}

func as4(a netip.Addr) []byte {
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	return a.AsSlice()
}

// ARPRequest asks everybody who has target.
func ARPRequest(mac core.MAC, ip, target netip.Addr) Frame {
	return Build(Ethernet{Src: mac, Dst: core.BroadcastMAC}, ARP{SenderMAC: mac, SenderIP: ip, TargetIP: target})
}

// ARPReply tells the other end of the flow that Src is at SrcMAC.
func (f Flow) ARPReply() Frame {
	return Build(f.Ethernet(), ARP{Op: ARPReplyOp, SenderMAC: f.SrcMAC, SenderIP: f.Src, TargetMAC: f.DstMAC, TargetIP: f.Dst})
}

// ARPProbe asks whether ip is free (RFC 5227): the sender is 0.0.0.0.
func ARPProbe(mac core.MAC, ip netip.Addr) Frame {
	return ARPRequest(mac, netip.IPv4Unspecified(), ip)
}

// GratuitousARP announces ip in a request for it, as RFC 5227 prefers.
func GratuitousARP(mac core.MAC, ip netip.Addr) Frame { return ARPRequest(mac, ip, ip) }

// GratuitousARPReply announces ip in a broadcast reply.
func GratuitousARPReply(mac core.MAC, ip netip.Addr) Frame {
	return Build(Ethernet{Src: mac, Dst: core.BroadcastMAC},
		ARP{Op: ARPReplyOp, SenderMAC: mac, SenderIP: ip, TargetMAC: core.BroadcastMAC, TargetIP: ip})
}

// RARPAnnouncement is what QEMU broadcasts after a live migration: a reverse
// request for its own MAC address, padded to the 60 bytes that QEMU sends.
func RARPAnnouncement(mac core.MAC) Frame {
	return Build(Ethernet{Src: mac, Dst: core.BroadcastMAC},
		ARP{Op: RARPRequestOp, SenderMAC: mac, TargetMAC: mac, Reverse: true}).Padded(60)
}
