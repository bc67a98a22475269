package cloudstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/state"
)

// Engine is what a Source needs of an engine.Engine.
type Engine interface {
	Change(context.Context, func(*state.Tx) error) (engine.Result, error)
	Refresh(context.Context) error
	Settle(context.Context) error
	Status() engine.Status
	Inventory() engine.Inventory
	Snapshot() *state.Snapshot
}

// Settings are what an operator chooses.
type Settings struct {
	// AllowBeforeRules lets everything out between a VM's start and its first
	// rules; otherwise only what always passes goes out.
	AllowBeforeRules bool
	Files            string // folder of the stock script's files; empty = none are kept
}

// RefusalTime is how long a lower sequence number is refused. Two answers of
// the server that have overtaken each other are closer; a database that was
// restored keeps offering its number for longer.
const RefusalTime = 30 * time.Second

// Source answers CloudStack's calls. Its methods may be called at once; calls
// for one VM wait for each other.
type Source struct {
	engine   Engine
	settings Settings
	files    files
	stock    Stock
	log      *slog.Logger
	now      func() time.Time
	vms      locks
}

// Options make a Source.
type Options struct {
	Engine   Engine
	Settings Settings
	Stock    Stock            // nil = nothing of the stock script's is ever there
	Logger   *slog.Logger     // nil logs nothing
	Now      func() time.Time // nil = time.Now
}

// New makes a Source. The engine must have been given Derive and Gone.
func New(o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{engine: o.Engine, settings: o.Settings, files: files{o.Settings.Files}, stock: o.Stock, log: o.Logger, now: o.Now}
}

// Call does what is asked. An error says that a NIC or a VM that the call
// names is not safely programmed, or that the call means nothing; nothing has
// changed in the second case (ErrInvalid).
func (s *Source) Call(ctx context.Context, c Call) (Answer, error) {
	if err := c.check(); err != nil {
		return Answer{}, err
	}
	if c.VM != "" {
		defer s.vms.lock(c.VM)()
	}
	switch c.Command {
	case DefaultNetworkRules:
		if IsSystemVM(c.VM) {
			return s.systemVM(ctx, c)
		}
		return s.defaultRules(ctx, c)
	case AddNetworkRules:
		return s.addRules(ctx, c)
	case SecondaryIP:
		return s.secondary(ctx, c)
	case DestroyRules:
		return s.destroy(ctx, c)
	case DefaultSystemVM:
		return s.systemVM(ctx, c)
	case RuleLogs:
		return s.ruleLogs()
	case CleanupRules:
		return s.cleanup(ctx)
	case CanBridgeFirewall:
		return s.ready(ctx)
	case VerifyRules:
		return s.verify(c)
	case Adopt:
		return s.adopt(ctx)
	case Release:
		return s.release(ctx)
	}
	return Answer{}, fmt.Errorf("%s: CloudStack's agent never calls it, and nothing here redirects to a metadata server: %w", c.Command, core.ErrUnsupported)
}

// ready makes the folder of the state files. Whether the host can enforce is
// asked of the backend, not here.
func (s *Source) ready(ctx context.Context) (Answer, error) {
	if err := s.files.prepare(); err != nil {
		s.log.Warn("the stock script's files cannot be kept", "error", err)
	}
	if !s.engine.Inventory().Ready {
		return Answer{}, nil // which VMs are here is not known yet
	}
	return s.cleanup(ctx)
}

// defaultRules brings a NIC under protection.
func (s *Source) defaultRules(ctx context.Context, c Call) (Answer, error) {
	domain := s.look(ctx, c)
	s.announceBridge(c)
	res, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		r, known, err := load(tx, c.VM)
		if err != nil {
			return err
		}
		if known && !c.Check && fresh(r, domain, c.FirstNIC) {
			if err := forget(tx, c.VM); err != nil {
				return err
			}
			r, known = record{}, false
		}
		tx.DeleteValue(source, releasedKey)
		if !known {
			_, r.Stock = tx.Value(source, stockKey)
			if err := putRules(tx, c.VM, s.before()); err != nil {
				return err
			}
		}
		if !c.Check {
			r.Announced = false
		}
		r.Leaving, r.Domain = false, domain
		if c.VMID != "" {
			r.VMID = c.VMID
		}
		if r.IP == "" && c.IP.IsValid() {
			r.IP = c.IP.String()
		}
		r.upsert(c)
		if err := claimDevice(tx, c.VM, c); err != nil {
			return err
		}
		if err := s.manage(tx, c); err != nil {
			return err
		}
		return save(tx, c.VM, r)
	})
	if err == nil {
		err = s.programmed(res, c.VM, c.MAC)
	}
	if err != nil {
		return Answer{}, err
	}
	s.yield(ctx, c.VM)
	return s.written(c.VM), nil
}

// before is the rules of a VM until its own come.
func (s *Source) before() []core.Rule {
	if s.settings.AllowBeforeRules {
		return nil
	}
	return hold()
}

// fresh says whether a VM has been started anew since r. A reboot by the server
// keeps the domain. Where ids are not known, the first NIC's call says so: the
// server sends the rules once more than it would have to.
func fresh(r record, domain string, first bool) bool {
	if r.Domain != "" && domain != "" {
		return r.Domain != domain
	}
	return first
}

// look finds the VM's domain. It asks for a List where the inventory may be
// older than the call, which comes at once after a start: when the VM or the
// NIC is not in it, and when the VM may have been started anew.
func (s *Source) look(ctx context.Context, c Call) (domain string) {
	inv := s.engine.Inventory()
	if !inv.Adapter {
		return ""
	}
	in, ok := inv.Find(c.VM)
	if c.Command == DefaultNetworkRules {
		plugged := slices.ContainsFunc(in.VM.NICs, func(n core.NIC) bool { return n.MAC == c.MAC && n.Binding.Bridge != "" })
		_, known := s.engine.Snapshot().VMs[core.VMKey(c.VM)]
		ok = ok && plugged && (c.Check || !known)
	}
	if !ok {
		if err := s.engine.Refresh(ctx); err != nil {
			s.log.Warn("the hypervisor does not answer; what it said before counts", "vm", c.VM, "error", err)
		}
		in, _ = s.engine.Inventory().Find(c.VM)
	}
	return in.DomainID
}

// manage brings the NIC's bridge under management: the one that the call names,
// and the one that it is really on.
func (s *Source) manage(tx *state.Tx, c Call) error {
	names := []string{c.Bridge}
	if in, ok := s.engine.Inventory().Find(c.VM); ok {
		for _, n := range in.VM.NICs {
			if n.MAC == c.MAC && n.Binding.Bridge != "" {
				names = append(names, n.Binding.Bridge)
			}
		}
	}
	for _, b := range names {
		if _, local := tx.Value(source, localKey+b); local || b == "" || b == DefaultLocalBridge {
			continue
		}
		if err := tx.PutValue(source, bridgeKey+b, []byte{}); err != nil {
			return err
		}
	}
	return nil
}

// announceBridge tells the log who is on a bridge that is about to close.
func (s *Source) announceBridge(c Call) {
	if _, known := s.engine.Snapshot().Values[state.ValueKey{Source: source, Key: bridgeKey + c.Bridge}]; known || c.Bridge == "" {
		return
	}
	var there []string
	for _, n := range s.engine.Status().NICs {
		if n.Bridge == c.Bridge && n.State == engine.Unmanaged && n.VM != c.VM && !IsSystemVM(n.VM) {
			there = append(there, fmt.Sprintf("%s %s at %v", n.VM, n.NIC.MAC, n.Devices))
		}
	}
	s.log.Info("a bridge comes under management: from now on its VM ports pass nothing without a policy", "bridge", c.Bridge, "by", c.VM, "closed_with_it", there)
}

// errElsewhere: the VM does not run here.
var errElsewhere = fmt.Errorf("it does not run here: %w", core.ErrNotReady)

// programmed says why a NIC of a VM, or all that the server has spoken of, are
// not safely programmed. Those that are not plugged in any more do not count
// when others are.
func (s *Source) programmed(res engine.Result, vm string, mac core.MAC) error {
	r, _ := s.record(vm)
	var errs []error
	here := 0
	for _, n := range res.NICs {
		if n.VM != vm || n.State == engine.Pending || r.nic(n.NIC.MAC) == nil || mac != (core.MAC{}) && mac != n.NIC.MAC {
			continue
		}
		here++
		if n.State != engine.Enforced {
			errs = append(errs, fmt.Errorf("vm %s nic %s is %s: %s", vm, n.NIC.MAC, n.State, n.Reason))
		}
	}
	if here == 0 {
		return fmt.Errorf("vm %s: %w", vm, errElsewhere)
	}
	return errors.Join(errs...)
}

// addRules sets the rules of all NICs that are known. The call's device,
// bridge, addresses and MAC are those of the VM's first card, whether or not
// CloudStack filters it: they say nothing of any NIC.
func (s *Source) addRules(ctx context.Context, c Call) (Answer, error) {
	rules, err := ParseRules(c.Rules, separator(c))
	if err != nil {
		return Answer{}, err
	}
	domain := s.look(ctx, c)
	refused := false
	var had record
	res, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		r, ok, err := load(tx, c.VM)
		if err != nil {
			return err
		}
		if !ok || len(r.NICs) == 0 {
			return fmt.Errorf("vm %s: no NIC of it is known; default_network_rules has to come first: %w", c.VM, core.ErrNotReady)
		}
		had = r
		if refused = r.refuses(c.Sequence, s.now()); refused {
			return save(tx, c.VM, r)
		}
		r.Numbered, r.Announced, r.Leaving, r.Refused = true, true, false, nil
		r.takeOver()
		r.Signature, r.Sequence, r.Domain = c.Signature, c.Sequence, domain
		r.VMID, r.IP = c.VMID, ""
		if c.IP.IsValid() {
			r.IP = c.IP.String()
		}
		if err := putRules(tx, c.VM, rules.Core()); err != nil {
			return err
		}
		return save(tx, c.VM, r)
	})
	switch {
	case refused && err == nil:
		return Answer{Warnings: []string{fmt.Sprintf("sequence number %d is lower than %d: refused; it is accepted when it comes again in %s or more", c.Sequence, had.Sequence, RefusalTime)}}, nil
	case err == nil:
		err = s.programmed(res, c.VM, core.MAC{})
	}
	if err != nil {
		return Answer{}, err
	}
	s.yield(ctx, c.VM)
	a := s.written(c.VM)
	a.Warnings = append(rules.Warnings, a.Warnings...)
	return a, nil
}

func separator(c Call) Separator {
	if c.Separator == "" {
		return SeparatorKVM
	}
	return c.Separator
}

// refuses decides about a sequence number, and remembers the refusal.
func (r *record) refuses(sequence int64, now time.Time) bool {
	if !r.Numbered || sequence >= r.Sequence {
		return false
	}
	if f := r.Refused; f != nil && sequence >= f.Sequence {
		return now.Sub(f.At) < RefusalTime
	}
	r.Refused = &refusal{sequence, now}
	return true
}

// secondary adds an address to a NIC, or takes it away.
func (s *Source) secondary(ctx context.Context, c Call) (Answer, error) {
	unknown := false
	res, err := s.engine.Change(ctx, func(tx *state.Tx) error {
		r, _, err := load(tx, c.VM)
		if err != nil {
			return err
		}
		n := r.nic(c.MAC)
		if unknown = n == nil; unknown {
			return nil
		}
		n.Secondary = slices.Clone(n.Secondary)
		for _, p := range c.Secondary {
			i := slices.Index(n.Secondary, p)
			switch {
			case c.Remove && i >= 0:
				n.Secondary = slices.Delete(n.Secondary, i, i+1)
			case !c.Remove && i < 0:
				n.Secondary = append(n.Secondary, p)
			}
		}
		return save(tx, c.VM, r)
	})
	switch {
	case err != nil:
		return Answer{}, err
	case unknown && c.Remove:
		return Answer{}, nil
	case unknown:
		return Answer{}, fmt.Errorf("vm %s nic %s is not known; default_network_rules has to come first: %w", c.VM, c.MAC, core.ErrNotReady)
	}
	if err := s.programmed(res, c.VM, c.MAC); err != nil {
		return Answer{}, err
	}
	return s.written(c.VM), nil
}

// systemVM answers for a VM of CloudStack's own, which passes everything
// because of its name; see SystemVMs.
func (s *Source) systemVM(ctx context.Context, c Call) (Answer, error) {
	if !IsSystemVM(c.VM) {
		return Answer{}, &core.FieldError{Path: "vmname", Value: c.VM, Reason: "not the name of a system VM (r-, s-, v-)"}
	}
	if !s.engine.Inventory().Adapter {
		return Answer{}, fmt.Errorf("vm %s: without a hypervisor adapter the ports of a system VM are not known; name one in config (hypervisor.adapter): %w", c.VM, core.ErrUnsupported)
	}
	if c.LocalBridge != "" {
		if _, err := s.engine.Change(ctx, func(tx *state.Tx) error {
			tx.DeleteValue(source, bridgeKey+c.LocalBridge)
			return tx.PutValue(source, localKey+c.LocalBridge, []byte{})
		}); err != nil {
			return Answer{}, err
		}
	}
	s.look(ctx, c)
	if err := s.engine.Settle(ctx); err != nil {
		s.log.Debug("not everything is in force; what matters is this VM", "vm", c.VM, "error", err)
	}
	in, ok := s.engine.Inventory().Find(c.VM)
	if !ok {
		return Answer{}, fmt.Errorf("vm %s: %w", c.VM, errElsewhere)
	}
	var errs []error
	for _, n := range s.engine.Status().NICs {
		if n.VM == c.VM && n.State != engine.Enforced && n.State != engine.Unmanaged && n.State != engine.Pending {
			errs = append(errs, fmt.Errorf("vm %s nic %s is %s: %s", c.VM, n.NIC.MAC, n.State, n.Reason))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Answer{}, err
	}
	l := RuleLog{VM: c.VM, VMID: "-1", IP: "_ignore_", Domain: in.DomainID, Signature: initialSignature, Sequence: noSequence}
	return s.warned(s.files.write(c.VM, l, nil)), nil
}
