package core

import (
	"fmt"
	"net/netip"
	"strings"
)

// ReservedGroupPrefix starts the names of groups that a source makes up, one a
// VM, for servers that send flat rules. Users cannot name a group so.
const ReservedGroupPrefix = "cloudstack/"

// Group is a named list of rules. Rules allow; all else is denied.
type Group struct {
	Name  string
	Rules []Rule
}

// Rule allows traffic in one direction. Its families are those of its CIDRs;
// ICMP is IPv4 and ICMPv6 is IPv6; a remote group counts for both.
type Rule struct {
	Direction Direction
	Protocol  Protocol
	Ports     []Span     // tcp, udp, sctp; none = all
	ICMP      *ICMPMatch // icmp, icmpv6; nil = all
	Peers     *Peers     // nil = anybody
}

// Peers is who the other end may be: any of the CIDRs, or any member of any of
// the groups. Both empty = nobody.
type Peers struct {
	CIDRs  []netip.Prefix
	Groups []string
}

// VMKind decides whether rules apply at all.
type VMKind uint8

const (
	// UserVM is filtered by its groups.
	UserVM VMKind = iota
	// SystemVM (virtual router, storage or console VM) passes everything.
	SystemVM
)

func (k VMKind) String() string {
	if k == SystemVM {
		return "system"
	}
	return "user"
}

// ParseVMKind reads "user" or "system"; empty means user.
func ParseVMKind(s string) (VMKind, error) {
	switch s {
	case "", "user":
		return UserVM, nil
	case "system":
		return SystemVM, nil
	}
	return 0, fmt.Errorf("not a kind; use user or system: %w", ErrInvalid)
}

// VMKey identifies a VM: the hypervisor's UUID where it has one, else the name.
type VMKey string

// NICKey identifies a NIC across reboots and migrations.
type NICKey struct {
	VM  VMKey
	MAC MAC
}

func (k NICKey) String() string { return string(k.VM) + "/" + k.MAC.String() }

// ParseNICKey reads what String prints.
func ParseNICKey(s string) (NICKey, error) {
	i := strings.LastIndexByte(s, '/')
	if i < 1 {
		return NICKey{}, fmt.Errorf("%q is not a NIC; use vm/mac: %w", s, ErrInvalid)
	}
	m, err := ParseMAC(s[i+1:])
	if err != nil {
		return NICKey{}, fmt.Errorf("%q: %w", s, err)
	}
	return NICKey{VMKey(s[:i]), m}, nil
}

// MarshalText and UnmarshalText make a NICKey usable as a JSON map key.
func (k NICKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *NICKey) UnmarshalText(b []byte) (err error) {
	*k, err = ParseNICKey(string(b))
	return err
}

// VM is a virtual machine as a source or an adapter describes it.
type VM struct {
	Key  VMKey
	Name string
	Kind VMKind
	NICs []NIC
}

// NIC is one network interface of a VM. Bridge and Devices are bindings: an
// adapter that answers has the last word on them.
type NIC struct {
	MAC       MAC
	Addresses []netip.Addr  // primary and secondary, both families
	Pairs     []AddressPair // further source addresses it may use
	Groups    []string
	// SpoofingAllowed turns off the MAC and address checks of this NIC. The
	// zero value checks.
	SpoofingAllowed bool
	Binding         Binding
}

// Binding says where a NIC is plugged in on this host, for as long as it is.
type Binding struct {
	Bridge  string
	Devices []string // host-side interface names; a Xen NIC has a vif and a tap
	Point   string   // the enforcement point; empty = this host
}

// AddressPair lets a NIC use an address or prefix that is not its own, with its
// own MAC or, for VRRP, another.
type AddressPair struct {
	Prefix netip.Prefix
	MAC    MAC // zero = the NIC's own
}

func (p AddressPair) String() string {
	s := p.Prefix.String()
	if p.Prefix.IsSingleIP() {
		s = p.Prefix.Addr().String()
	}
	if p.MAC != (MAC{}) {
		s += " at " + p.MAC.String()
	}
	return s
}

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
