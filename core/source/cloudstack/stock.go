package cloudstack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/state"
)

// Taking over from the stock script, and giving back to it. A VM that is
// adopted passes everything here, because what the stock script made for it is
// in force; its rules take over in one transaction, and only then does the
// stock script's part go.

// Stock is what the stock script has made of rules, and may have left.
type Stock interface {
	// Remove takes away all that is there for a VM. Where parts of its bridges
	// stay, for other VMs, they let the devices through. left: they do stay.
	Remove(ctx context.Context, vm string, devices []string) (left bool, err error)
}

// Keys of values, beside those of record.go.
const (
	stockKey    = "stock"    // the stock script's rules may be on this host
	staleKey    = "stale/"   // + name: they are left of a VM that is gone
	releasedKey = "released" // the stock script is back
)

func (s *Source) value(key string) bool {
	_, ok := s.engine.Snapshot().Values[state.ValueKey{Source: source, Key: key}]
	return ok
}

func (s *Source) released() bool { return s.value(releasedKey) }

// Adopting says whether rules of the stock script may be on this host.
func (s *Source) Adopting() bool { return s.value(stockKey) }

// takeOver ends adoption. Cards that no call has named are none of CloudStack's.
func (r *record) takeOver() {
	if r.Adopted {
		r.NICs = slices.DeleteFunc(slices.Clone(r.NICs), func(n nic) bool { return n.Found })
	}
	r.Adopted = false
}

// adopt takes over the VMs that the stock script filters, as they run.
func (s *Source) adopt(ctx context.Context) (Answer, error) {
	if s.stock == nil {
		return Answer{}, fmt.Errorf("running VMs cannot be adopted with this backend, whose chains have the names of the stock script's; use the nftables driver, or install on a host without VMs: %w", core.ErrUnsupported)
	}
	if err := s.engine.Refresh(ctx); err != nil {
		return Answer{}, fmt.Errorf("which VMs run is not known: %w", err)
	}
	inv := s.engine.Inventory()
	if !inv.Adapter {
		return Answer{}, fmt.Errorf("which VMs run is not known; name a hypervisor adapter in config (hypervisor.adapter): %w", core.ErrUnsupported)
	}
	var adopted []string
	res, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		adopted = nil
		tx.DeleteValue(source, releasedKey)
		if err := tx.PutValue(source, stockKey, []byte{}); err != nil {
			return err
		}
		for _, in := range inv.VMs {
			log, err := s.files.read(in.VM.Name)
			if _, known, _ := load(tx, in.VM.Name); known || err != nil || !isUserVM(in.VM.Name) {
				continue // ours already, or never filtered
			}
			if err := adoptVM(tx, in, log); err != nil {
				return err
			}
			adopted = append(adopted, in.VM.Name)
		}
		return nil
	})
	if err != nil {
		return Answer{}, err
	}
	for _, n := range res.NICs {
		if slices.Contains(adopted, n.VM) && n.State != engine.Enforced && n.State != engine.Unmanaged && n.State != engine.Pending {
			return Answer{}, fmt.Errorf("vm %s nic %s is %s: %s", n.VM, n.NIC.MAC, n.State, n.Reason)
		}
	}
	return Answer{Text: strings.Join(adopted, "\n")}, nil
}

func adoptVM(tx *state.Tx, in core.Instance, log RuleLog) error {
	r := record{VMID: log.VMID, IP: log.IP, Domain: in.DomainID, Adopted: true, Stock: true}
	for _, n := range in.VM.NICs {
		b := n.Binding.Bridge
		if b == "" {
			continue
		}
		r.NICs = append(r.NICs, nic{MAC: n.MAC, Bridge: b, Device: strings.Join(n.Binding.Devices, ""), Found: true})
		if _, local := tx.Value(source, localKey+b); local || b == DefaultLocalBridge {
			continue
		}
		if err := tx.PutValue(source, bridgeKey+b, []byte{}); err != nil {
			return err
		}
	}
	if err := putRules(tx, in.VM.Name, hold()); err != nil { // they count once it is not adopted any more
		return err
	}
	return save(tx, in.VM.Name, r)
}

// yield takes away the stock script's part of a VM that is held to its rules.
func (s *Source) yield(ctx context.Context, vm string) {
	r, _ := s.record(vm)
	if s.stock == nil || !r.Stock || r.Adopted {
		return
	}
	var devices []string
	in, _ := s.engine.Inventory().Find(vm)
	for _, n := range in.VM.NICs {
		devices = append(devices, n.Binding.Devices...)
	}
	left, err := s.stock.Remove(ctx, vm, devices)
	if err == nil {
		_, err = s.engine.Change(ctx, func(tx *state.Tx) error {
			r, ok, err := load(tx, vm)
			if err != nil || !ok {
				return err
			}
			if !left {
				tx.DeleteValue(source, stockKey)
			}
			r.Stock = false
			return save(tx, vm, r)
		})
	}
	if err != nil {
		s.log.Warn("what the stock script made for a VM is still there beside ours, and both have to allow; it is tried again at the next call", "vm", vm, "error", err)
	}
}

// leaveStock remembers a VM that is gone and has left the stock script's part.
func (s *Source) leaveStock(tx *state.Tx, vm string) error {
	if r, ok, err := load(tx, vm); err != nil || !ok || !r.Stock {
		return err
	}
	return tx.PutValue(source, staleKey+vm, []byte{})
}

// tidyStock takes away what VMs that are gone have left.
func (s *Source) tidyStock(ctx context.Context, gone []string) {
	if s.stock == nil {
		return
	}
	var stale []string
	for k := range s.engine.Snapshot().Values {
		if vm, ok := strings.CutPrefix(k.Key, staleKey); ok && k.Source == source {
			stale = append(stale, vm)
		}
	}
	if s.value(stockKey) {
		stale = append(stale, gone...)
	}
	for _, vm := range stale {
		if _, err := s.stock.Remove(ctx, vm, nil); err != nil {
			s.log.Warn("what the stock script made for a VM that is gone is still there", "vm", vm, "error", err)
			continue
		}
		_, _ = s.engine.Change(ctx, func(tx *state.Tx) error { tx.DeleteValue(source, staleKey+vm); return nil })
	}
	for vm := range records(s.engine.Snapshot()) {
		s.yield(ctx, vm)
	}
}

// release gives the host back: rules stay in force, and every log says -1, so
// that the server sends its rules to the stock script.
func (s *Source) release(ctx context.Context) (Answer, error) {
	var errs []string
	if _, err := s.engine.Change(ctx, func(tx *state.Tx) error { return tx.PutValue(source, releasedKey, []byte{}) }); err != nil {
		return Answer{}, err
	}
	for vm, r := range records(s.engine.Snapshot()) {
		in, _ := s.engine.Inventory().Find(vm)
		r.Announced = false
		if err := s.files.write(vm, r.log(vm, in.DomainID), r.NICs); err != nil {
			errs = append(errs, err.Error())
		}
	}
	return Answer{Warnings: errs}, nil
}

// handOver is how often a host that was given back is looked at.
const handOver = 2 * time.Second

// Run lets go of each VM once the stock script has rewritten its rules, and of
// the bridges after the last, on a host that was given back. It ends with ctx.
func (s *Source) Run(ctx context.Context) {
	tick := time.NewTicker(handOver)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.released() {
				s.letGo(ctx)
			}
		}
	}
}

func (s *Source) letGo(ctx context.Context) {
	rewritten := map[string]bool{}
	for vm := range records(s.engine.Snapshot()) {
		if l, err := s.files.read(vm); err == nil && l.Sequence >= 0 {
			rewritten[vm] = true
		}
	}
	_, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		if _, ok := tx.Value(source, releasedKey); !ok {
			return nil
		}
		held := 0
		for key, v := range tx.VMs() {
			if v.Source != source {
				continue
			}
			r, ok, err := load(tx, string(key))
			if err != nil || !ok {
				return err
			}
			if rewritten[string(key)] && !r.Adopted {
				r.Adopted = true
				if err := save(tx, string(key), r); err != nil {
					return err
				}
			}
			if !r.Adopted {
				held++
			}
		}
		if held > 0 {
			return nil
		}
		for key, v := range tx.VMs() { // nothing of ours is needed any more
			if v.Source == source {
				if err := forget(tx, string(key)); err != nil {
					return err
				}
			}
		}
		for key := range tx.Values(source) {
			tx.DeleteValue(source, key)
		}
		return nil
	})
	if err != nil {
		s.log.Warn("VMs that the stock script filters again are still filtered here, too", "error", err)
	}
}
