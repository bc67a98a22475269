package wire

import (
	"net/netip"
	"strings"
	"unicode"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// maxName and maxText bound what one string may hold: names end up in kernel
// objects, metrics and tables, texts on a terminal.
const (
	maxName = 255
	maxText = 64 << 10
)

// name checks an identifier. Control characters would let a plugin write to
// the terminal of whoever lists its VMs.
func name(s string) (string, error) {
	if s == "" {
		return "", malformed("", "missing")
	}
	return nameOrNone(s)
}

func nameOrNone(s string) (string, error) {
	if len(s) > maxName {
		return "", malformed("", "%d bytes long; at most %d are taken", len(s), maxName)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "", malformed("", "%q holds control characters", s)
	}
	return s, nil
}

func names(in []string) ([]string, error) { return decodeAll(in, name) }

// Text makes prose from elsewhere fit to print: lines stay, other control
// characters do not, and its end is cut off beyond 64 KiB.
func Text(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + " [cut]"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func encodeAddr(a netip.Addr) []byte { return a.AsSlice() }

func decodeAddr(b []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, malformed("", "an address of %d octets", len(b))
	}
	return a, nil
}

func encodePrefix(p netip.Prefix) []byte {
	if !p.IsValid() {
		return nil
	}
	return append(p.Addr().AsSlice(), byte(p.Bits()))
}

func decodePrefix(b []byte) (netip.Prefix, error) {
	if len(b) == 0 {
		return netip.Prefix{}, malformed("", "missing")
	}
	a, err := decodeAddr(b[:len(b)-1])
	if err != nil {
		return netip.Prefix{}, err
	}
	p := netip.PrefixFrom(a, int(b[len(b)-1]))
	if !p.IsValid() {
		return netip.Prefix{}, malformed("", "%s with a length of %d bits", a, b[len(b)-1])
	}
	return p, nil
}

func encodeMAC(m core.MAC) []byte {
	if m == (core.MAC{}) {
		return nil
	}
	return m[:]
}

func decodeMAC(b []byte) (core.MAC, error) {
	if len(b) != len(core.MAC{}) {
		return core.MAC{}, malformed("", "a MAC address of %d octets", len(b))
	}
	m := core.MAC(b)
	if m.IsGroup() || m == (core.MAC{}) {
		return core.MAC{}, malformed("", "%s is not a unicast MAC address", m)
	}
	return m, nil
}

func encodeNICKey(k core.NICKey) *pb.NICKey {
	if k == (core.NICKey{}) {
		return nil
	}
	return &pb.NICKey{Vm: string(k.VM), Mac: encodeMAC(k.MAC)}
}

func decodeNICKey(m *pb.NICKey) (core.NICKey, error) {
	vm, err := name(m.GetVm())
	if err != nil {
		return core.NICKey{}, under("vm", err)
	}
	mac, err := decodeMAC(m.GetMac())
	if err != nil {
		return core.NICKey{}, under("mac", err)
	}
	return core.NICKey{VM: core.VMKey(vm), MAC: mac}, nil
}

// nicKeyOrNone takes an absent key for the zero one.
func nicKeyOrNone(m *pb.NICKey) (core.NICKey, error) {
	if m == nil {
		return core.NICKey{}, nil
	}
	return decodeNICKey(m)
}

func encodePair(p core.AddressPair) *pb.AddressPair {
	return &pb.AddressPair{Prefix: encodePrefix(p.Prefix), Mac: encodeMAC(p.MAC)}
}

func decodePair(m *pb.AddressPair) (p core.AddressPair, err error) {
	if err = known(m); err != nil {
		return p, err
	}
	if p.Prefix, err = decodePrefix(m.GetPrefix()); err != nil {
		return p, under("prefix", err)
	}
	if len(m.GetMac()) > 0 {
		if p.MAC, err = decodeMAC(m.GetMac()); err != nil {
			return p, under("mac", err)
		}
	}
	return p, nil
}

func encodeFingerprint(f core.Fingerprint) []byte { return f[:] }

func decodeFingerprint(b []byte) (f core.Fingerprint, err error) {
	if len(b) != len(f) {
		return f, malformed("", "a fingerprint of %d octets", len(b))
	}
	return core.Fingerprint(b), nil
}

// port checks a 16-bit number.
func port(n uint32) (uint16, error) {
	if n > 65535 {
		return 0, malformed("", "%d does not fit into 16 bits", n)
	}
	return uint16(n), nil
}
