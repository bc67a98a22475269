// Package scenarios holds what every backend must do, as tables of values. A
// scenario is a world (groups, VMs, options) and steps: frames with the verdict
// that docs/semantics.md demands, and changes of the world. Run plays it on
// real packets; the same steps are put to the reference evaluator, and all
// three (the table, the evaluator, the packets) must agree.
package scenarios

import (
	"net/netip"

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

// World is what is wanted, and what stands around it. Build gives it its ports:
// a VM port for each NIC's devices, "uplink" on each bridge, "closed" where
// asked for, and the host itself.
type World struct {
	Options core.Options
	Groups  []core.Group
	VMs     []core.VM
	// Bridges by name with the host's own addresses on them. br0 is there
	// without being named.
	Bridges map[string][]netip.Prefix
	// Closed are devices on br0 that look like VM ports and have no policy.
	Closed []string
	// Plain are further devices on br0, uplinks by their name.
	Plain []string
	// Routed adds a neighbour "x" behind the host, and lets the host route.
	Routed bool
	// Unmanaged are devices on a bridge "other0" that is not under management.
	Unmanaged []string
}

// Step is a frame to send, or a change.
type Step struct {
	Name string
	// From and To name ports: a device (vnet0), "uplink" (of br0),
	// "uplink:br1", "host", "x".
	From, To string
	Frame    policy.Frame
	// Fragments, when set, are sent in Frame's place, in order.
	Fragments []policy.Frame
	// Want: the frame arrives at To.
	Want bool
	// Reason, when set, must be the evaluator's.
	Reason core.Reason
	// Raw changes the bytes on their way out, for what policy.Frame cannot say.
	Raw func([]byte) []byte

	// Change, when set, alters the world in place of a frame being sent; the
	// backend is told, and flows that are no longer allowed are revoked.
	Change func(*World)
	// Act does something else to the running world: see Running.
	Act func(*Running) error
}
