// Package scenarios holds what every backend must do, as tables of values. A
// scenario is a world (groups, VMs, options) and steps: frames with the verdict
// that docs/semantics.md demands, and changes of the world. Run plays it on
// real packets; the same steps are put to the reference evaluator, and all
// three (the table, the evaluator, the packets) must agree.
//
// World and Step are what a table is made of; Model is the evaluator's side of
// a running scenario, Running the packets' side. Other packages play on Running
// too: packets and policies drawn at random, for example.
package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Scenario is one row of the table.
type Scenario struct {
	Name string
	// Rows of docs/semantics.md that it shows, as "sender 10" or "receiver 7",
	// or other headings of that page.
	Rows  []string
	World World
	Steps []Step
	// Needs are features without which the scenario makes no sense.
	Needs []core.Feature
}

// World is what is wanted, and what stands around it. The runner gives it its
// ports: one for each device of a NIC, an uplink on each bridge, and the host.
type World struct {
	Options core.Options
	Groups  []core.Group
	VMs     []core.VM
	// Main is the bridge that "uplink" and the outsiders are on; empty = br0. It
	// is there without being named in Bridges.
	Main string
	// Bridges by name with the host's own addresses on them.
	Bridges map[string][]netip.Prefix
	// Devices are further ports by bridge. They are what Options say of their
	// names: closed ports, uplinks, or nobody's business.
	Devices map[string][]string
	// Routed adds a neighbour "x" behind the host, and lets the host route.
	Routed bool
	// Routes are further ones of the host; all the rest goes to x.
	Routes []Route
	// HostWide leaves the host-wide switches of bridge netfilter on, as
	// kernels do by default; else they are off, as most hypervisors have them.
	HostWide bool
	// PortIPv6 leaves IPv6 on at the host's end of every port, as kernels do by
	// default; else it is off.
	PortIPv6 bool
}

// Step is a frame to send, or a change.
type Step struct {
	Name string
	// From and To name ports: a device (vnet0), "uplink" (of the main bridge),
	// "uplink:br1", "host" (the host's IP stack), a bridge (br0: the host's own
	// end of it, for what is not IP), "x". Frames for the host, and those that
	// it is to route, have the bridge's MAC: see Router.
	From, To string
	Frame    policy.Frame
	// Fragments, when set, are sent in Frame's place, in order.
	Fragments []policy.Frame
	// Flooded: the bridge does not know the frame's destination, or it has many;
	// the frame comes to every port of the bridge.
	Flooded bool
	// Want: the frame arrives at To.
	Want bool
	// Reason, when set, must be the evaluator's.
	Reason core.Reason
	// Uncounted: it may be dropped before the backend sees it, or in pieces, so
	// that no counter need tell.
	Uncounted bool
	// Raw changes the bytes on their way out, for what policy.Frame cannot say.
	Raw func([]byte) []byte
	// Pieces splits an IPv6 frame in a way that policy.Frame cannot say.
	Pieces func(frame.Frame) []frame.Frame

	// Change, when set, alters the world in place of a frame being sent; the
	// backend is told, and flows that are no longer allowed are revoked.
	Change func(*World)
	// Restart closes the backend and opens another one, as an agent that is
	// upgraded does.
	Restart bool
	// Netfilter switches the bridge netfilter of the bridge so named off behind
	// the back of a backend that is not running, or has the backend start and
	// find it off.
	Netfilter *Switch
}

// Switch is the state of a bridge's netfilter.
type Switch struct {
	Bridge string
	On     bool
}

// Router is the MAC of the n-th bridge by name: where frames to the host go.
func Router(n byte) core.MAC { return core.MAC{2, 0, 0, 0, 0xfe, n} }

// The neighbour "x" behind the host, on a device that is no bridge's.
var (
	MACX = core.MAC{2, 0, 0, 0, 0xf9, 0}
	// HostMACX is the host's end: the lab names it as libvirt names taps.
	HostMACX = core.MAC{0xfe, 0, 0, 0, 0xf9, 0}

	x4, x6 = netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:99::9")
	hostX  = prefixes("203.0.113.254/24", "2001:db8:99::fe/64")
)

// DeviceX is the host's device towards "x".
const DeviceX = "eth99"
