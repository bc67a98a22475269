package core

import (
	"fmt"
	"net"
	"net/netip"
)

// MAC is an EUI-48 address. The zero value is no address.
type MAC [6]byte

// BroadcastMAC is ff:ff:ff:ff:ff:ff.
var BroadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseMAC reads a unicast EUI-48 address, for a NIC or an allowed pair.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("not a MAC address; use six octets such as 02:00:00:00:00:01: %w", ErrInvalid)
	}
	m := MAC(hw)
	if m.IsGroup() || m == (MAC{}) {
		return MAC{}, fmt.Errorf("not a unicast MAC address: %w", ErrInvalid)
	}
	return m, nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText and UnmarshalText make a MAC a string in JSON and YAML. Zero is the
// empty one: a pair without a MAC of its own comes back as it was.
func (m MAC) MarshalText() ([]byte, error) {
	if m == (MAC{}) {
		return []byte{}, nil
	}
	return []byte(m.String()), nil
}

func (m *MAC) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	*m, err = ParseMAC(string(b))
	return err
}

// IsGroup says whether the address is multicast or broadcast.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsBridgeReserved says whether the address is 01:80:c2:00:00:00 to :0f, which
// IEEE 802.1D bridges never forward but do hand to the host.
func (m MAC) IsBridgeReserved() bool {
	return m[0] == 0x01 && m[1] == 0x80 && m[2] == 0xc2 && m[3] == 0 && m[4] == 0 && m[5] < 0x10
}

// LinkLocal is the EUI-64 IPv6 link-local address of the MAC (RFC 4291 A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// SolicitedNode is the multicast group ff02::1:ffXX:XXXX that neighbour
// solicitations for an IPv6 address go to (RFC 4291 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 0x01, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}
