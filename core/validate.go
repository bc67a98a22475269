package core

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what one group may hold; beyond them is a slip or an attack.
const (
	MaxCIDRs   = 100_000   // in one rule
	MaxEntries = 1_000_000 // of one group: CIDRs and remote groups times port ranges
	maxErrors  = 100
)

// ValidateOption loosens Validate.
type ValidateOption func(*validator)

// AllowReserved lets groups have names that only sources may give.
func AllowReserved(v *validator) { v.reserved = true }

// Validate checks desired state, with or without bindings. The error joins a
// *FieldError per fault (errors.Join), each one line; it is an ErrInvalid.
func Validate(groups []Group, vms []VM, opts ...ValidateOption) error {
	v := &validator{groups: map[string]string{}, vms: map[VMKey]string{},
		addresses: map[place]string{}, devices: map[place]string{}}
	for _, o := range opts {
		o(v)
	}
	for i, g := range groups {
		v.groupName(fmt.Sprintf("groups[%d]", i), g.Name)
	}
	for i, g := range groups {
		v.rules(fmt.Sprintf("groups[%d]", i), g.Rules)
	}
	for i, vm := range vms {
		v.vm(fmt.Sprintf("vms[%d]", i), vm)
	}
	if v.more > 0 {
		v.errs = append(v.errs, fmt.Errorf("and %d more faults: %w", v.more, ErrInvalid))
	}
	return errors.Join(v.errs...)
}

type validator struct {
	reserved bool
	errs     []error
	more     int // faults beyond maxErrors
	// Where each was seen first.
	groups    map[string]string
	vms       map[VMKey]string
	addresses map[place]string
	devices   map[place]string
}

// place is an address on a bridge or a device, at one enforcement point.
type place struct {
	point, bridge, what string
}

func (v *validator) fault(path, value, reason string, args ...any) {
	if len(v.errs) == maxErrors {
		v.more++
		return
	}
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	if strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) {
		value = strconv.Quote(value) // one fault, one line
	}
	v.errs = append(v.errs, &FieldError{Path: path, Value: value, Reason: fmt.Sprintf(reason, args...)})
}

func (v *validator) groupName(path, name string) {
	path += ".name"
	switch user, reserved := strings.CutPrefix(name, ReservedGroupPrefix); {
	case name == "":
		v.fault(path, "", "missing")
	case reserved && !v.reserved:
		v.fault(path, name, "names that start with %s are made by their source; choose another", ReservedGroupPrefix)
	case !isGroupName(user):
		v.fault(path, name, "not a group name; use 1 to 63 of letters, digits and . _ : / -, a letter or digit first")
	}
	if first, twice := v.groups[name]; twice {
		v.fault(path, name, "is %s's name too", first)
		return
	}
	v.groups[name] = strings.TrimSuffix(path, ".name")
}

func isGroupName(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i, c := range []byte(s) {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._:/-", rune(c))) {
			return false
		}
	}
	return true
}

func (v *validator) rules(path string, rules []Rule) {
	entries := 0
	for i, r := range rules {
		p := fmt.Sprintf("%s.rules[%d]", path, i)
		v.rule(p, r)
		peers := 1
		if r.Peers != nil {
			peers = len(r.Peers.CIDRs) + len(r.Peers.Groups)
		}
		entries += peers * max(1, len(r.Ports))
	}
	if entries > MaxEntries {
		v.fault(path+".rules", "", "%d combinations of peers and port ranges; a group holds at most %d, use wider CIDRs or ranges", entries, MaxEntries)
	}
}

func (v *validator) rule(path string, r Rule) {
	if r.Direction != Ingress && r.Direction != Egress {
		v.fault(path+".direction", r.Direction.String(), "use ingress or egress")
	}
	if r.Protocol != AnyProtocol && (r.Protocol < 1 || r.Protocol > 255) {
		v.fault(path+".protocol", r.Protocol.String(), "use any, tcp, udp, icmp, icmpv6, sctp or a number from 1 to 255")
	}
	if len(r.Ports) > 0 && !r.Protocol.HasPorts() {
		v.fault(path+".ports", "", "%s has no ports; only tcp, udp and sctp do", r.Protocol)
	}
	for i, s := range r.Ports {
		if s.First > s.Last {
			v.fault(fmt.Sprintf("%s.ports[%d]", path, i), s.String(), "the range ends before it starts")
		}
	}
	if m := r.ICMP; m != nil {
		switch {
		case !r.Protocol.IsICMP():
			v.fault(path+".icmp", "", "%s has no ICMP types; only icmp and icmpv6 do", r.Protocol)
		case m.Type == nil && m.Code != nil:
			v.fault(path+".icmp.code", strconv.Itoa(int(*m.Code)), "a code needs a type")
		}
	}
	if r.Peers != nil {
		v.peers(path+map[Direction]string{Ingress: ".from", Egress: ".to"}[r.Direction], r)
	}
}

func (v *validator) peers(path string, r Rule) {
	if n := len(r.Peers.CIDRs); n > MaxCIDRs {
		v.fault(path+".cidrs", "", "%d CIDRs; a rule holds at most %d", n, MaxCIDRs)
		return
	}
	matches := len(r.Peers.CIDRs) == 0 || len(r.Peers.Groups) > 0
	for i, c := range r.Peers.CIDRs {
		p := fmt.Sprintf("%s.cidrs[%d]", path, i)
		switch {
		case !c.IsValid():
			v.fault(p, "", "not a CIDR; use 10.0.0.0/8 or 2001:db8::/32")
		case c.Addr().Is4In6():
			v.fault(p, c.String(), "an IPv4 address in IPv6 clothes; write it as IPv4")
		default:
			matches = matches || r.Protocol.In(FamilyOf(c.Addr()))
		}
	}
	if !matches {
		v.fault(path+".cidrs", r.Peers.CIDRs[0].String(), "the rule can never match: %s is not in the family of its CIDRs", r.Protocol)
	}
	for i, g := range r.Peers.Groups {
		v.knownGroup(fmt.Sprintf("%s.groups[%d]", path, i), g)
	}
}

func (v *validator) knownGroup(path, name string) {
	if _, ok := v.groups[name]; !ok {
		v.fault(path, name, "there is no such group")
	}
}

func (v *validator) vm(path string, vm VM) {
	switch first, twice := v.vms[vm.Key]; {
	case vm.Key == "":
		v.fault(path+".name", "", "missing")
	case !isText(string(vm.Key)):
		v.fault(path+".key", string(vm.Key), "use at most 255 bytes of printable UTF-8")
	case twice:
		v.fault(path+".name", string(vm.Key), "is %s too", first)
	default:
		v.vms[vm.Key] = path
	}
	if vm.Name != "" && !isText(vm.Name) {
		v.fault(path+".name", vm.Name, "use at most 255 bytes of printable UTF-8")
	}
	if vm.Kind != UserVM && vm.Kind != SystemVM {
		v.fault(path+".kind", strconv.Itoa(int(vm.Kind)), "use user or system")
	}
	macs := map[MAC]int{}
	for i, nic := range vm.NICs {
		p := fmt.Sprintf("%s.nics[%d]", path, i)
		if first, twice := macs[nic.MAC]; twice {
			v.fault(p+".mac", nic.MAC.String(), "is nics[%d]'s too; NICs of a VM are told apart by MAC", first)
		} else {
			macs[nic.MAC] = i
		}
		v.nic(p, nic)
	}
}

// isText: hypervisors allow spaces and any script in names, but a name must
// stay on its line.
func isText(s string) bool {
	return len(s) <= 255 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (v *validator) nic(path string, nic NIC) {
	if nic.MAC == (MAC{}) || nic.MAC.IsGroup() {
		v.fault(path+".mac", nic.MAC.String(), "not a unicast MAC address")
	}
	here := map[netip.Addr]bool{}
	for i, a := range nic.Addresses {
		p := fmt.Sprintf("%s.addresses[%d]", path, i)
		if reason := notUnicast(a); reason != "" {
			v.fault(p, text(a), "%s", reason)
			continue
		}
		if b := nic.Binding.Bridge; b != "" && !here[a] {
			here[a] = true // twice on one NIC is one address
			v.once(v.addresses, place{nic.Binding.Point, b, a.String()}, p, "on bridge "+b)
		}
	}
	for i, pair := range nic.Pairs {
		v.pair(fmt.Sprintf("%s.allowed_pairs[%d]", path, i), pair)
	}
	for i, g := range nic.Groups {
		v.knownGroup(fmt.Sprintf("%s.groups[%d]", path, i), g)
	}
	if b := nic.Binding.Bridge; b != "" && !isInterfaceName(b) {
		v.fault(path+".bridge", b, "not an interface name (1 to 15 bytes without spaces, / or :)")
	}
	for i, d := range nic.Binding.Devices {
		p := fmt.Sprintf("%s.devices[%d]", path, i)
		if !isInterfaceName(d) {
			v.fault(p, d, "not an interface name (1 to 15 bytes without spaces, / or :)")
			continue
		}
		v.once(v.devices, place{point: nic.Binding.Point, what: d}, p, "and a device belongs to one NIC")
	}
}

func (v *validator) once(seen map[place]string, what place, path, why string) {
	if first, twice := seen[what]; twice {
		v.fault(path, what.what, "is %s too, %s", first, why)
		return
	}
	seen[what] = path
}

// pair checks an allowed pair. 0.0.0.0/0 and ::/0 are allowed: a router in a
// VM needs them.
func (v *validator) pair(path string, p AddressPair) {
	if p.MAC.IsGroup() {
		v.fault(path+".mac", p.MAC.String(), "not a unicast MAC address")
	}
	path += ".address"
	if !p.Prefix.IsValid() {
		v.fault(path, "", "missing or not an address or CIDR")
		return
	}
	a := p.Prefix.Masked().Addr()
	if a.IsUnspecified() && !p.Prefix.IsSingleIP() {
		return
	}
	if reason := notUnicast(a); reason != "" {
		v.fault(path, p.Prefix.String(), "%s", reason)
	}
}

// notUnicast says why an address cannot be a NIC's.
func notUnicast(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "missing or not an IP address"
	case a.Is4In6():
		return "an IPv4 address in IPv6 clothes; write it as IPv4"
	case a.Zone() != "":
		return "a NIC's address has no zone; leave out %" + a.Zone()
	case a.IsUnspecified():
		return "the unspecified address is nobody's"
	case a.IsMulticast():
		return "a multicast address is no NIC's own"
	case a.IsLoopback():
		return "a loopback address never leaves its host"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address is no NIC's own"
	}
	return ""
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// isInterfaceName follows the kernel's dev_valid_name.
func isInterfaceName(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) })
}
