package wire

import (
	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// enum maps one enumeration both ways. Zero on the wire is "unspecified" and
// is refused like any other value that is not in the table.
type enum[C, P comparable] struct {
	wire map[C]P
	core map[P]C
}

func enumOf[C, P comparable](wire map[C]P) enum[C, P] {
	e := enum[C, P]{wire, make(map[P]C, len(wire))}
	for c, p := range wire {
		e.core[p] = c
	}
	return e
}

func (e enum[C, P]) encode(c C) P { return e.wire[c] }

func (e enum[C, P]) decode(p P) (C, error) {
	c, ok := e.core[p]
	if !ok {
		return c, malformed("", "%v is not a value that this release knows", p)
	}
	return c, nil
}

var (
	statuses = enumOf(map[core.Status]pb.Status{
		core.StatusOK:        pb.Status_STATUS_OK,
		core.StatusWarning:   pb.Status_STATUS_WARNING,
		core.StatusTransient: pb.Status_STATUS_TRANSIENT,
		core.StatusError:     pb.Status_STATUS_ERROR,
	})
	vmKinds = enumOf(map[core.VMKind]pb.VMKind{
		core.UserVM:   pb.VMKind_VM_KIND_USER,
		core.SystemVM: pb.VMKind_VM_KIND_SYSTEM,
	})
	directions = enumOf(map[core.Direction]pb.Direction{
		core.Ingress: pb.Direction_DIRECTION_INGRESS,
		core.Egress:  pb.Direction_DIRECTION_EGRESS,
	})
	egressDefaults = enumOf(map[core.EgressDefault]pb.EgressDefault{
		core.EgressUntilRules: pb.EgressDefault_EGRESS_DEFAULT_UNTIL_RULES,
		core.EgressExplicit:   pb.EgressDefault_EGRESS_DEFAULT_EXPLICIT,
	})
	multicastModes = enumOf(map[core.MulticastMode]pb.MulticastMode{
		core.MulticastByRules: pb.MulticastMode_MULTICAST_MODE_BY_RULES,
		core.MulticastDrop:    pb.MulticastMode_MULTICAST_MODE_DROP,
	})
	eventKinds = enumOf(map[core.EventKind]pb.EventKind{
		core.EventDrift:    pb.EventKind_EVENT_KIND_DRIFT,
		core.EventRepaired: pb.EventKind_EVENT_KIND_REPAIRED,
		core.EventLost:     pb.EventKind_EVENT_KIND_LOST,
		core.EventPorts:    pb.EventKind_EVENT_KIND_PORTS,
	})
	vmEventKinds = enumOf(map[core.VMEventKind]pb.VMEventKind{
		core.VMResync:  pb.VMEventKind_VM_EVENT_KIND_RESYNC,
		core.VMStarted: pb.VMEventKind_VM_EVENT_KIND_STARTED,
		core.VMStopped: pb.VMEventKind_VM_EVENT_KIND_STOPPED,
		core.VMChanged: pb.VMEventKind_VM_EVENT_KIND_CHANGED,
	})
)
