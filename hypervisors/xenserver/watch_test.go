package xenserver_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
)

func next(t *testing.T, events <-chan core.VMEvent) core.VMEvent {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the channel closed")
		}
		return e
	case <-time.After(5 * time.Second):
		t.Fatal("no event")
		return core.VMEvent{}
	}
}

func none(t *testing.T, events <-chan core.VMEvent) {
	t.Helper()
	select {
	case e := <-events:
		t.Fatalf("unexpected %s %+v", e.Kind, e.Instance)
	case <-time.After(50 * time.Millisecond):
	}
}

// until takes events until one of the VM says devices, the last news.
func until(t *testing.T, events <-chan core.VMEvent, name string, devices ...string) core.VMEvent {
	t.Helper()
	for {
		e := next(t, events)
		var got []string
		for _, n := range e.Instance.VM.NICs {
			got = append(got, n.Binding.Devices...)
		}
		if e.Instance.VM.Name == name && cmp.Equal(got, devices) {
			return e
		}
	}
}

func watch(t *testing.T, a core.HypervisorAdapter) <-chan core.VMEvent {
	t.Helper()
	events, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Kind != core.VMResync {
		t.Fatal(e)
	}
	return events
}

func TestWatch(t *testing.T) {
	f := site(t, nil)
	events := watch(t, f.adapter)
	vm := f.vm("web", 1, nil)
	none(t, events)

	vm.Start(f.hosts[0])
	if e := until(t, events, "web", "tap1.0", "vif1.0"); e.Instance.VM.Key != core.VMKey(vm.UUID) {
		t.Error(e)
	}
	vif := vm.Plug(sim.VIFSpec{Network: f.network, MAC: mac(2).String()})
	if e := until(t, events, "web", "tap1.0", "vif1.0", "tap1.1", "vif1.1"); e.Kind != core.VMChanged {
		t.Error(e)
	}
	vm.Unplug(vif)
	until(t, events, "web", "tap1.0", "vif1.0")

	vm.Reboot()
	until(t, events, "web", "tap2.0", "vif2.0", "tap2.1", "vif2.1") // what was unplugged is plugged at a start

	f.pool.Set("vif", vm.VIFs()[0], "other_config", map[string]string{"ringwall-groups": "web"})
	if e := next(t, events); e.Kind != core.VMChanged || !e.Instance.Claims || e.Instance.VM.NICs[0].Groups[0] != "web" {
		t.Errorf("%+v", e)
	}
	f.pool.Set("vm", vm.Ref, "xenstore_data", map[string]string{"x": "y"})
	none(t, events) // nothing that concerns us

	vm.Migrate(f.hosts[1])
	if e := next(t, events); e.Kind != core.VMStopped || e.Instance.VM.Key != core.VMKey(vm.UUID) || e.Instance.VM.Name != "web" {
		t.Errorf("%+v", e)
	}
	vm.Migrate(f.hosts[0])
	if e := until(t, events, "web", "tap3.0", "vif3.0", "tap3.1", "vif3.1"); e.Kind != core.VMStarted {
		t.Error(e)
	}
	vm.Stop()
	if e := next(t, events); e.Kind != core.VMStopped {
		t.Errorf("%+v", e)
	}
	vm.Destroy()
	none(t, events)
}

// A network that changes its bridge concerns every VM on it.
func TestWatchNetwork(t *testing.T) {
	f := site(t, nil)
	f.vm("a", 1, nil).Start(f.hosts[0])
	f.vm("b", 2, nil).Start(f.hosts[0])
	events := watch(t, f.adapter)
	f.pool.Set("network", f.network, "bridge", "xenbr7")
	seen := map[string]bool{}
	for range 2 {
		e := next(t, events)
		seen[e.Instance.VM.Name+e.Instance.VM.NICs[0].Binding.Bridge] = true
	}
	if !seen["axenbr7"] || !seen["bxenbr7"] {
		t.Error(seen)
	}
}

// The whole pool in view: a migration is a change of the point.
func TestWatchMigration(t *testing.T) {
	f := site(t, nil)
	pool := f.poolAdapter(t)
	vm := f.vm("web", 1, nil)
	vm.Start(f.hosts[0])
	events := watch(t, pool)
	vm.Migrate(f.hosts[1])
	e := next(t, events)
	for e.Instance.VM.NICs[0].Binding.Point != f.hosts[1].UUID { // the domain id is new before the host is
		e = next(t, events)
	}
	if e.Kind != core.VMChanged {
		t.Error(e)
	}
}

// An expired session, a toolstack that restarts: a resync, and events go on.
func TestWatchResumes(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, break_ := range map[string]func(*sim.Pool){"expired": (*sim.Pool).Expire, "restarted": (*sim.Pool).Restart} {
		t.Run(name, func(t *testing.T) {
			f := site(t, nil)
			events := watch(t, f.adapter)
			break_(f.pool)
			if e := next(t, events); e.Kind != core.VMResync {
				t.Fatal(e)
			}
			f.vm("web", 1, nil).Start(f.hosts[0])
			until(t, events, "web", "tap1.0", "vif1.0")
		})
	}
}

// Ten thousand changes that nobody takes are one.
func TestWatchCoalesces(t *testing.T) {
	f := site(t, nil)
	vm := f.vm("web", 1, nil)
	vm.Start(f.hosts[0])
	events := watch(t, f.adapter)
	for range 2000 {
		vm.Reboot()
	}
	last := fmt.Sprintf("vif%d.0", vm.Domid())
	for n := 1; ; n++ {
		if e := next(t, events); e.Instance.VM.NICs[0].Binding.Devices[1] == last {
			if n > 200 {
				t.Errorf("%d events", n)
			}
			return
		}
	}
}
