package guests

import (
	"fmt"
	"path"
	"strings"

	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/core"
	"libvirt.org/go/libvirtxml"
)

// Spec is a guest.
type Spec struct {
	Name     string
	UUID     string // empty: made up by libvirt
	NICs     []NIC
	Metadata string // XML below <metadata>
	Memory   int    // MiB; zero: 256
	// Boot is what the guest does from its first instruction on.
	Boot probe.Config
}

// NIC is one network card of a guest, on a tap.
type NIC struct {
	MAC    core.MAC
	Bridge string // Linux bridge in the daemon's network namespace
	Device string // name of the tap; empty: vnetN by libvirt
	// Filter is an nwfilter, as in <filterref>; Parameters are its parameters.
	Filter     string
	Parameters []Parameter
	// Network plugs into a libvirt network instead of a bridge.
	Network string
}

// Parameter of an nwfilter reference.
type Parameter struct{ Name, Value string }

func (s Spec) domain(image Image) (*libvirtxml.Domain, error) {
	config, err := s.Boot.Encode()
	if err != nil {
		return nil, err
	}
	d := &libvirtxml.Domain{
		Type: "qemu", Name: s.Name, UUID: s.UUID,
		Memory: &libvirtxml.DomainMemory{Value: uint(orElse(s.Memory, 256)), Unit: "MiB"},
		VCPU:   &libvirtxml.DomainVCPU{Value: 1},
		OS: &libvirtxml.DomainOS{
			Type:   &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
			Kernel: image.Kernel.Image, Initrd: image.Initrd, Cmdline: commandLine(config),
		},
		Features:   &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}},
		CPU:        &libvirtxml.DomainCPU{Mode: "maximum"},
		OnPoweroff: "destroy", OnReboot: "destroy", OnCrash: "destroy",
		Devices: &libvirtxml.DomainDeviceList{
			Emulator: "/usr/bin/" + emulator,
			Serials:  []libvirtxml.DomainSerial{consoleSerial(s.Name), controlSerial(s.Name)},
			// Hot-plugged NICs need a free slot each; q35 has none to spare.
			Controllers: freeSlots(4),
			MemBalloon:  &libvirtxml.DomainMemBalloon{Model: "none"},
		},
	}
	if s.Metadata != "" {
		d.Metadata = &libvirtxml.DomainMetadata{XML: s.Metadata}
	}
	for _, n := range s.NICs {
		d.Devices.Interfaces = append(d.Devices.Interfaces, n.xml())
	}
	return d, nil
}

func consoleSerial(name string) libvirtxml.DomainSerial {
	return libvirtxml.DomainSerial{
		Source: &libvirtxml.DomainChardevSource{File: &libvirtxml.DomainChardevSourceFile{Path: consolePath(name)}},
		Target: &libvirtxml.DomainSerialTarget{Port: new(uint)},
	}
}

func controlSerial(name string) libvirtxml.DomainSerial {
	port := uint(1)
	return libvirtxml.DomainSerial{
		Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{
			Mode: "bind", Path: path.Join(controlPath, name+".sock"),
		}},
		Target: &libvirtxml.DomainSerialTarget{Port: &port},
	}
}

func consolePath(name string) string { return path.Join(controlPath, name+".console") }

func freeSlots(n int) []libvirtxml.DomainController {
	out := []libvirtxml.DomainController{{Type: "pci", Model: "pcie-root"}}
	for range n {
		out = append(out, libvirtxml.DomainController{Type: "pci", Model: "pcie-root-port"})
	}
	return out
}

func (n NIC) xml() libvirtxml.DomainInterface {
	i := libvirtxml.DomainInterface{
		MAC:    &libvirtxml.DomainInterfaceMAC{Address: n.MAC.String()},
		Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Bridge}},
		Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		// Without its option ROM the first frame is the guest kernel's, not
		// that of a boot loader.
		ROM: &libvirtxml.DomainROM{Enabled: "no"},
	}
	if n.Network != "" {
		i.Source = &libvirtxml.DomainInterfaceSource{Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: n.Network}}
	}
	if n.Device != "" {
		i.Target = &libvirtxml.DomainInterfaceTarget{Dev: n.Device}
	}
	if n.Filter != "" {
		i.FilterRef = &libvirtxml.DomainInterfaceFilterRef{Filter: n.Filter}
		for _, p := range n.Parameters {
			i.FilterRef.Parameters = append(i.FilterRef.Parameters, libvirtxml.DomainInterfaceFilterParam{Name: p.Name, Value: p.Value})
		}
	}
	return i
}

// validName keeps a name usable as a file's.
func validName(name string) error {
	if name == "" || strings.ContainsAny(name, "/ \t\n") || len(name) > 32 {
		return fmt.Errorf("guest name %q: use 1 to 32 characters without slash and space: %w", name, core.ErrInvalid)
	}
	return nil
}
