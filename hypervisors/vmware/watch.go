package vmware

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// How long vCenter may hold a question for changes, and how much longer its
// answer may take before it is given up.
const (
	holdSeconds = 30
	patience    = 20 * time.Second
)

// Watch implements core.HypervisorAdapter. It does not fail while vCenter is
// down: the first Resync comes when it is up.
//
// An update of vCenter is only a hint to look at the VM again.
func (a *Adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	out := make(chan core.VMEvent)
	go func() {
		defer close(out)
		pause, level := a.backoff, slog.LevelWarn
		for ctx.Err() == nil {
			w := watcher{Adapter: a, out: out, known: map[types.ManagedObjectReference]core.VM{}}
			err := w.run(ctx)
			if ctx.Err() != nil {
				return
			}
			if w.synced {
				pause, level = a.backoff, slog.LevelWarn
			}
			a.log.Log(ctx, level, "vCenter is out of sight; what is enforced stays, changes wait", "retry_in", pause, "error", err)
			level = slog.LevelDebug // said once
			sleep(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, 50*a.backoff)
		}
	}()
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// watcher is Watch for as long as one collector of vCenter lasts.
type watcher struct {
	*Adapter
	out    chan<- core.VMEvent
	synced bool
	survey survey
	known  map[types.ManagedObjectReference]core.VM // those that run: key and name
}

func (w *watcher) run(ctx context.Context) error {
	client, err := w.conn.connect(ctx)
	if err != nil {
		return err
	}
	return follow(ctx, client, w.place, machineProperties, func(u changes) error {
		machines, err := w.machines(ctx, client, u.vms)
		if err != nil {
			return err
		}
		if u.first {
			// Before the Resync: a VM that stops behind the List that follows must be
			// known, or nobody would say that it has stopped.
			for _, m := range machines {
				w.note(m)
			}
		}
		if u.network { // any NIC may be elsewhere now
			if w.survey, err = w.Adapter.survey(ctx, client); err != nil {
				return err
			}
			w.send(ctx, core.VMEvent{Kind: core.VMResync})
			w.synced = true
		}
		for _, ref := range u.gone {
			w.stopped(ctx, ref)
		}
		if !u.first {
			for _, m := range machines {
				w.tell(ctx, m)
			}
		}
		return ctx.Err()
	})
}

// machines reads VMs. One that has gone meanwhile is left out: vCenter is about
// to tell.
func (w *watcher) machines(ctx context.Context, c *vim25.Client, refs []types.ManagedObjectReference) (out []*machine, err error) {
	if len(refs) == 0 {
		return nil, nil
	}
	var vms []mo.VirtualMachine
	if err := property.DefaultCollector(c).Retrieve(ctx, refs, machineProperties, &vms); err != nil {
		var gone *types.ManagedObjectNotFound
		if _, ok := fault.As(err, &gone); ok && slices.Contains(refs, gone.Obj) {
			return w.machines(ctx, c, slices.DeleteFunc(slices.Clone(refs), func(r types.ManagedObjectReference) bool { return r == gone.Obj }))
		}
		return nil, explain("reading VMs", err)
	}
	for _, vm := range vms {
		if m := readMachine(vm); m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// note remembers a VM that runs, and says whether it was known.
func (w *watcher) note(m *machine) (before bool) {
	_, before = w.known[m.ref]
	if m.running {
		w.known[m.ref] = core.VM{Key: m.key, Name: m.name}
	}
	return before
}

// tell says what has become of a VM.
func (w *watcher) tell(ctx context.Context, m *machine) {
	if !m.running {
		w.stopped(ctx, m.ref)
		return
	}
	e := core.VMEvent{Kind: core.VMStarted, Instance: w.instance(w.survey, m)}
	if w.note(m) {
		e.Kind = core.VMChanged
	}
	w.send(ctx, e)
}

func (w *watcher) stopped(ctx context.Context, ref types.ManagedObjectReference) {
	if vm, before := w.known[ref]; before {
		delete(w.known, ref)
		w.send(ctx, core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: vm}})
	}
}

func (w *watcher) send(ctx context.Context, e core.VMEvent) {
	select {
	case w.out <- e:
	case <-ctx.Done():
	}
}

// changes are what vCenter tells at once.
type changes struct {
	first     bool // everything that there is
	vms, gone []types.ManagedObjectReference
	network   bool // the switch or a port group
}

// follow tells changes until an error, its own or tell's. Of VMs it looks at
// properties alone.
func follow(ctx context.Context, c *vim25.Client, p place, properties []string, tell func(changes) error) error {
	sw, err := p.find(ctx, c)
	if err != nil {
		return err
	}
	collector, err := property.DefaultCollector(c).Create(ctx)
	if err != nil {
		return explain("watching", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = collector.Destroy(ctx) // it ends with the session at the latest
	}()
	v, err := view.NewManager(c).CreateContainerView(ctx, sw.datacenter, []string{"VirtualMachine", "DistributedVirtualPortgroup", "DistributedVirtualSwitch"}, true)
	if err != nil {
		return explain("watching", err)
	}
	defer v.Destroy(context.WithoutCancel(ctx))
	yes := true
	_, err = collector.CreateFilter(ctx, types.CreateFilter{Spec: types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: v.Reference(), Skip: &yes, SelectSet: []types.BaseSelectionSpec{
			&types.TraversalSpec{Type: v.Reference().Type, Path: "view"}}}},
		PropSet: []types.PropertySpec{
			{Type: "VirtualMachine", PathSet: properties},
			{Type: "DistributedVirtualPortgroup", PathSet: []string{"name", "config"}},
			{Type: "DistributedVirtualSwitch", PathSet: []string{"config"}},
		},
	}})
	if err != nil {
		return explain("watching", err)
	}
	var version string
	for first := true; ; first = false {
		u := changes{first: first, network: first}
		for more := true; more; {
			set, err := updates(ctx, c, collector, version)
			if err != nil {
				return explain("watching", err)
			}
			if set == nil {
				continue // nothing has changed for a while
			}
			version, more = set.Version, set.Truncated != nil && *set.Truncated
			for _, f := range set.FilterSet {
				for _, o := range f.ObjectSet {
					switch {
					case o.Obj.Type != "VirtualMachine":
						u.network = true
					case o.Kind == types.ObjectUpdateKindLeave:
						u.gone = append(u.gone, o.Obj)
					default:
						u.vms = append(u.vms, o.Obj)
					}
				}
			}
		}
		if err := tell(u); err != nil {
			return err
		}
	}
}

// updates waits for changes. nil: there were none.
func updates(ctx context.Context, c *vim25.Client, from *property.Collector, version string) (*types.UpdateSet, error) {
	ctx, cancel := context.WithTimeout(ctx, holdSeconds*time.Second+patience)
	defer cancel()
	hold := int32(holdSeconds)
	answer, err := methods.WaitForUpdatesEx(ctx, c, &types.WaitForUpdatesEx{This: from.Reference(), Version: version, Options: &types.WaitOptions{MaxWaitSeconds: &hold}})
	if err != nil {
		return nil, err
	}
	return answer.Returnval, nil
}
