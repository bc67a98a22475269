package lab

import (
	"net/netip"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
)

// Port is an interface inside a namespace, seen from within: a station's eth0,
// or a host's own br0.
type Port struct {
	spec    PortSpec
	ns      *Namespace
	station *Station // nil for a host's own
	stack   bool     // see Host.Stack
}

// String is "a/eth0".
func (p *Port) String() string { return p.ns.name + "/" + p.spec.Name }

// Spec is the port as it was asked for, defaults filled in.
func (p *Port) Spec() PortSpec { return p.spec }

// MAC is the interface's own address.
func (p *Port) MAC() core.MAC { return p.spec.MAC }

// Device is the host's end, empty for a host's own port.
func (p *Port) Device() string { return p.spec.Device }

// Namespace is where the port is.
func (p *Port) Namespace() *Namespace { return p.ns }

// Addr is the first address of the family, the zero Addr when there is none.
func (p *Port) Addr(f core.Family) netip.Addr { return firstOf(f, p.spec.Addresses) }

// FlowBetween addresses frames from one port to another with the first address
// of the family that each has.
func FlowBetween(from, to *Port, f core.Family) frame.Flow {
	return frame.Flow{SrcMAC: from.MAC(), DstMAC: to.MAC(), Src: from.Addr(f), Dst: to.Addr(f)}
}

// FlowVia is FlowBetween for a destination behind a router: the frame goes to
// the router's MAC.
func FlowVia(from, to, router *Port, f core.Family) frame.Flow {
	fl := FlowBetween(from, to, f)
	fl.DstMAC = router.MAC()
	return fl
}

func firstOf(f core.Family, prefixes []netip.Prefix) netip.Addr {
	for _, p := range prefixes {
		if core.FamilyOf(p.Addr()) == f {
			return p.Addr()
		}
	}
	return netip.Addr{}
}
