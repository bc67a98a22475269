package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// formatValue prints a value of a type as nft does.
func formatValue(t DataType, data string) string {
	b := []byte(data)
	switch {
	case t.ID == TypeIfName.ID:
		return formatIfName(data)
	case (t.ID == TypeIPv4.ID || t.ID == TypeIPv6.ID) && (len(b) == 4 || len(b) == 16):
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case t.ID == TypeEtherAddr.ID && len(b) == 6:
		return net.HardwareAddr(b).String()
	case t.ID == TypeMark.ID && len(b) == 4:
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b))
	case t.ID == TypeCTState.ID && len(b) == 4:
		return formatCTState(binary.NativeEndian.Uint32(b))
	}
	if t.ID == 0 && !t.Native || len(b) == 0 || len(b) > 8 {
		return fmt.Sprintf("0x%x", b)
	}
	return formatNumber(t, integer(t, b))
}

func integer(t DataType, b []byte) uint64 {
	if t.Native && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		var n uint64
		for i := len(b) - 1; i >= 0; i-- {
			n = n<<8 | uint64(b[i])
		}
		return n
	}
	return number(b)
}

func formatNumber(t DataType, n uint64) string {
	var names map[uint64]string
	switch t.ID {
	case TypeProto.ID:
		names = protocolNames
	case TypeEtherType.ID:
		names = etherTypeNames
	case TypePktType.ID:
		names = pktTypeNames
	case TypeVerdict.ID:
		return formatVerdict(Verdict{Kind: expr.VerdictKind(n)})
	}
	if name := names[n]; name != "" {
		return name
	}
	if t.ID == TypeEtherType.ID {
		return fmt.Sprintf("0x%04x", n)
	}
	return strconv.FormatUint(n, 10)
}

var (
	protocolNames = map[uint64]string{
		unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp",
		unix.IPPROTO_ICMPV6: "ipv6-icmp", unix.IPPROTO_SCTP: "sctp",
	}
	etherTypeNames = map[uint64]string{
		unix.ETH_P_IP: "ip", unix.ETH_P_IPV6: "ip6", unix.ETH_P_ARP: "arp", unix.ETH_P_8021Q: "8021q", unix.ETH_P_8021AD: "8021ad",
	}
	pktTypeNames = map[uint64]string{
		unix.PACKET_HOST: "host", unix.PACKET_BROADCAST: "broadcast", unix.PACKET_MULTICAST: "multicast", unix.PACKET_OTHERHOST: "other",
	}
	ctStateNames = []struct {
		bit  uint32
		name string
	}{
		{expr.CtStateBitINVALID, "invalid"}, {expr.CtStateBitESTABLISHED, "established"}, {expr.CtStateBitRELATED, "related"},
		{expr.CtStateBitNEW, "new"}, {expr.CtStateBitUNTRACKED, "untracked"},
	}
)

func formatCTState(v uint32) string {
	var names []string
	for _, s := range ctStateNames {
		if v&s.bit != 0 {
			names = append(names, s.name)
			v &^= s.bit
		}
	}
	if v != 0 || len(names) == 0 {
		names = append(names, fmt.Sprintf("0x%x", v))
	}
	return strings.Join(names, ",")
}

// formatIfName: a name shorter than its field, as in a comparison, is a prefix.
func formatIfName(data string) string {
	name, _, ended := strings.Cut(data, "\x00")
	if !ended && len(data) < ifNameSize {
		return strconv.Quote(name + "*")
	}
	return strconv.Quote(name)
}

func formatVerdict(v Verdict) string {
	switch v.Kind {
	case expr.VerdictAccept:
		return "accept"
	case expr.VerdictDrop:
		return "drop"
	case expr.VerdictReturn:
		return "return"
	case expr.VerdictContinue:
		return "continue"
	case expr.VerdictJump:
		return "jump " + v.Chain
	case expr.VerdictGoto:
		return "goto " + v.Chain
	}
	return fmt.Sprintf("verdict %d", v.Kind)
}

// formatRange prints an inclusive range: a single value, a prefix, or both ends.
func formatRange(t DataType, lo, hi string) string {
	switch {
	case hi == "" || lo == hi:
		return formatValue(t, lo)
	case t.ID == TypeIfName.ID:
		prefix, _, _ := strings.Cut(lo, "\x00")
		return strconv.Quote(prefix + "*")
	case t.ID == TypeIPv4.ID || t.ID == TypeIPv6.ID:
		if p, ok := prefixOf(lo, hi); ok {
			return p.String()
		}
	}
	return formatValue(t, lo) + "-" + formatValue(t, hi)
}

func prefixOf(lo, hi string) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice([]byte(lo))
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 0
	for bits < a.BitLen() && bitAt(lo, bits) == bitAt(hi, bits) {
		bits++
	}
	p := netip.PrefixFrom(a, bits)
	if f := Prefix(p); f.lo != lo || f.hi != hi {
		return netip.Prefix{}, false
	}
	return p, true
}

func bitAt(s string, i int) byte { return s[i/8] >> (7 - i%8) & 1 }
