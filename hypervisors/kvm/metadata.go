package kvm

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Namespace of the element below a domain's <metadata> that says which groups
// its NICs are in, and Key is the prefix that virsh metadata wants with it.
//
//	<ringwall:vm xmlns:ringwall="urn:ringwall:vm:1" kind="user">
//	  <ringwall:nic mac="52:54:00:00:00:01" anti-spoofing="on">
//	    <ringwall:address>10.1.1.11</ringwall:address>
//	    <ringwall:allowed-pair address="10.1.1.100" mac="00:00:5e:00:01:01"/>
//	    <ringwall:group>web</ringwall:group>
//	  </ringwall:nic>
//	</ringwall:vm>
const (
	Namespace = "urn:ringwall:vm:1"
	Key       = "ringwall"

	// namespaces of other versions are ours too, and must not go unnoticed.
	namespacePrefix = "urn:ringwall:"
)

// Limits of metadata; beyond them is a slip or an attack.
const (
	maxMetadataNICs = 256
	maxPerNIC       = 1024 // addresses, pairs, groups, each
)

// Metadata is what an operator says about a domain.
type Metadata struct {
	Kind *core.VMKind // nil: not said
	NICs []NICMetadata
}

// NICMetadata is what an operator says about a NIC. A NIC that Metadata does
// not name has no group and no address: it passes nothing.
type NICMetadata struct {
	MAC             core.MAC
	Addresses       []netip.Addr
	Pairs           []core.AddressPair
	Groups          []string
	SpoofingAllowed bool
}

// NIC finds what is said about a NIC, nothing if it is not named.
func (m Metadata) NIC(mac core.MAC) NICMetadata {
	for _, n := range m.NICs {
		if n.MAC == mac {
			return n
		}
	}
	return NICMetadata{MAC: mac}
}

// ParseMetadata reads the element that Namespace shows. Everything it does not
// know is an error: what an operator misspelt must not be dropped in silence.
// Errors are FieldErrors, joined.
func ParseMetadata(text string) (Metadata, error) {
	if len(text) > maxXML {
		return Metadata{}, fmt.Errorf("metadata of %d bytes, more than libvirt's own limit: %w", len(text), core.ErrInvalid)
	}
	var v vmXML
	if err := xml.Unmarshal([]byte(text), &v); err != nil {
		return Metadata{}, fmt.Errorf("metadata: %w: %w", err, core.ErrInvalid)
	}
	return v.parse()
}

// strict catches what a form does not have.
type strict struct {
	Attrs    []xml.Attr `xml:",any,attr"`
	Elements []alien    `xml:",any"`
	Text     string     `xml:",chardata"`
}

type alien struct {
	XMLName xml.Name
}

type metadataXML struct {
	VMs    []vmXML `xml:"urn:ringwall:vm:1 vm"`
	Others []alien `xml:",any"` // other software's, and faults of ours
}

type vmXML struct {
	XMLName xml.Name `xml:"urn:ringwall:vm:1 vm"`
	Kind    *string  `xml:"kind,attr"`
	NICs    []nicXML `xml:"urn:ringwall:vm:1 nic"`
	strict
}

type nicXML struct {
	MAC          string    `xml:"mac,attr"`
	AntiSpoofing *string   `xml:"anti-spoofing,attr"`
	Addresses    []leafXML `xml:"urn:ringwall:vm:1 address"`
	Pairs        []pairXML `xml:"urn:ringwall:vm:1 allowed-pair"`
	Groups       []leafXML `xml:"urn:ringwall:vm:1 group"`
	strict
}

// leafXML is an element that holds only text.
type leafXML struct {
	Value    string     `xml:",chardata"`
	Attrs    []xml.Attr `xml:",any,attr"`
	Elements []alien    `xml:",any"`
}

type pairXML struct {
	Address string  `xml:"address,attr"`
	MAC     *string `xml:"mac,attr"`
	strict
}

// parse gives nil when there is none of ours, and an empty one beside an error:
// faulty metadata claims the VM but allows nothing.
func (x metadataXML) parse() (*Metadata, error) {
	f := &faults{}
	for _, o := range x.Others {
		if strings.HasPrefix(o.XMLName.Space, namespacePrefix) {
			f.add("metadata", o.XMLName.Space+" "+o.XMLName.Local, "not known here; use one vm element in namespace "+Namespace)
		}
	}
	switch {
	case len(x.VMs) == 0 && f.errs == nil:
		return nil, nil
	case len(x.VMs) > 1:
		f.add("metadata", "", fmt.Sprintf("%d vm elements; use one", len(x.VMs)))
	case len(x.VMs) == 1:
		m, err := x.VMs[0].parse()
		if err == nil && f.errs == nil {
			return &m, nil
		}
		f.join(err)
	}
	return &Metadata{}, f.err()
}

func (x vmXML) parse() (Metadata, error) {
	f := &faults{}
	f.strict("vm", x.strict)
	var m Metadata
	if x.Kind != nil {
		k, err := core.ParseVMKind(*x.Kind)
		if err != nil || *x.Kind == "" {
			f.add("vm.kind", *x.Kind, "use user or system")
		}
		m.Kind = &k
	}
	if len(x.NICs) > maxMetadataNICs {
		f.add("vm", "", fmt.Sprintf("%d nic elements; at most %d", len(x.NICs), maxMetadataNICs))
		return Metadata{}, f.err()
	}
	for i, n := range x.NICs {
		m.NICs = append(m.NICs, n.parse(f, fmt.Sprintf("vm.nic[%d]", i)))
	}
	if f.errs == nil {
		f.join(m.validate())
	}
	if f.errs != nil {
		return Metadata{}, f.err()
	}
	return m, nil
}

func (x nicXML) parse(f *faults, path string) (n NICMetadata) {
	f.strict(path, x.strict)
	var err error
	if n.MAC, err = core.ParseMAC(x.MAC); err != nil {
		f.add(path+".mac", x.MAC, "not a unicast MAC address")
	}
	if x.AntiSpoofing != nil {
		n.SpoofingAllowed = *x.AntiSpoofing == "off"
		if *x.AntiSpoofing != "on" && *x.AntiSpoofing != "off" {
			f.add(path+".anti-spoofing", *x.AntiSpoofing, "use on or off")
		}
	}
	if most := max(len(x.Addresses), len(x.Pairs), len(x.Groups)); most > maxPerNIC {
		f.add(path, "", fmt.Sprintf("%d elements of one kind; at most %d", most, maxPerNIC))
		return n
	}
	for i, leaf := range x.Addresses {
		at := fmt.Sprintf("%s.address[%d]", path, i)
		f.strict(at, strict{leaf.Attrs, leaf.Elements, ""})
		a, err := netip.ParseAddr(strings.TrimSpace(leaf.Value))
		if err != nil {
			f.add(at, leaf.Value, "not an IP address")
		}
		n.Addresses = append(n.Addresses, a)
	}
	for i, p := range x.Pairs {
		n.Pairs = append(n.Pairs, p.parse(f, fmt.Sprintf("%s.allowed-pair[%d]", path, i)))
	}
	for i, leaf := range x.Groups {
		f.strict(fmt.Sprintf("%s.group[%d]", path, i), strict{leaf.Attrs, leaf.Elements, ""})
		n.Groups = append(n.Groups, strings.TrimSpace(leaf.Value))
	}
	return n
}

func (x pairXML) parse(f *faults, path string) (p core.AddressPair) {
	f.strict(path, x.strict)
	var err error
	if p.Prefix, err = netip.ParsePrefix(x.Address); err != nil {
		a, err := netip.ParseAddr(x.Address)
		if err != nil {
			f.add(path+".address", x.Address, "not an IP address or CIDR")
			return p
		}
		p.Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	p.Prefix = p.Prefix.Masked()
	if x.MAC != nil {
		if p.MAC, err = core.ParseMAC(*x.MAC); err != nil {
			f.add(path+".mac", *x.MAC, "not a unicast MAC address")
		}
	}
	return p
}

// validate asks core what a NIC may have, and says it in this form's words.
func (m Metadata) validate() error {
	vm := core.VM{Key: "vm"}
	var groups []core.Group
	known := map[string]bool{}
	for _, n := range m.NICs {
		vm.NICs = append(vm.NICs, core.NIC{MAC: n.MAC, Addresses: n.Addresses, Pairs: n.Pairs, Groups: n.Groups})
		for _, g := range n.Groups {
			if !known[g] {
				known[g] = true
				groups = append(groups, core.Group{Name: g})
			}
		}
	}
	return inMetadataWords(core.Validate(groups, []core.VM{vm}))
}

var metadataWords = strings.NewReplacer("vms[0].", "vm.", "nics[", "nic[", "addresses[", "address[", "allowed_pairs[", "allowed-pair[", "groups[", "group[")

func inMetadataWords(err error) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	f := &faults{}
	for _, e := range joined.Unwrap() {
		var fe *core.FieldError
		if errors.As(e, &fe) {
			e = &core.FieldError{Path: metadataWords.Replace(fe.Path), Value: fe.Value, Reason: metadataWords.Replace(fe.Reason)}
		}
		f.join(e)
	}
	return f.err()
}

// faults collects FieldErrors, a hundred at most.
type faults struct {
	errs []error
}

func (f *faults) add(path, value, reason string) {
	if len(value) > 100 {
		value = value[:100] + "..."
	}
	if value != "" {
		value = fmt.Sprintf("%q", value)
	}
	f.join(&core.FieldError{Path: path, Value: value, Reason: reason})
}

func (f *faults) join(err error) {
	if err != nil && len(f.errs) < 100 {
		f.errs = append(f.errs, err)
	}
}

func (f *faults) err() error { return errors.Join(f.errs...) }

func (f *faults) strict(path string, s strict) {
	for _, a := range s.Attrs {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			f.add(path, a.Name.Local, "no such attribute")
		}
	}
	for _, e := range s.Elements {
		f.add(path, e.XMLName.Local, "no such element in namespace "+Namespace)
	}
	if t := strings.TrimSpace(s.Text); t != "" {
		f.add(path, t, "text where elements belong")
	}
}
