package engine

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// Options make an Engine. State and Backends are needed.
type Options struct {
	State *state.Store
	// Backends by enforcement point; "" is this host. The engine serialises
	// their writing calls and never closes them, save in SwapBackend.
	Backends map[string]core.SecurityGroupBackend
	// Adapter finds VMs. Without one, desired state's own devices and bridges
	// count, and every VM that has them is taken to run here.
	Adapter core.HypervisorAdapter
	Policy  core.Options
	// Derive adds to Policy what desired state itself says, such as bridges
	// that a source has brought under management. nil adds nothing. It must
	// not keep or change what it is given.
	Derive func(core.Options, *state.Snapshot) core.Options
	// Gone is told of VMs with a desired record that have disappeared from
	// this host, and, after a start, of all that are not here; it may take
	// records out. It may be called again for the same VM.
	Gone   func(tx *state.Tx, vms []state.VM) error
	Logger *slog.Logger // nil logs nothing
	Timing Timing
}

// Timing has the engine's times. Zero values become the defaults.
type Timing struct {
	Call       time.Duration // longest for one call of a backend or an adapter; 1 minute
	Observe    time.Duration // between looks for drift; 30 seconds
	Relist     time.Duration // between Lists that nothing asked for; 5 minutes
	Confirm    time.Duration // between an unexpected empty List and the next; 5 seconds
	RetryMin   time.Duration // first pause after a failure; 500 milliseconds
	RetryMax   time.Duration // longest pause; 1 minute
	SweepPause time.Duration // between looks at the tracked flows; 10 milliseconds
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&t.Call, time.Minute}, {&t.Observe, 30 * time.Second}, {&t.Relist, 5 * time.Minute},
		{&t.Confirm, 5 * time.Second}, {&t.RetryMin, 500 * time.Millisecond}, {&t.RetryMax, time.Minute},
		{&t.SweepPause, 10 * time.Millisecond},
	} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	return t
}

func (o Options) check() error {
	switch {
	case o.State == nil:
		return fmt.Errorf("engine: no state: %w", core.ErrInvalid)
	case len(o.Backends) == 0:
		return fmt.Errorf("engine: no backend: %w", core.ErrInvalid)
	}
	for name, b := range o.Backends {
		if b == nil {
			return fmt.Errorf("engine: no backend for enforcement point %q: %w", name, core.ErrInvalid)
		}
	}
	return nil
}
