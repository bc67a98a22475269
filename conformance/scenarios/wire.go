package scenarios

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Encode renders a frame of the model for the wire. token goes into the payload
// where there is one, so that frames can be told apart.
func Encode(f policy.Frame, token string) (frame.Frame, error) {
	ls := []frame.Layer{frame.Ethernet{Src: f.Src, Dst: f.Dst, Type: uint16(f.EtherType)}}
	switch {
	case f.ARP != nil:
		ls = append(ls, frame.ARP{Op: frame.ARPOp(f.ARP.Op), SenderMAC: f.ARP.SenderMAC, TargetMAC: f.ARP.TargetMAC,
			SenderIP: f.ARP.SenderIP, TargetIP: f.ARP.TargetIP})
	case f.IP != nil:
		inner, err := ipLayers(f.IP, token)
		if err != nil {
			return nil, err
		}
		ls = append(ls, inner...)
	default:
		ls = append(ls, frame.Payload(token))
	}
	out := frame.Build(ls...)
	tags := make([]frame.VLAN, len(f.Tags))
	for i, t := range f.Tags {
		tags[i] = frame.VLAN{TPID: uint16(t.TPID), ID: t.VID}
	}
	return out.Tagged(tags...), nil
}

// EncodeDatagram renders fragments of one datagram, each with its own headers
// (a forged one among honest ones, say) and its slice of the payload.
func EncodeDatagram(fragments []policy.Frame, token string) ([]frame.Frame, error) {
	total, transport := 0, fragments[0].IP.Transport
	for _, f := range fragments {
		if f.IP.Fragment.Offset == 0 {
			transport = f.IP.Transport
		}
		total = max(total, int(f.IP.Fragment.Offset)+int(f.IP.Fragment.Length))
	}
	var out []frame.Frame
	for _, f := range fragments {
		ip := *f.IP
		ip.Fragment = policy.Fragment{}
		ip.Transport = transport
		f.IP = &ip
		whole, err := Encode(f, "")
		if err != nil {
			return nil, err
		}
		if room := total - ipPayload(whole); room > 0 {
			if whole, err = Encode(f, token+strings.Repeat(".", max(0, room-len(token)))); err != nil {
				return nil, err
			}
		}
		if n := ipPayload(whole); n != total {
			return nil, fmt.Errorf("a datagram of %d bytes cannot be rendered in %d", n, total)
		}
		out = append(out, whole)
	}
	for i, f := range fragments {
		g := f.IP.Fragment
		out[i] = out[i].Fragment(int(g.Offset), int(g.Length), g.More, g.ID)
	}
	return out, nil
}

// ipPayload is how many bytes a packet carries behind its IP header.
func ipPayload(f frame.Frame) int {
	if f.EtherType() == frame.TypeIPv4 {
		return len(f.Body()) - 20
	}
	return len(f.Body()) - 40
}

func ipLayers(p *policy.IP, token string) ([]frame.Layer, error) {
	transport, err := transportLayers(p, token)
	if err != nil {
		return nil, err
	}
	if p.Src.Is4() {
		return append([]frame.Layer{frame.IPv4{Src: p.Src, Dst: p.Dst, TTL: p.HopLimit, Protocol: uint8(p.Transport.Protocol())}}, transport...), nil
	}
	head := []frame.Layer{frame.IPv6{Src: p.Src, Dst: p.Dst, HopLimit: p.HopLimit}}
	if m, ok := p.Transport.(policy.ICMPv6); ok && (m.Type == policy.ICMPv6MLDv2Report || m.Type == policy.ICMPv6MLDReport ||
		m.Type == policy.ICMPv6MLDDone || m.Type == policy.ICMPv6MLDQuery) {
		head = append(head, frame.HopByHop{Options: []byte{5, 2, 0, 0}}) // router alert (RFC 2711)
	}
	if raw, ok := p.Transport.(policy.Raw); ok {
		head[0] = frame.IPv6{Src: p.Src, Dst: p.Dst, HopLimit: p.HopLimit, NextHeader: uint8(raw)}
	}
	return append(head, transport...), nil
}

func transportLayers(p *policy.IP, token string) ([]frame.Layer, error) {
	payload := frame.Payload(token)
	switch t := p.Transport.(type) {
	case policy.TCP:
		return []frame.Layer{frame.TCP{SrcPort: t.SrcPort, DstPort: t.DstPort, Seq: 1, Ack: 1, Flags: frame.TCPFlags(t.Flags)}, payload}, nil
	case policy.UDP:
		return []frame.Layer{frame.UDP{SrcPort: t.SrcPort, DstPort: t.DstPort}, payload}, nil
	case policy.SCTP:
		return []frame.Layer{frame.SCTP{SrcPort: t.SrcPort, DstPort: t.DstPort, Chunk: frame.SCTPInit}}, nil
	case policy.ICMP:
		if t.Quote != nil {
			quoted, err := quote(t.Quote)
			return []frame.Layer{frame.ICMP{Type: t.Type, Code: t.Code, Rest: quotedMTU}, quoted}, err
		}
		return []frame.Layer{frame.ICMP{Type: t.Type, Code: t.Code, Rest: uint32(t.ID) << 16}, payload}, nil
	case policy.ICMPv6:
		return icmp6Layers(t, token)
	case policy.Raw:
		return []frame.Layer{payload}, nil
	}
	return nil, fmt.Errorf("no wire form of %T", p.Transport)
}

func icmp6Layers(t policy.ICMPv6, token string) ([]frame.Layer, error) {
	if t.Quote != nil {
		quoted, err := quote(t.Quote)
		return []frame.Layer{frame.ICMPv6{Type: t.Type, Code: t.Code, Rest: quotedMTU}, quoted}, err
	}
	m := frame.ICMPv6{Type: t.Type, Code: t.Code, Rest: uint32(t.ID) << 16}
	switch {
	case t.Target.IsValid():
		target := t.Target.As16()
		return []frame.Layer{m, frame.Payload(target[:])}, nil
	case t.Type == policy.ICMPv6RouterAdvertisement:
		return []frame.Layer{frame.RA{Lifetime: 1800}}, nil
	case t.Type == policy.ICMPv6RouterSolicitation, t.Type >= policy.ICMPv6MLDQuery && t.Type <= policy.ICMPv6MLDDone:
		return []frame.Layer{m, frame.Payload(make([]byte, 16))}, nil
	case t.Type == policy.ICMPv6MLDv2Report:
		return []frame.Layer{m}, nil
	}
	return []frame.Layer{m, frame.Payload(token)}, nil
}

// quote is the packet that an error is about, from its IP header on.
func quote(p *policy.IP) (frame.Layer, error) {
	inner, err := ipLayers(p, "")
	if err != nil {
		return nil, err
	}
	const etherHeader = 14
	b := frame.Build(append([]frame.Layer{frame.Ethernet{Src: core.MAC{2}, Dst: core.MAC{2}}}, inner...)...)
	return frame.Payload(b[etherHeader:]), nil
}

// quotedMTU is what "too big" errors ask for.
const quotedMTU = 1280
