package vmware

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// What a VM says of itself is in keys, of its custom attributes or its advanced
// configuration (extraConfig). Not in guestinfo keys, which a guest can write.
//
//	ringwall.kind                   user or system
//	ringwall.groups                 web, bastion         of every NIC
//	ringwall.anti-spoofing          on or off            of every NIC
//	ringwall.nic.MAC.groups         of one NIC, in place of those of every NIC
//	ringwall.nic.MAC.anti-spoofing
//	ringwall.nic.MAC.addresses      10.0.0.1, fd00::1
//	ringwall.nic.MAC.allowed-pairs  10.0.0.100, 10.0.1.0/24
const (
	keyPrefix  = "ringwall."
	nicPrefix  = "ringwall.nic."
	homePrefix = "ringwall.home." // ours: see homeKey
)

// metadata is what an operator says of a VM.
type metadata struct {
	kind core.VMKind
	all  nicMetadata
	nics map[core.MAC]nicMetadata
}

type nicMetadata struct {
	groups    []string
	spoofing  *bool // allowed; nil = not said
	addresses []netip.Addr
	pairs     []core.AddressPair
}

// nic is what is said of one NIC.
func (m metadata) nic(mac core.MAC) nicMetadata {
	out := m.nics[mac]
	if out.groups == nil {
		out.groups = m.all.groups
	}
	if out.spoofing == nil {
		out.spoofing = m.all.spoofing
	}
	return out
}

// keysOf joins a VM's two places for keys. names are those of custom
// attributes.
func (m *machine) keysOf(names map[int32]string) (map[string]string, error) {
	keys := map[string]string{}
	for k, v := range m.config {
		if !strings.HasPrefix(k, homePrefix) {
			keys[k] = v
		}
	}
	var errs []error
	for key, v := range m.fields {
		k := strings.ToLower(names[key])
		if !strings.HasPrefix(k, keyPrefix) {
			continue
		}
		if other, twice := keys[k]; twice && other != v {
			errs = append(errs, &core.FieldError{Path: k, Value: v, Reason: "its custom attribute and its advanced configuration differ: " + other})
		}
		keys[k] = v
	}
	return keys, errors.Join(errs...)
}

// parseMetadata reads keys. What it does not know is an error: what an operator
// misspelt must not be dropped in silence. nil = nothing is said.
func parseMetadata(keys map[string]string) (*metadata, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	m := &metadata{nics: map[core.MAC]nicMetadata{}}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if reason := m.set(k, keys[k]); reason != "" {
			errs = append(errs, &core.FieldError{Path: k, Value: keys[k], Reason: reason})
		}
	}
	return m, errors.Join(errs...)
}

// set takes one key, or says why not.
func (m *metadata) set(key, value string) (reason string) {
	if key == keyPrefix+"kind" {
		kind, err := core.ParseVMKind(value)
		if err != nil {
			return "use user or system"
		}
		m.kind = kind
		return ""
	}
	if rest, one := strings.CutPrefix(key, nicPrefix); one {
		text, field, _ := strings.Cut(rest, ".")
		mac, err := core.ParseMAC(text)
		if err != nil {
			return "the key wants a MAC address: " + nicPrefix + "00:50:56:00:00:01.groups"
		}
		n := m.nics[mac]
		reason = n.set(field, value)
		m.nics[mac] = n
		return reason
	}
	field := strings.TrimPrefix(key, keyPrefix)
	if field != "groups" && field != "anti-spoofing" {
		return "no such key; of a VM there are kind, groups and anti-spoofing"
	}
	return m.all.set(field, value)
}

func (n *nicMetadata) set(field, value string) (reason string) {
	items := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
	switch field {
	case "groups":
		n.groups = items
	case "anti-spoofing":
		if value != "on" && value != "off" {
			return "use on or off"
		}
		off := value == "off"
		n.spoofing = &off
	case "addresses":
		for _, item := range items {
			a, err := netip.ParseAddr(item)
			if err != nil {
				return item + " is not an IP address"
			}
			n.addresses = append(n.addresses, a)
		}
	case "allowed-pairs":
		for _, item := range items {
			p, err := netip.ParsePrefix(item)
			if a, plain := netip.ParseAddr(item); err != nil && plain == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil {
				return item + " is not an IP address or CIDR"
			}
			n.pairs = append(n.pairs, core.AddressPair{Prefix: p.Masked()})
		}
	default:
		return "no such key; of a NIC there are groups, anti-spoofing, addresses and allowed-pairs"
	}
	return ""
}

// instance is the VM in core's words. Faulty keys speak for nobody: the VM has
// no policy then, and is closed.
func (sw *virtualSwitch) instance(m *machine, names map[int32]string) (core.Instance, error) {
	in := core.Instance{VM: core.VM{Key: m.key, Name: m.name}}
	if core.Validate(nil, []core.VM{in.VM}) != nil {
		in.VM.Name = string(m.key) // not printable
	}
	keys, conflict := m.keysOf(names)
	said, err := parseMetadata(keys)
	if err = errors.Join(conflict, err); err != nil {
		err = fmt.Errorf("VM %s: %w", in.VM.Name, err)
		said = nil
	}
	if said != nil {
		in.Claims, in.VM.Kind = true, said.kind
	}
	on := map[int32]card{}
	for _, c := range sw.cards(m) {
		on[c.key] = c
	}
	for _, d := range m.cards {
		e := d.GetVirtualEthernetCard()
		mac, bad := core.ParseMAC(e.MacAddress)
		if bad != nil || slices.ContainsFunc(in.VM.NICs, func(n core.NIC) bool { return n.MAC == mac }) {
			continue // one NIC, however many cards have its MAC: the backend moves all
		}
		nic := core.NIC{MAC: mac}
		if c, connected := on[e.Key]; connected {
			if vlan := sw.primary(sw.groups[c.group]); vlan != 0 {
				nic.Binding = core.Binding{Bridge: bridgeOf(vlan), Devices: []string{deviceOf(mac)}}
			}
		}
		if said != nil {
			claim := said.nic(mac)
			nic.Groups, nic.Addresses, nic.Pairs = claim.groups, claim.addresses, claim.pairs
			nic.SpoofingAllowed = claim.spoofing != nil && *claim.spoofing
		}
		in.VM.NICs = append(in.VM.NICs, nic)
	}
	return in, err
}

// deviceOf names a NIC's port. Port keys change with every move; a MAC does
// not, and two cards with one MAC on one switch are a fault to be shown.
func deviceOf(mac core.MAC) string { return "nic" + strings.ReplaceAll(mac.String(), ":", "") }
