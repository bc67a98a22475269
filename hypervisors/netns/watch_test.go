package netns_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/core"
)

// patience is for machines under load; what is waited for takes milliseconds.
const patience = 20 * time.Second

// watcher keeps what it is told, and checks that it adds up.
type watcher struct {
	t      *testing.T
	events <-chan core.VMEvent
	vms    map[core.VMKey]core.Instance
	kinds  []core.VMEventKind
}

// watch starts with what is listed after the first Resync, as a user must.
func watch(t *testing.T, a core.HypervisorAdapter) *watcher {
	t.Helper()
	events, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, events: events, vms: map[core.VMKey]core.Instance{}}
	if e := <-events; e.Kind != core.VMResync {
		t.Fatalf("the first event is %v", e)
	}
	for _, vm := range list(t, a) {
		w.vms[vm.VM.Key] = vm
	}
	return w
}

func (w *watcher) next(d time.Duration) bool {
	w.t.Helper()
	select {
	case e, ok := <-w.events:
		if !ok {
			w.t.Fatal("the watch ended")
		}
		w.kinds = append(w.kinds, e.Kind)
		key := e.Instance.VM.Key
		_, known := w.vms[key]
		switch e.Kind {
		case core.VMStarted, core.VMChanged:
			if known != (e.Kind == core.VMChanged) {
				w.t.Errorf("%s %s, known: %v", key, e.Kind, known)
			}
			w.vms[key] = e.Instance
		case core.VMStopped:
			if !known {
				w.t.Errorf("%s stopped and was not known", key)
			}
			delete(w.vms, key)
		default:
			w.t.Errorf("unexpected %v", e)
		}
		return true
	case <-time.After(d):
		return false
	}
}

func (w *watcher) until(what string, f func() bool) {
	w.t.Helper()
	for !f() {
		if !w.next(patience) {
			w.t.Fatalf("never: %s; known: %+v", what, w.vms)
		}
	}
}

func (w *watcher) is(want core.Instance) bool {
	got, ok := w.vms[want.VM.Key]
	return ok && cmp.Equal(want, got, sameDomain, cmpopts.EquateEmpty())
}

func TestWatch(t *testing.T) {
	defer clean(t)
	// There is no directory yet.
	if err := os.RemoveAll("/run/netns"); err != nil {
		// A mount point since an earlier test.
		run(t, "umount -l /run/netns")
		if err := os.RemoveAll("/run/netns"); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "ip link add br0 type bridge")
	run(t, "ip link add br1 type bridge")
	w := watch(t, openAdapter(t, nil))

	run(t, "ip netns add vm-a")
	w.until("vm-a starts", func() bool { return w.is(vm("vm-a")) })
	run(t, "ip netns add vm-b")
	w.until("vm-b starts", func() bool { return w.is(vm("vm-b")) })
	attach(t, "vm-a", "vnet0", "02:00:00:00:00:01", "br0")
	w.until("vm-a is plugged in", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br0 vnet0")) })
	attach(t, "vm-a", "vnet1", "02:00:00:00:00:02", "")
	w.until("a second NIC", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br0 vnet0", "02:00:00:00:00:02")) })
	run(t, "ip link set vnet1 master br1")
	w.until("plugged in", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br0 vnet0", "02:00:00:00:00:02 br1 vnet1")) })
	run(t, "ip link set vnet1 master br0")
	w.until("on another bridge", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br0 vnet0", "02:00:00:00:00:02 br0 vnet1")) })
	run(t, "ip link set br0 name br9")
	w.until("the bridge has another name", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br9 vnet0", "02:00:00:00:00:02 br9 vnet1")) })
	// Inside the VM, where only the kernel's reports of all namespaces reach.
	run(t, "ip -n vm-a link set eth-vnet1 address 02:00:00:00:00:03")
	w.until("another MAC", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br9 vnet0", "02:00:00:00:00:03 br9 vnet1")) })
	run(t, "ip link del vnet1")
	w.until("a NIC less", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:01 br9 vnet0")) })
	run(t, "ip netns delete vm-a")
	w.until("vm-a stops", func() bool { _, ok := w.vms["vm-a"]; return !ok })
	// Nobody holds it: its link is gone as well.
	for deadline := time.Now().Add(patience); exec.Command("ip", "link", "show", "vnet0").Run() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a deleted namespace lives on")
		}
	}
	for w.next(200 * time.Millisecond) {
	}
	if diff := cmp.Diff(map[core.VMKey]core.Instance{"vm-b": vm("vm-b")}, w.vms, sameDomain, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// A VM that is made again under its name is another one.
func TestWatchReplaced(t *testing.T) {
	defer clean(t)
	run(t, "ip link add br0 type bridge")
	run(t, "ip netns add vm-a")
	attach(t, "vm-a", "vnet0", "02:00:00:00:00:01", "br0")
	w := watch(t, openAdapter(t, nil))
	run(t, "ip netns delete vm-a")
	run(t, "ip netns add vm-a")
	// The kernel takes the old one's links away a little later, vnet0 too.
	attach(t, "vm-a", "vnet1", "02:00:00:00:00:02", "br0")
	w.until("vm-a is a new one", func() bool { return w.is(vm("vm-a", "02:00:00:00:00:02 br0 vnet1")) })
}

// Whatever happens while the reader is away is told when it is back.
func TestWatchStorm(t *testing.T) {
	defer clean(t)
	run(t, "ip link add br0 type bridge")
	a := openAdapter(t, nil)
	w := watch(t, a)
	var batch strings.Builder
	for i := range 40 {
		fmt.Fprintf(&batch, "netns add vm-%d\n", i)
		fmt.Fprintf(&batch, "link add vnet%d type veth peer name eth0 netns vm-%d address 02:00:00:00:01:%02x\n", i, i, i)
		fmt.Fprintf(&batch, "link set vnet%d master br0\n", i)
		if i%3 == 0 {
			fmt.Fprintf(&batch, "netns delete vm-%d\n", i)
		}
	}
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := map[core.VMKey]core.Instance{}
	for _, vm := range list(t, a) {
		want[vm.VM.Key] = vm
	}
	if len(want) != 26 {
		t.Fatalf("%d VMs, want 26", len(want))
	}
	w.until("all is told", func() bool { return cmp.Equal(want, w.vms, sameDomain) })
	for w.next(200 * time.Millisecond) {
	}
	if diff := cmp.Diff(want, w.vms, sameDomain); diff != "" {
		t.Error(diff)
	}
}

func TestWatchEnds(t *testing.T) {
	defer clean(t)
	a := openAdapter(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	idle, err := a.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-idle
	unread, err := a.Watch(ctx) // its Resync waits for a reader
	if err != nil {
		t.Fatal(err)
	}
	// A watch does not need the adapter any more.
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "ip netns add vm-a")
	if e := <-idle; e.Kind != core.VMStarted {
		t.Errorf("after Close: %v", e)
	}
	cancel()
	for name, ch := range map[string]<-chan core.VMEvent{"idle": idle, "unread": unread} {
		for deadline := time.After(patience); ; {
			select {
			case _, ok := <-ch:
				if ok {
					continue
				}
			case <-deadline:
				t.Errorf("%s: the channel stays open", name)
			}
			break
		}
	}
}
