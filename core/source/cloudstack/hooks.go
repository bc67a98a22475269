package cloudstack

import (
	"context"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// DefaultLocalBridge is the bridge between a host and its system VMs, which is
// never under management.
const DefaultLocalBridge = "cloud0"

// Derive adds the bridges that calls have named to those under management; see
// engine.Options.
func Derive(o core.Options, s *state.Snapshot) core.Options {
	bridges, local := slices.Clone(o.Bridges), append(slices.Clone(o.Unmanaged), DefaultLocalBridge)
	for k := range s.Values {
		if k.Source != source {
			continue
		}
		if name, ok := strings.CutPrefix(k.Key, bridgeKey); ok && !core.MatchAny(o.Bridges, name) {
			bridges = append(bridges, core.Pattern(name))
		}
		if name, ok := strings.CutPrefix(k.Key, localKey); ok {
			local = append(local, core.Pattern(name))
		}
	}
	// A ruleset's options are compared and hashed as they stand.
	slices.Sort(bridges[len(o.Bridges):])
	slices.Sort(local[len(o.Unmanaged):])
	o.Bridges, o.Unmanaged = bridges, slices.Compact(local)
	return o
}

// systemVMs is an adapter that says of CloudStack's own VMs that they are
// system VMs: the server makes no call for a NIC that it plugs into one later.
type systemVMs struct{ core.HypervisorAdapter }

// SystemVMs makes a system VM of every VM that has the name of one and that
// hypervisor metadata does not speak for.
func SystemVMs(a core.HypervisorAdapter) core.HypervisorAdapter { return systemVMs{a} }

func asSystemVM(in core.Instance) core.Instance {
	if !in.Claims && IsSystemVM(in.VM.Name) {
		in.Claims, in.VM.Kind = true, core.SystemVM
	}
	return in
}

func (a systemVMs) List(ctx context.Context) ([]core.Instance, error) {
	all, err := a.HypervisorAdapter.List(ctx)
	out := make([]core.Instance, len(all))
	for i, in := range all {
		out[i] = asSystemVM(in)
	}
	return out, err
}

func (a systemVMs) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	events, err := a.HypervisorAdapter.Watch(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan core.VMEvent)
	go func() {
		defer close(out)
		for e := range events {
			e.Instance = asSystemVM(e.Instance)
			select {
			case out <- e:
			case <-ctx.Done():
			}
		}
	}()
	return out, nil
}
