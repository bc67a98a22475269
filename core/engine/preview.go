package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/core"
)

// Preview says what every point should hold, by one List of the adapter. It
// needs no Run, and nothing is written anywhere: neither to a backend nor to the
// state. An error is the adapter's, or that of a point whose backend can do
// nothing of what is wanted.
func (e *Engine) Preview(ctx context.Context) (map[string]core.Fingerprint, error) {
	s := stock{ready: true, vms: map[core.VMKey]core.Instance{}}
	if a := e.opts.Adapter; a != nil {
		ctx, cancel := context.WithTimeout(ctx, e.opts.Timing.Call)
		defer cancel()
		instances, err := a.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("looking for VMs: %w", err)
		}
		s.adapter = true
		for _, in := range instances {
			s.vms[in.VM.Key] = in
		}
	}
	_, options := e.now()
	out := map[string]core.Fingerprint{}
	var errs []error
	for name, t := range build(e.input(e.opts.State.Snapshot(), options, s), 0).targets {
		out[name] = t.Fingerprint
		if t.err != nil {
			errs = append(errs, fmt.Errorf("point %q: %w", name, t.err))
		}
	}
	return out, errors.Join(errs...)
}
