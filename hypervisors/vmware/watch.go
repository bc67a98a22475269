package vmware

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25"
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
		if u.network { // any NIC may be elsewhere now
			if w.survey, err = w.Adapter.survey(ctx, client); err != nil {
				return err
			}
			if !w.send(ctx, core.VMEvent{Kind: core.VMResync}) {
				return ctx.Err()
			}
			w.synced = true
		}
		for _, ref := range u.gone {
			w.stopped(ctx, ref)
		}
		if len(u.vms) == 0 {
			return nil
		}
		return w.look(ctx, client, u.vms, u.first)
	})
}

// look reads VMs and says what has become of them. At first they are only
// noted: a List follows the Resync.
func (w *watcher) look(ctx context.Context, c *vim25.Client, refs []types.ManagedObjectReference, first bool) error {
	var vms []mo.VirtualMachine
	if err := property.DefaultCollector(c).Retrieve(ctx, refs, machineProperties, &vms); err != nil {
		return explain("reading VMs", err)
	}
	for _, vm := range vms {
		m := readMachine(vm)
		if m == nil {
			continue
		}
		if !m.running {
			w.stopped(ctx, vm.Self)
			continue
		}
		_, before := w.known[vm.Self]
		w.known[vm.Self] = core.VM{Key: m.key, Name: m.name}
		e := core.VMEvent{Kind: core.VMStarted}
		if before {
			e.Kind = core.VMChanged
		}
		if !first {
			e.Instance = w.instance(w.survey, m)
			w.send(ctx, e)
		}
	}
	return ctx.Err()
}

func (w *watcher) stopped(ctx context.Context, ref types.ManagedObjectReference) {
	if vm, before := w.known[ref]; before {
		delete(w.known, ref)
		w.send(ctx, core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: vm}})
	}
}

func (w *watcher) send(ctx context.Context, e core.VMEvent) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
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
			set, err := updates(ctx, collector, version)
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
func updates(ctx context.Context, c *property.Collector, version string) (*types.UpdateSet, error) {
	ctx, cancel := context.WithTimeout(ctx, holdSeconds*time.Second+patience)
	defer cancel()
	hold := int32(holdSeconds)
	return c.WaitForUpdates(ctx, version, &types.WaitOptions{MaxWaitSeconds: &hold})
}
