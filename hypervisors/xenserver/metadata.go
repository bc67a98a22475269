package xenserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// KeyPrefix starts the keys of other_config that speak of security groups. One
// such key on a VM, or on any of its VIFs, claims the VM.
//
//	VM   ringwall-kind            user | system
//	VM   ringwall-groups          groups of those of its VIFs that have no such key
//	VIF  ringwall-groups          web, bastion
//	VIF  ringwall-addresses       10.1.1.11, fd00::11
//	VIF  ringwall-allowed-pairs   10.1.1.100, 10.1.1.101 at 00:00:5e:00:01:01
//	VIF  ringwall-anti-spoofing   on | off
const KeyPrefix = "ringwall-"

// maxPerNIC bounds a list; beyond it is a slip or an attack.
const maxPerNIC = 1024

// vmMetadata is what a VM's own other_config says.
type vmMetadata struct {
	claims bool
	kind   *core.VMKind
	groups []string
}

// vifMetadata is what a VIF's other_config says.
type vifMetadata struct {
	claims          bool
	groups          []string
	hasGroups       bool
	addresses       []netip.Addr
	pairs           []core.AddressPair
	spoofingAllowed bool
}

func keys(config map[string]string) []string {
	var out []string
	for k := range config {
		if strings.HasPrefix(k, KeyPrefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func parseVM(config map[string]string) (m vmMetadata, err error) {
	f := &faults{}
	for _, k := range keys(config) {
		m.claims = true
		v := config[k]
		switch strings.TrimPrefix(k, KeyPrefix) {
		case "kind":
			kind, err := core.ParseVMKind(v)
			if err != nil || v == "" {
				f.add(k, v, "use user or system")
			}
			m.kind = &kind
		case "groups":
			m.groups = f.groups(k, v)
		default:
			f.add(k, v, "no such key on a VM; there are ringwall-kind and ringwall-groups")
		}
	}
	return m, f.err()
}

func parseVIF(config map[string]string) (m vifMetadata, err error) {
	f := &faults{}
	for _, k := range keys(config) {
		m.claims = true
		v := config[k]
		switch strings.TrimPrefix(k, KeyPrefix) {
		case "groups":
			m.groups, m.hasGroups = f.groups(k, v), true
		case "addresses":
			for _, s := range f.list(k, v) {
				a, err := netip.ParseAddr(s)
				if err != nil {
					f.add(k, s, "not an IP address")
				}
				m.addresses = append(m.addresses, a)
			}
		case "allowed-pairs":
			for _, s := range f.list(k, v) {
				m.pairs = append(m.pairs, f.pair(k, s))
			}
		case "anti-spoofing":
			m.spoofingAllowed = v == "off"
			if v != "on" && v != "off" {
				f.add(k, v, "use on or off")
			}
		default:
			f.add(k, v, "no such key on a VIF; there are ringwall-groups, ringwall-addresses, ringwall-allowed-pairs and ringwall-anti-spoofing")
		}
	}
	if f.errs == nil {
		f.join(validate("ringwall", core.NIC{MAC: core.MAC{2}, Addresses: m.addresses, Pairs: m.pairs}))
	}
	return m, f.err()
}

// validate asks core what a NIC may have.
func validate(path string, n core.NIC) error {
	err := core.Validate(nil, []core.VM{{Key: "vm", NICs: []core.NIC{n}}})
	var fe *core.FieldError
	if errors.As(err, &fe) {
		_, field, _ := strings.Cut(fe.Path, "nics[0].")
		return &core.FieldError{Path: path + "-" + strings.ReplaceAll(field, "_", "-"), Value: fe.Value, Reason: fe.Reason}
	}
	return err
}

// faults collects FieldErrors, a hundred at most.
type faults struct{ errs []error }

func (f *faults) add(path, value, reason string) {
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	f.join(&core.FieldError{Path: path, Value: fmt.Sprintf("%q", value), Reason: reason})
}

func (f *faults) join(err error) {
	if err != nil && len(f.errs) < 100 {
		f.errs = append(f.errs, err)
	}
}

func (f *faults) err() error { return errors.Join(f.errs...) }

// list takes a value apart at its commas.
func (f *faults) list(key, value string) (out []string) {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	for s := range strings.SplitSeq(value, ",") {
		out = append(out, strings.TrimSpace(s))
	}
	if len(out) > maxPerNIC {
		f.add(key, value, fmt.Sprintf("%d of them; at most %d", len(out), maxPerNIC))
		return nil
	}
	return out
}

func (f *faults) groups(key, value string) []string {
	list := f.list(key, value)
	for _, g := range list {
		if core.Validate([]core.Group{{Name: g}}, nil) != nil {
			f.add(key, g, "not a group name")
		}
	}
	return list
}

// pair reads an address or prefix, "at" a MAC of its own.
func (f *faults) pair(key, s string) (p core.AddressPair) {
	where, mac, own := strings.Cut(s, " at ")
	var err error
	if own {
		if p.MAC, err = core.ParseMAC(strings.TrimSpace(mac)); err != nil {
			f.add(key, s, "not a unicast MAC address")
		}
	}
	where = strings.TrimSpace(where)
	if p.Prefix, err = netip.ParsePrefix(where); err != nil {
		a, err := netip.ParseAddr(where)
		if err != nil {
			f.add(key, s, "not an IP address or CIDR; use ADDRESS, or ADDRESS at MAC")
			return p
		}
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	p.Prefix = p.Prefix.Masked()
	return p
}
