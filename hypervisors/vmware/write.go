package vmware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// atOnce is how many VMs are reconfigured at the same time: vCenter queues more.
const atOnce = 8

// writer carries a plan out.
type writer struct {
	client *vim25.Client
	sw     *virtualSwitch
	place
	*plan
}

// network brings port groups and private VLANs into being. Nothing is connected
// to them yet, or it stays blocked until they are whole.
func (w *writer) network(ctx context.Context) error {
	if err := w.create(ctx); err != nil {
		return err
	}
	for _, c := range w.park {
		if c.have != nil {
			if err := w.change(ctx, c); err != nil {
				return err
			}
		}
	}
	if err := w.mapEntries(ctx, types.ConfigSpecOperationAdd, w.add); err != nil {
		return err
	}
	if len(w.park)+len(w.add) > 0 { // keys and versions of port groups are new
		if err := w.reread(ctx); err != nil {
			return err
		}
	}
	for _, c := range w.set {
		if err := w.change(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) reread(ctx context.Context) (err error) {
	w.sw, err = w.read(ctx, w.client)
	return err
}

// ours finds a port group of ours by what is written on it.
func (w *writer) ours(s Segment) (portGroup, error) {
	var found *portGroup
	for _, g := range w.sw.groups {
		if g.mark != nil && g.mark.Segment == s && (found == nil || g.key < found.key) {
			found = &g
		}
	}
	if found == nil {
		return portGroup{}, fmt.Errorf("the port group of %s has gone: %w", s, core.ErrConflict)
	}
	return *found, nil
}

func (w *writer) create(ctx context.Context) error {
	var specs []types.DVPortgroupConfigSpec
	for _, c := range w.park {
		if c.have == nil {
			specs = append(specs, c.mark.spec(c.name, c.setting, w.sw.macManagement))
		}
	}
	if len(specs) == 0 {
		return nil
	}
	res, err := methods.AddDVPortgroup_Task(ctx, w.client, &types.AddDVPortgroup_Task{This: w.sw.ref, Spec: specs})
	if err != nil {
		return switchError("creating port groups", err)
	}
	return switchError("creating port groups", w.wait(ctx, res.Returnval))
}

// change finds the port group by its segment: its key and version are new where
// it was just made.
func (w *writer) change(ctx context.Context, c groupChange) error {
	g, err := w.ours(c.mark.Segment)
	if err != nil {
		return err
	}
	return w.configure(ctx, g, c.mark, c.setting)
}

func (w *writer) configure(ctx context.Context, g portGroup, m mark, s setting) error {
	spec := m.spec(g.name, s, w.sw.macManagement)
	spec.ConfigVersion = g.version
	what := "changing port group " + g.name
	res, err := methods.ReconfigureDVPortgroup_Task(ctx, w.client, &types.ReconfigureDVPortgroup_Task{This: g.ref, Spec: spec})
	if err != nil {
		return switchError(what, err)
	}
	return switchError(what, w.wait(ctx, res.Returnval))
}

// mapEntries changes the switch's private VLAN map, all or nothing.
func (w *writer) mapEntries(ctx context.Context, op types.ConfigSpecOperation, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	spec := &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{ConfigVersion: w.sw.version}}
	for _, e := range entries {
		spec.PvlanConfigSpec = append(spec.PvlanConfigSpec, types.VMwareDVSPvlanConfigSpec{Operation: string(op),
			PvlanEntry: types.VMwareDVSPvlanMapEntry{PrimaryVlanId: int32(e.Primary), SecondaryVlanId: int32(e.Secondary), PvlanType: string(e.Type)}})
	}
	what := "changing the private VLAN map of switch " + w.sw.name
	res, err := methods.ReconfigureDvs_Task(ctx, w.client, &types.ReconfigureDvs_Task{This: w.sw.ref, Spec: spec})
	if err != nil {
		return switchError(what, err)
	}
	return switchError(what, w.wait(ctx, res.Returnval))
}

// switchError is about no NIC: nothing is gained by trying without some.
func switchError(what string, err error) error {
	if err = explain(what, err); err == nil || lost(err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, core.ErrNotReady)
}

func (w *writer) wait(ctx context.Context, task types.ManagedObjectReference) error {
	return object.NewTask(w.client, task).Wait(ctx)
}

// connect moves cards, wave by wave. When one cannot be moved, all go back to
// where they were; that passes through the same states and so opens nothing.
// When time runs out or vCenter is lost they stay: each state on the way is no
// more open than the old and the new one, and the next Sync goes on from there.
func (w *writer) connect(ctx context.Context) error {
	var done []move
	for rest := w.moves; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(m move) bool { return m.wave != rest[0].wave })
		if n < 0 {
			n = len(rest)
		}
		moved, err := w.wave(ctx, rest[:n])
		done, rest = append(done, moved...), rest[n:]
		switch {
		case err == nil:
		case lost(err):
			return fmt.Errorf("%d of %d NICs are where they belong: %w", len(done), len(w.moves), err)
		default:
			return errors.Join(err, w.back(ctx, done))
		}
	}
	return nil
}

// back undoes moves, the last first.
func (w *writer) back(ctx context.Context, done []move) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for i := len(done) - 1; i >= 0; i-- {
		m := done[i]
		p := plug{card: m.card, group: m.card.group, home: m.card.home}
		if m.from != nil {
			g, err := w.ours(*m.from)
			if err != nil {
				return err
			}
			p.group = g.key
			if m.home == "" {
				p.home = m.card.noted()
			}
		}
		if err := w.plug(ctx, m.card.vm, []plug{p}); err != nil {
			return fmt.Errorf("moving NICs back to where they were: %w: %w", err, core.ErrNotReady)
		}
	}
	return nil
}

// noted is the home that the card's VM remembers now.
func (c card) noted() string { return c.vm.config[homeKey(c.key)] }

// plug is where a card goes, and what its VM remembers of where it came from.
type plug struct {
	card  card
	group string
	home  string
}

// wave carries out moves at once, those of one VM in one call, and says which
// were made.
func (w *writer) wave(ctx context.Context, moves []move) (done []move, err error) {
	byVM := map[*machine][]move{}
	var vms []*machine
	for _, m := range moves {
		if byVM[m.card.vm] == nil {
			vms = append(vms, m.card.vm)
		}
		byVM[m.card.vm] = append(byVM[m.card.vm], m)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	var errs []error
	for _, vm := range vms {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			err := w.moveVM(ctx, vm, byVM[vm])
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				done = append(done, byVM[vm]...)
			}
		})
	}
	group.Wait()
	return done, errors.Join(errs...)
}

func (w *writer) moveVM(ctx context.Context, vm *machine, moves []move) error {
	plugs := make([]plug, len(moves))
	var nics []core.NICKey
	for i, m := range moves {
		p := plug{card: m.card, group: m.home}
		if m.home == "" {
			g, err := w.ours(m.to)
			if err != nil {
				return err
			}
			p.group, p.home = g.key, m.card.noted()
			if m.from == nil {
				p.home = m.card.group
			}
		}
		plugs[i], nics = p, append(nics, m.card.nic())
	}
	err := explain("moving NICs of VM "+vm.name, w.plug(ctx, vm, plugs))
	if err == nil || lost(err) {
		return err
	}
	return &core.ObjectError{NICs: nics, Err: err}
}

// plug connects cards and notes their homes in one reconfiguration.
func (w *writer) plug(ctx context.Context, vm *machine, plugs []plug) error {
	var spec types.VirtualMachineConfigSpec
	for _, p := range plugs {
		p.card.device.GetVirtualEthernetCard().Backing = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: w.sw.uuid, PortgroupKey: p.group}}
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit,
			Device: p.card.device.(types.BaseVirtualDevice)})
		if p.home != p.card.noted() {
			spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: homeKey(p.card.key), Value: p.home})
		}
	}
	res, err := methods.ReconfigVM_Task(ctx, w.client, &types.ReconfigVM_Task{This: vm.ref, Spec: spec})
	if err != nil {
		return err
	}
	if err := w.wait(ctx, res.Returnval); err != nil {
		return err
	}
	for _, p := range plugs {
		vm.config[homeKey(p.card.key)] = p.home
	}
	return nil
}

// tidy removes what nobody needs any more. What somebody else still uses stays,
// and is named in the answer.
func (w *writer) tidy(ctx context.Context) (kept []error, err error) {
	note := func(err error) error {
		if inUse(err) {
			kept, err = append(kept, err), nil
		}
		return err
	}
	for _, g := range w.leftovers {
		m := *g.mark
		m.Ruleset = core.Fingerprint{}
		if g.setting == parked {
			continue
		}
		// No private VLAN can go while a port group is on it.
		if err := note(w.configure(ctx, g, m, parked)); err != nil {
			return kept, err
		}
	}
	if len(w.remove) > 0 {
		if err := w.reread(ctx); err != nil {
			return kept, err
		}
		if err := note(w.mapEntries(ctx, types.ConfigSpecOperationRemove, w.remove)); err != nil {
			return kept, err
		}
	}
	if len(kept) > 0 {
		return kept, nil // the port groups are the record of what is left
	}
	for _, g := range w.leftovers {
		what := "removing port group " + g.name
		res, err := methods.Destroy_Task(ctx, w.client, &types.Destroy_Task{This: g.ref})
		if err == nil {
			err = w.wait(ctx, res.Returnval)
		}
		if err := note(switchError(what, err)); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// note writes on the closed port groups which ruleset is in force.
func (w *writer) note(ctx context.Context) error {
	for _, c := range w.record {
		if err := w.change(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
