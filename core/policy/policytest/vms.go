package policytest

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"pgregory.net/rapid"
)

// VRRPMAC is what pairs with a MAC of their own use.
var VRRPMAC = core.MAC{0x00, 0x00, 0x5e, 0x00, 0x01, 0x05}

// NICAddress is the n-th address of a NIC's place on its bridge: 0 is its
// primary one. Equal places on two bridges have equal addresses.
func NICAddress(f core.Family, place, n int) netip.Addr {
	last := byte(10 + place + 50*n)
	if f == core.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, 0, last})
	}
	// fd00::10 is the first, so that prefixes end between places as in IPv4.
	return netip.AddrFrom16([16]byte{0xfd, 14: byte(n), 15: byte(0x10 + place)})
}

// NICMAC is that of a place on a bridge.
func NICMAC(bridge, place int) core.MAC { return core.MAC{0x02, 0, 0, 0, byte(bridge), byte(place)} }

// Device is the tap of a place on a bridge.
func Device(bridge, place int) string { return fmt.Sprintf("vnet%d", bridge*100+place) }

var sharedPairs = []core.AddressPair{
	{Prefix: netip.MustParsePrefix("10.0.0.100/32")},
	{Prefix: netip.MustParsePrefix("10.0.0.101/32"), MAC: VRRPMAC},
	{Prefix: netip.MustParsePrefix("10.9.0.3/24")},
	{Prefix: netip.MustParsePrefix("fd00::100/128")},
	{Prefix: netip.MustParsePrefix("fd00:9::/64"), MAC: VRRPMAC},
	{Prefix: netip.MustParsePrefix("0.0.0.0/0")},
}

// vms draws VMs of one or two NICs, and one that is on another host.
func (s Shape) vms(t *rapid.T, groups []string) []core.VM {
	var vms []core.VM
	for b, bridge := range s.Bridges {
		for place := range rapid.IntRange(1, s.NICs).Draw(t, "nics on "+bridge) {
			nic := s.nic(t, b, place, groups)
			nic.Binding = core.Binding{Bridge: bridge, Devices: []string{Device(b, place)}}
			if n := len(vms); n > 0 && s.can(core.FeatureMultiNIC) && rapid.IntRange(0, 3).Draw(t, "second nic") == 0 {
				vms[n-1].NICs = append(vms[n-1].NICs, nic)
				continue
			}
			vm := core.VM{Key: core.VMKey(fmt.Sprintf("vm-%d-%d", b, place)), Name: fmt.Sprintf("i-2-%d%d-VM", b, place), NICs: []core.NIC{nic}}
			if s.can(core.FeatureSystemVM) && rapid.IntRange(0, 9).Draw(t, "system") == 0 {
				vm.Kind = core.SystemVM
			}
			vms = append(vms, vm)
		}
	}
	far := s.nic(t, len(s.Bridges), 9, groups)
	return append(vms, core.VM{Key: "vm-far", Name: "i-2-99-VM", NICs: []core.NIC{far}})
}

func (s Shape) nic(t *rapid.T, bridge, place int, groups []string) core.NIC {
	nic := core.NIC{MAC: NICMAC(bridge, place)}
	for _, f := range core.Families {
		if f == core.IPv6 && !s.can(core.FeatureIPv6) {
			continue
		}
		for n := range rapid.SampledFrom([]int{1, 1, 1, 2, 0}).Draw(t, "addresses") {
			nic.Addresses = append(nic.Addresses, NICAddress(f, place, n))
		}
	}
	if s.can(core.FeaturePairs) && rapid.IntRange(0, 2).Draw(t, "pairs") == 0 {
		for _, p := range rapid.SliceOfN(rapid.SampledFrom(sharedPairs), 1, 2).Draw(t, "pairs") {
			if core.FamilyOf(p.Prefix.Addr()) == core.IPv4 || s.can(core.FeatureIPv6) {
				nic.Pairs = append(nic.Pairs, p)
			}
		}
	}
	nic.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 2, rapid.ID[string]).Draw(t, "groups")
	if len(nic.Groups) == 0 && rapid.Bool().Draw(t, "a group after all") {
		nic.Groups = groups[:1:1]
	}
	// Who may speak with any address speaks in both families.
	nic.SpoofingAllowed = s.can(core.FeatureNoAntiSpoof) && s.can(core.FeatureIPv4) && s.can(core.FeatureIPv6) && rapid.IntRange(0, 7).Draw(t, "spoofing") == 0
	return nic
}
