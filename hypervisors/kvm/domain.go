package kvm

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// maxXML is more than libvirt itself sends or takes in one message.
const maxXML = 16 << 20

// ParseOptions change what a domain means.
type ParseOptions struct {
	// CloudStackNames makes VMs named r-N-..., s-N-..., v-N-... and l-N-... system
	// VMs, when metadata does not say otherwise.
	CloudStackNames bool
}

// Domain is a libvirt domain: what matters of its XML.
type Domain struct {
	UUID       string
	Name       string
	Active     bool        // it runs, or is paused
	ID         string      // of this run; empty when it does not run
	System     bool        // by its name; see ParseOptions
	Interfaces []Interface // in the order of the XML
	// Metadata is nil when the domain carries none of ours. Faulty metadata
	// leaves it empty but set: it claims the VM and allows nothing.
	Metadata *Metadata
	// Problems are what could not be used, each a line for the log.
	Problems []error
}

// Interface is a network card of a domain.
type Interface struct {
	Type      string // libvirt's word: bridge, network, ethernet, direct, hostdev, ...
	MAC       core.MAC
	Device    string       // tap; empty when libvirt names none
	Bridge    string       // empty when the XML does not say
	Network   string       // libvirt network, resolved to Bridge when the domain runs
	Filter    string       // nwfilter that guards the tap
	Addresses []netip.Addr // from the nwfilter's parameters IP and IPV6
	// OpenVSwitch: plugged into an Open vSwitch bridge, past every hook that
	// enforces security groups.
	OpenVSwitch bool
}

// domainXML has only strings, so that no number of an unrelated device can
// spoil a domain, and only what is used.
type domainXML struct {
	XMLName  xml.Name    `xml:"domain"`
	ID       string      `xml:"id,attr"` // of a domain that runs
	Name     string      `xml:"name"`
	UUID     string      `xml:"uuid"`
	Metadata metadataXML `xml:"metadata"`
	Devices  struct {
		Interfaces []interfaceXML `xml:"interface"`
	} `xml:"devices"`
}

type interfaceXML struct {
	Type string `xml:"type,attr"`
	MAC  struct {
		Address string `xml:"address,attr"`
	} `xml:"mac"`
	// A running domain's network interface is of type bridge with both set,
	// from libvirt 5.1 on.
	Source struct {
		Bridge  string `xml:"bridge,attr"`
		Network string `xml:"network,attr"`
	} `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
	} `xml:"target"`
	VirtualPort struct {
		Type string `xml:"type,attr"`
	} `xml:"virtualport"`
	FilterRef struct {
		Filter     string `xml:"filter,attr"`
		Parameters []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"parameter"`
	} `xml:"filterref"`
}

// ParseDomain reads the XML of a domain, as libvirt gives it to hooks and to
// virsh dumpxml. It does no I/O. An error, an ErrInvalid, means that the text
// is no domain at all; anything less is among Problems.
func ParseDomain(text string, o ParseOptions) (Domain, error) {
	if len(text) > maxXML {
		return Domain{}, fmt.Errorf("domain XML of %d bytes, more than libvirt's own limit: %w", len(text), core.ErrInvalid)
	}
	var x domainXML
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return Domain{}, fmt.Errorf("domain XML: %w: %w", err, core.ErrInvalid)
	}
	d := Domain{UUID: x.UUID, Name: x.Name, Active: x.ID != "", ID: x.ID}
	if d.UUID == "" {
		return Domain{}, fmt.Errorf("domain XML without a uuid: %w", core.ErrInvalid)
	}
	if err := core.Validate(nil, []core.VM{{Key: core.VMKey(d.UUID)}}); err != nil {
		return Domain{}, fmt.Errorf("domain XML: uuid: %w", err)
	}
	if core.Validate(nil, []core.VM{{Key: "name", Name: d.Name}}) != nil {
		d.problem("name", d.Name, "not printable; the uuid is shown instead")
		d.Name = d.UUID
	}
	d.System = o.CloudStackNames && systemName.MatchString(d.Name)
	for i, ix := range x.Devices.Interfaces {
		d.addInterface(fmt.Sprintf("interface[%d]", i), ix)
	}
	var err error
	if d.Metadata, err = x.Metadata.parse(); err != nil {
		d.Problems = append(d.Problems, err)
	}
	return d, nil
}

// systemName: routers, storage, console and load-balancer VMs.
var systemName = regexp.MustCompile(`^[rsvl]-[0-9]+-`)

func (d *Domain) problem(path, value, reason string) {
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	d.Problems = append(d.Problems, &core.FieldError{Path: path, Value: fmt.Sprintf("%q", value), Reason: reason})
}

func (d *Domain) addInterface(path string, x interfaceXML) {
	mac, err := core.ParseMAC(x.MAC.Address)
	if err != nil {
		d.problem(path+".mac", x.MAC.Address, "not a unicast MAC address; the NIC stays closed")
		return
	}
	i := Interface{
		Type: x.Type, MAC: mac, Network: x.Source.Network, Filter: x.FilterRef.Filter,
		OpenVSwitch: x.VirtualPort.Type == "openvswitch",
		Bridge:      d.interfaceName(path+".source.bridge", x.Source.Bridge),
		Device:      d.interfaceName(path+".target.dev", x.Target.Dev),
	}
	if i.Device == "" {
		i.Bridge = "" // plugged in nowhere yet
	}
	for _, p := range x.FilterRef.Parameters {
		if p.Name != "IP" && p.Name != "IPV6" {
			continue
		}
		a, err := parseAddress(p.Value)
		if err != nil {
			d.problem(path+".filterref."+p.Name, p.Value, "not an address a NIC can have; left out")
			continue
		}
		i.Addresses = append(i.Addresses, a)
	}
	d.Interfaces = append(d.Interfaces, i)
}

// interfaceName gives "" for what the kernel would not take.
func (d *Domain) interfaceName(path, name string) string {
	probe := core.VM{Key: "name", NICs: []core.NIC{{MAC: core.MAC{2}, Binding: core.Binding{Devices: []string{name}}}}}
	if name == "" || core.Validate(nil, []core.VM{probe}) == nil {
		return name
	}
	d.problem(path, name, "not an interface name; the NIC stays closed")
	return ""
}

// parseAddress takes what may be a NIC's own address.
func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("not an IP address: %w", core.ErrInvalid)
	}
	return a, core.Validate(nil, []core.VM{{Key: "address", NICs: []core.NIC{{MAC: core.MAC{2}, Addresses: []netip.Addr{a}}}}})
}

// Instance is the domain in core's words. A NIC that is not on a Linux bridge
// (macvtap, passthrough, Open vSwitch, user networking) has no binding: nothing
// here can enforce anything on it, and Preflight says so.
func (d Domain) Instance() core.Instance {
	in := core.Instance{VM: core.VM{Key: core.VMKey(d.UUID), Name: d.Name}, Claims: d.Metadata != nil, DomainID: d.ID}
	if d.System {
		in.VM.Kind = core.SystemVM
	}
	if d.Metadata != nil && d.Metadata.Kind != nil {
		in.VM.Kind = *d.Metadata.Kind
	}
	taken := map[string]bool{}
	for _, i := range d.Interfaces {
		if taken[i.Device] {
			i.Device = "" // libvirt lets no two cards have one tap
		}
		d.plug(&in.VM, i)
		taken[i.Device] = i.Device != ""
	}
	return in
}

// plug adds a NIC. Two cards with one MAC (a bond inside the guest) are one NIC
// with two devices when they share a bridge; else the first counts and the
// other stays closed, since a NIC is on one bridge.
func (d Domain) plug(vm *core.VM, i Interface) {
	binding := i.binding()
	if at := slices.IndexFunc(vm.NICs, func(n core.NIC) bool { return n.MAC == i.MAC }); at >= 0 {
		b := &vm.NICs[at].Binding
		switch {
		case len(b.Devices) == 0:
			*b = binding
		case b.Bridge == binding.Bridge:
			b.Devices = append(b.Devices, binding.Devices...)
			slices.Sort(b.Devices)
		}
		return
	}
	nic := core.NIC{MAC: i.MAC, Addresses: i.Addresses, Binding: binding}
	if d.Metadata != nil {
		claim := d.Metadata.NIC(i.MAC)
		nic.Pairs, nic.Groups, nic.SpoofingAllowed = claim.Pairs, claim.Groups, claim.SpoofingAllowed
		if len(claim.Addresses) > 0 {
			nic.Addresses = claim.Addresses
		}
	}
	vm.NICs = append(vm.NICs, nic)
}

func (i Interface) binding() core.Binding {
	if i.Device == "" || i.Bridge == "" || i.OpenVSwitch {
		return core.Binding{}
	}
	return core.Binding{Bridge: i.Bridge, Devices: []string{i.Device}}
}

// describe names a card for a message.
func (i Interface) describe() string {
	return strings.TrimSpace(fmt.Sprintf("NIC %s %s", i.MAC, i.Device))
}
