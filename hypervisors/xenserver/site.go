package xenserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Site is what XAPI says of the VMs in view.
type Site struct {
	VMs      map[xapi.Ref]xapi.VM
	VIFs     map[xapi.Ref]xapi.VIF
	Networks map[xapi.Ref]xapi.Network
	Hosts    map[xapi.Ref]xapi.Host
}

// NewSite is an empty one.
func NewSite() *Site {
	return &Site{map[xapi.Ref]xapi.VM{}, map[xapi.Ref]xapi.VIF{}, map[xapi.Ref]xapi.Network{}, map[xapi.Ref]xapi.Host{}}
}

// View says which VMs an adapter shows and what their parts mean.
type View struct {
	// Host is the UUID of the only host in view; empty = the whole pool, and
	// every NIC's enforcement point is its host's UUID.
	Host string
	// CloudStackNames makes VMs named r-N-..., s-N-..., v-N-... and l-N-... system
	// VMs, when metadata does not say otherwise.
	CloudStackNames bool
}

var systemName = regexp.MustCompile(`^[rsvl]-[0-9]+-`)

// take puts an event's record in its place, and says which VMs it is about; all
// says that it is about any of them.
func (s *Site) take(e xapi.Event) (vms []xapi.Ref, all bool, err error) {
	switch e.Class {
	case "vm":
		return []xapi.Ref{e.Ref}, false, place(s.VMs, e)
	case "vif":
		before, had := s.VIFs[e.Ref]
		err := place(s.VIFs, e)
		if had {
			vms = append(vms, before.VM)
		}
		if now, ok := s.VIFs[e.Ref]; ok && now.VM != before.VM {
			vms = append(vms, now.VM)
		}
		return vms, false, err
	case "network":
		before := s.Networks[e.Ref]
		err := place(s.Networks, e)
		return nil, before != s.Networks[e.Ref], err
	case "host":
		before := s.Hosts[e.Ref].UUID
		err := place(s.Hosts, e)
		return nil, before != s.Hosts[e.Ref].UUID, err
	}
	return nil, false, nil
}

func place[T any](table map[xapi.Ref]T, e xapi.Event) error {
	if e.Operation == "del" {
		delete(table, e.Ref)
		return nil
	}
	var record T
	if err := json.Unmarshal(e.Snapshot, &record); err != nil {
		return fmt.Errorf("record of %s %s: %w: %w", e.Class, e.Ref, err, core.ErrNotReady)
	}
	table[e.Ref] = record
	return nil
}

// Instances are all VMs in view, sorted by key, and what could not be used of
// them, by name.
func (s *Site) Instances(v View) ([]core.Instance, []error) {
	var out []core.Instance
	var problems []error
	for ref := range s.VMs {
		if in, faults, ok := s.Instance(ref, v); ok {
			out = append(out, in)
			problems = append(problems, faults...)
		}
	}
	slices.SortFunc(out, func(a, b core.Instance) int { return compare(a.VM.Key, b.VM.Key) })
	return out, problems
}

func compare(a, b core.VMKey) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Instance is one VM, when it is present and in view. What cannot be used of it
// stays closed and is told.
func (s *Site) Instance(ref xapi.Ref, v View) (in core.Instance, problems []error, ok bool) {
	vm, known := s.VMs[ref]
	host, resident := s.Hosts[vm.ResidentOn]
	if !known || !vm.Present() || !resident || v.Host != "" && host.UUID != v.Host {
		return in, nil, false
	}
	if core.Validate(nil, []core.VM{{Key: core.VMKey(vm.UUID)}}) != nil {
		return in, []error{fmt.Errorf("a VM whose uuid %q is none: %w", vm.UUID, core.ErrInvalid)}, false
	}
	fault := func(err error) { problems = append(problems, fmt.Errorf("vm %s: %w", in.VM.Name, err)) }
	in.VM = core.VM{Key: core.VMKey(vm.UUID), Name: vm.Name}
	in.DomainID = strconv.FormatInt(int64(vm.Domid), 10)
	if core.Validate(nil, []core.VM{{Key: "name", Name: vm.Name}}) != nil {
		in.VM.Name = vm.UUID
		fault(&core.FieldError{Path: "name_label", Value: fmt.Sprintf("%q", vm.Name), Reason: "not printable; the uuid is shown instead"})
	}
	said := s.metadata(vm)
	in.Claims = said.claims
	if said.err != nil {
		fault(said.err)
	}
	if v.CloudStackNames && systemName.MatchString(vm.Name) {
		in.VM.Kind = core.SystemVM
	}
	if said.kind != nil {
		in.VM.Kind = *said.kind
	}
	for _, c := range said.cards {
		nic, err := s.nic(vm, c)
		if err != nil {
			fault(fmt.Errorf("vif %s: %w", c.vif.Device, err))
		}
		if nic.MAC == (core.MAC{}) {
			continue
		}
		if v.Host == "" && len(nic.Binding.Devices) > 0 {
			nic.Binding.Point = host.UUID
		}
		if slices.ContainsFunc(in.VM.NICs, func(n core.NIC) bool { return n.MAC == nic.MAC }) {
			fault(fmt.Errorf("vif %s: MAC %s is another VIF's of this VM too; this one stays closed: %w", c.vif.Device, nic.MAC, core.ErrConflict))
			continue
		}
		in.VM.NICs = append(in.VM.NICs, nic)
	}
	return in, problems, true
}

// card is a VIF with what its other_config says.
type card struct {
	vif  xapi.VIF
	said vifMetadata
}

// sayings is all that a VM's metadata comes to.
type sayings struct {
	claims bool
	kind   *core.VMKind
	cards  []card // plugged in, by device
	err    error
}

// metadata reads other_config of a VM and of its cards. One fault and nothing of
// it counts, but it claims the VM: the VM is closed.
func (s *Site) metadata(vm xapi.VM) (out sayings) {
	m, err := parseVM(vm.OtherConfig)
	errs := []error{err}
	out.claims, out.kind = m.claims, m.kind
	for _, ref := range vm.VIFs {
		vif, ok := s.VIFs[ref]
		if !ok {
			continue // its event comes later
		}
		said, err := parseVIF(vif.OtherConfig)
		if err != nil {
			errs = append(errs, fmt.Errorf("vif %s: %w", vif.Device, err))
		}
		out.claims = out.claims || said.claims
		if !said.hasGroups {
			said.groups = m.groups
		}
		if vif.Attached {
			out.cards = append(out.cards, card{vif, said})
		}
	}
	slices.SortFunc(out.cards, func(a, b card) int {
		x, _ := strconv.Atoi(a.vif.Device)
		y, _ := strconv.Atoi(b.vif.Device)
		return x - y
	})
	if out.err = errors.Join(errs...); out.err != nil {
		out.kind = nil
		for i := range out.cards {
			out.cards[i].said = vifMetadata{}
		}
	}
	return out
}

// nic is a card in core's words. An error beside a NIC says what was left out of
// it, beside a zero one that there is none.
func (s *Site) nic(vm xapi.VM, c card) (core.NIC, error) {
	mac, err := core.ParseMAC(c.vif.MAC)
	if err != nil {
		return core.NIC{}, &core.FieldError{Path: "MAC", Value: c.vif.MAC, Reason: "not a unicast MAC address; the NIC stays closed"}
	}
	n := core.NIC{MAC: mac, Addresses: c.said.addresses, Pairs: c.said.pairs, Groups: c.said.groups, SpoofingAllowed: c.said.spoofingAllowed}
	device, err := strconv.ParseUint(c.vif.Device, 10, 16)
	if err != nil {
		return n, &core.FieldError{Path: "device", Value: c.vif.Device, Reason: "not a number; the NIC stays closed"}
	}
	network, ok := s.Networks[c.vif.Network]
	if !ok {
		return n, fmt.Errorf("its network %s is not known yet: %w", c.vif.Network, core.ErrNotReady)
	}
	mode := c.vif.LockingMode
	if mode == "network_default" || mode == "" {
		mode = network.DefaultLockingMode
	}
	if mode == "disabled" {
		return n, nil // XAPI wants its port closed, and a NIC without a binding is
	}
	n.Binding = core.Binding{Bridge: network.Bridge, Devices: Devices(int64(vm.Domid), device)}
	if err := validate("network", core.NIC{MAC: n.MAC, Binding: n.Binding}); err != nil {
		n.Binding = core.Binding{}
		return n, err
	}
	return n, lock(&n, c.vif, mode)
}

// lock brings in the addresses that XAPI itself knows. Where XAPI locks a VIF
// its word is the last: what metadata says beyond it is left out.
func lock(n *core.NIC, vif xapi.VIF, mode string) error {
	var known []netip.Addr
	f := &faults{}
	for field, list := range map[string][]string{"ipv4_allowed": vif.IPv4Allowed, "ipv6_allowed": vif.IPv6Allowed} {
		for _, text := range list {
			a, err := netip.ParseAddr(text)
			if err == nil {
				err = validate(field, core.NIC{MAC: core.MAC{2}, Addresses: []netip.Addr{a}})
			}
			if err != nil {
				f.add(field, text, "not an address a NIC can have; left out")
				continue
			}
			known = append(known, a)
		}
	}
	slices.SortFunc(known, netip.Addr.Compare)
	if len(n.Addresses) == 0 {
		n.Addresses = known
	}
	if mode == "locked" {
		n.Addresses = slices.DeleteFunc(slices.Clone(n.Addresses), func(a netip.Addr) bool {
			beyond := !slices.Contains(known, a)
			if beyond {
				f.add(KeyPrefix+"addresses", a.String(), "XAPI has locked the VIF to other addresses; left out")
			}
			return beyond
		})
		n.Pairs = slices.DeleteFunc(slices.Clone(n.Pairs), func(p core.AddressPair) bool {
			beyond := p.MAC != (core.MAC{}) && p.MAC != n.MAC || !p.Prefix.IsSingleIP() || !slices.Contains(known, p.Prefix.Addr())
			if beyond {
				f.add(KeyPrefix+"allowed-pairs", p.String(), "XAPI has locked the VIF to other addresses; left out")
			}
			return beyond
		})
		if n.SpoofingAllowed {
			n.SpoofingAllowed = false
			f.add(KeyPrefix+"anti-spoofing", "off", "XAPI has locked the VIF; it stays on")
		}
	}
	return f.err()
}

// Devices are the host's ends of a card: its PV interface, and the one of its
// emulated card, which only HVM guests have and only until their drivers are up.
func Devices(domid int64, device uint64) []string {
	return []string{fmt.Sprintf("tap%d.%d", domid, device), fmt.Sprintf("vif%d.%d", domid, device)}
}

// equal says whether two instances say the same.
func equal(a, b core.Instance) bool {
	if a.Claims != b.Claims || a.DomainID != b.DomainID || a.VM.Key != b.VM.Key || a.VM.Name != b.VM.Name || a.VM.Kind != b.VM.Kind {
		return false
	}
	return slices.EqualFunc(a.VM.NICs, b.VM.NICs, func(a, b core.NIC) bool {
		return a.MAC == b.MAC && a.SpoofingAllowed == b.SpoofingAllowed && slices.Equal(a.Addresses, b.Addresses) &&
			slices.Equal(a.Pairs, b.Pairs) && slices.Equal(a.Groups, b.Groups) &&
			a.Binding.Bridge == b.Binding.Bridge && a.Binding.Point == b.Binding.Point && slices.Equal(a.Binding.Devices, b.Binding.Devices)
	})
}
