package lab

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
)

// TestSignature: what a path may change leaves it alone, what tells packets
// apart does not.
func TestSignature(t *testing.T) {
	t.Parallel()
	v4 := frame.Flow{SrcMAC: core.MAC{2, 1}, DstMAC: core.MAC{2, 2}, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}
	v6 := frame.Flow{SrcMAC: core.MAC{2, 1}, DstMAC: core.MAC{2, 2}, Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2")}
	udp := frame.UDP{SrcPort: 1, DstPort: 2}
	a, b := v4.UDP(1, 2, "x"), v6.UDP(1, 2, "x")
	arp := frame.ARPRequest(v4.SrcMAC, v4.Src, v4.Dst)
	long := v4.UDP(1, 2, "0123456789")
	same := map[string][2]frame.Frame{
		"MAC":      {a, a.To(core.MAC{9}).From(core.MAC{8})},
		"tag":      {a, a.Tagged(frame.VLAN{ID: 5})},
		"padding":  {a, a.Padded(60)},
		"padding6": {b, b.Padded(90)},
		"arp pad":  {arp, arp.Padded(60)},
		"TTL":      {a, frame.Build(v4.Ethernet(), frame.IPv4{Src: v4.Src, Dst: v4.Dst, TTL: 63}, udp, frame.Payload("x"))},
		"hops":     {b, frame.Build(v6.Ethernet(), frame.IPv6{Src: v6.Src, Dst: v6.Dst, HopLimit: 63}, udp, frame.Payload("x"))},
		"options":  {b, v6.Packet(frame.DestinationOptions{}, udp, frame.Payload("x"))},
	}
	for name, pair := range same {
		if signature(pair[0]) != signature(pair[1]) {
			t.Errorf("%s makes a difference", name)
		}
	}
	different := map[string][2]frame.Frame{
		"family":    {a, b},
		"port":      {a, v4.UDP(1, 3, "x")},
		"payload":   {a, v4.UDP(1, 2, "y")},
		"address":   {b, v6.Reverse().UDP(1, 2, "x")},
		"IP id":     {a, frame.Build(v4.Ethernet(), frame.IPv4{Src: v4.Src, Dst: v4.Dst, ID: 9}, udp, frame.Payload("x"))},
		"fragment":  {long.Fragment(0, 8, true, 1), long.Fragment(0, 8, false, 1)},
		"ARP op":    {arp, v4.ARPReply()},
		"RARP":      {arp, frame.RARPAnnouncement(v4.SrcMAC)},
		"ethertype": {a, a.With(12, 0x88, 0xb5)},
	}
	for name, pair := range different {
		if signature(pair[0]) == signature(pair[1]) {
			t.Errorf("%s makes no difference", name)
		}
	}
	for n := range len(a) { // whatever is captured must not panic
		signature(a[:n])
		signature(b[:n])
	}
}
