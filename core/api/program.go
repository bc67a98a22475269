package api

import (
	"context"
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
)

// ProgramRequest is a VM that is about to run, as the XML says that libvirt
// gives its hook.
type ProgramRequest struct {
	Key    core.VMKey `json:"key"`
	Name   string     `json:"name"`
	Kind   string     `json:"kind"`   // user or system
	Claims bool       `json:"claims"` // see core.Instance
	// DomainID is the hypervisor's number for this life of the VM.
	DomainID string       `json:"domain_id,omitempty"`
	NICs     []ProgramNIC `json:"nics"`
}

// ProgramNIC is a NIC with the devices that are there for it already.
type ProgramNIC struct {
	MAC             core.MAC      `json:"mac"`
	Bridge          string        `json:"bridge,omitempty"`
	Devices         []string      `json:"devices,omitempty"`
	Point           string        `json:"point,omitempty"` // empty = this host
	Addresses       []netip.Addr  `json:"addresses,omitempty"`
	Pairs           []ProgramPair `json:"allowed_pairs,omitempty"`
	Groups          []string      `json:"groups,omitempty"`
	SpoofingAllowed bool          `json:"spoofing_allowed,omitempty"`
}

// ProgramPair is a core.AddressPair.
type ProgramPair struct {
	Address netip.Prefix `json:"address"`
	MAC     *core.MAC    `json:"mac,omitempty"` // none: the NIC's own
}

// ProgramResult says how each NIC of the VM stands that runs here.
type ProgramResult struct {
	NICs []engine.Programmed `json:"nics"`
}

// Program is Service's, over the socket.
func (c *Client) Program(ctx context.Context, in ProgramRequest) (ProgramResult, error) {
	return call[ProgramResult](ctx, c, "program", in)
}

// NewProgramRequest puts an instance into words.
func NewProgramRequest(in core.Instance) ProgramRequest {
	r := ProgramRequest{Key: in.VM.Key, Name: in.VM.Name, Kind: in.VM.Kind.String(), Claims: in.Claims, DomainID: in.DomainID}
	for _, n := range in.VM.NICs {
		p := ProgramNIC{MAC: n.MAC, Bridge: n.Binding.Bridge, Devices: n.Binding.Devices, Point: n.Binding.Point,
			Addresses: n.Addresses, Groups: n.Groups, SpoofingAllowed: n.SpoofingAllowed}
		for _, pair := range n.Pairs {
			wire := ProgramPair{Address: pair.Prefix}
			if pair.MAC != (core.MAC{}) {
				wire.MAC = &pair.MAC
			}
			p.Pairs = append(p.Pairs, wire)
		}
		r.NICs = append(r.NICs, p)
	}
	return r
}

// Instance is what NewProgramRequest was given. What no VM can have is an
// ErrInvalid that names the field.
func (r ProgramRequest) Instance() (core.Instance, error) {
	kind, err := core.ParseVMKind(r.Kind)
	if err != nil {
		return core.Instance{}, &core.FieldError{Path: "kind", Value: r.Kind, Reason: "use user or system"}
	}
	vm := core.VM{Key: r.Key, Name: r.Name, Kind: kind}
	for _, n := range r.NICs {
		nic := core.NIC{MAC: n.MAC, Addresses: n.Addresses, Groups: n.Groups, SpoofingAllowed: n.SpoofingAllowed,
			Binding: core.Binding{Bridge: n.Bridge, Devices: n.Devices, Point: n.Point}}
		for _, p := range n.Pairs {
			pair := core.AddressPair{Prefix: p.Address}
			if p.MAC != nil {
				pair.MAC = *p.MAC
			}
			nic.Pairs = append(nic.Pairs, pair)
		}
		vm.NICs = append(vm.NICs, nic)
	}
	// Which groups there are is for the engine to know, and closes the VM alone.
	groups := make([]core.Group, 0, len(vm.NICs))
	known := map[string]bool{}
	for _, n := range vm.NICs {
		for _, g := range n.Groups {
			if !known[g] {
				known[g] = true
				groups = append(groups, core.Group{Name: g})
			}
		}
	}
	if err := core.Validate(groups, []core.VM{vm}, core.AllowReserved); err != nil {
		return core.Instance{}, err
	}
	return core.Instance{VM: vm, Claims: r.Claims, DomainID: r.DomainID}, nil
}
