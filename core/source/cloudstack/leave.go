package cloudstack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// destroy says good-bye to a VM or to one of its NICs. It comes before the VM
// is stopped, which may take minutes or fail.
func (s *Source) destroy(ctx context.Context, c Call) (Answer, error) {
	one := c.MAC != core.MAC{} || c.IP.IsValid()
	_, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		r, ok, err := load(tx, c.VM)
		if err != nil || !ok {
			return err
		}
		switch {
		case one:
			r.NICs = slices.DeleteFunc(slices.Clone(r.NICs), func(n nic) bool {
				return n.MAC == c.MAC || c.MAC == core.MAC{} && n.IP == c.IP
			})
			if len(r.NICs) == 0 {
				return forget(tx, c.VM)
			}
		case s.here(c.VM): // its rules stay, ours or the stock script's
			r.Leaving, r.Announced, r.Numbered, r.Refused = true, false, false, nil
		default:
			return forget(tx, c.VM)
		}
		return save(tx, c.VM, r)
	})
	if err != nil {
		return Answer{}, err
	}
	if !one {
		return s.gone(c.VM), nil
	}
	if _, left := s.record(c.VM); !left {
		return s.gone(c.VM), nil
	}
	return Answer{}, nil
}

// here says whether the hypervisor knows the VM as running. Where nobody can
// tell it is not: its ports are closed then.
func (s *Source) here(vm string) bool {
	inv := s.engine.Inventory()
	if !inv.Adapter {
		return false
	}
	_, ok := inv.Find(vm)
	return ok || !inv.Ready
}

// cleanup takes out VMs that do not run here, and those that were on their way.
func (s *Source) cleanup(ctx context.Context) (Answer, error) {
	if err := s.engine.Refresh(ctx); err != nil {
		s.log.Warn("the hypervisor does not answer", "error", err)
	}
	inv := s.engine.Inventory()
	if inv.Adapter && !inv.Ready {
		return Answer{}, fmt.Errorf("the hypervisor has not answered yet, so nothing is cleaned up: %w", core.ErrNotReady)
	}
	var gone []string
	_, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		gone = nil
		for key, v := range tx.VMs() {
			if v.Source != source {
				continue
			}
			vm := string(key)
			r, _, err := load(tx, vm)
			if err != nil {
				return err
			}
			_, here := inv.Find(vm)
			if !inv.Adapter {
				here = slices.ContainsFunc(r.NICs, func(n nic) bool { return s.files.device(n.Device) })
			}
			if here && !r.Leaving {
				continue
			}
			if err := forget(tx, vm); err != nil {
				return err
			}
			gone = append(gone, vm)
		}
		return nil
	})
	if err != nil {
		return Answer{}, err
	}
	s.tidyStock(ctx, gone)
	var a Answer
	for _, vm := range gone {
		a.Warnings = append(a.Warnings, s.gone(vm).Warnings...)
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		s.log.Info("cleaned up", "vms", strings.Join(gone, " "))
	}
	return a, nil
}

// Gone takes out VMs that have disappeared from this host; see engine.Options.
func (s *Source) Gone(tx *state.Tx, vms []state.VM) error {
	var errs []error
	for _, v := range vms {
		if v.Source != source {
			continue
		}
		if err := errors.Join(s.leaveStock(tx, v.Name), forget(tx, v.Name)); err != nil {
			errs = append(errs, err)
			continue
		}
		s.gone(v.Name)
	}
	return errors.Join(errs...)
}
