package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

func (t EtherType) String() string {
	switch t {
	case TypeIPv4:
		return "IPv4"
	case TypeIPv6:
		return "IPv6"
	case TypeARP:
		return "ARP"
	case TypeRARP:
		return "RARP"
	}
	if t < 0x600 {
		return "LLC"
	}
	return fmt.Sprintf("EtherType 0x%04x", uint16(t))
}

func (f TCPFlags) String() string {
	var b strings.Builder
	for i, c := range "FSRPA" {
		if f>>i&1 != 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}

func (t TCP) String() string    { return fmt.Sprintf("tcp %d>%d [%s]", t.SrcPort, t.DstPort, t.Flags) }
func (t UDP) String() string    { return fmt.Sprintf("udp %d>%d", t.SrcPort, t.DstPort) }
func (t SCTP) String() string   { return fmt.Sprintf("sctp %d>%d", t.SrcPort, t.DstPort) }
func (t ICMP) String() string   { return message("icmp", t.Type, t.Code, t.ID, netip.Addr{}, t.Quote) }
func (t ICMPv6) String() string { return message("icmpv6", t.Type, t.Code, t.ID, t.Target, t.Quote) }
func (r Raw) String() string    { return "protocol " + r.Protocol().String() }

func message(proto string, typ, code uint8, id uint16, target netip.Addr, quote *IP) string {
	s := fmt.Sprintf("%s type %d code %d", proto, typ, code)
	if id != 0 {
		s += fmt.Sprintf(" id %d", id)
	}
	if target.IsValid() {
		s += " target " + target.String()
	}
	if quote != nil {
		s += " about (" + quote.String() + ")"
	}
	return s
}

func (p *IP) String() string {
	s := fmt.Sprintf("%s > %s", p.Src, p.Dst)
	if p.Transport != nil {
		s += " " + p.Transport.String()
	}
	if !p.Fragment.Whole() {
		s += fmt.Sprintf(" fragment %d+%d", p.Fragment.Offset, p.Fragment.Length)
	}
	return s
}

func (a *ARP) String() string {
	op := map[ARPOp]string{ARPRequestOp: "request", ARPReplyOp: "reply", RARPRequestOp: "reverse request", RARPReplyOp: "reverse reply"}[a.Op]
	if op == "" {
		op = fmt.Sprintf("operation %d", a.Op)
	}
	return fmt.Sprintf("%s from %s %s to %s %s", op, a.SenderMAC, a.SenderIP, a.TargetMAC, a.TargetIP)
}

// String says in one line what the frame is.
func (f Frame) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s > %s", f.Src, f.Dst)
	for _, t := range f.Tags {
		name := "802.1Q"
		if t.TPID != TypeVLAN {
			name = t.TPID.String()
		}
		fmt.Fprintf(&b, " %s vlan %d", name, t.VID)
	}
	fmt.Fprintf(&b, " %s", f.EtherType)
	switch {
	case f.IP != nil:
		fmt.Fprintf(&b, " %s", f.IP)
		if f.IP.HopLimit != 64 {
			fmt.Fprintf(&b, " hop limit %d", f.IP.HopLimit)
		}
	case f.ARP != nil:
		fmt.Fprintf(&b, " %s", f.ARP)
	}
	return b.String()
}
