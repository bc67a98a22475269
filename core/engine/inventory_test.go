package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/state"
)

// twoVMs puts two VMs under policy.
func twoVMs(h *host) { h.must(put(tcp("web", 80), record(1, "web"), record(2, "web"))) }

func (h *host) wantNICs(ns ...int) {
	h.t.Helper()
	var want []core.NICKey
	for _, n := range ns {
		want = append(want, nicKey(n))
	}
	if got := h.nics(); !cmp.Equal(got, want) {
		h.t.Errorf("policies are held for %v, want %v", got, want)
	}
}

func TestVMsComeAndGo(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		h.wantNICs(1)
		h.adapter.Put(instance(2))
		quiet()
		h.wantNICs(1, 2)
		h.adapter.Stop(key(1))
		quiet()
		h.wantNICs(2)
		h.wantState(1, Pending, "")
		if _, ok := h.store.Snapshot().VMs[key(1)]; !ok {
			t.Error("the record of a VM that stopped is gone")
		}
		moved := instance(2) // migrated out and in, or rebooted: another tap
		moved.VM.NICs[0].Binding.Devices = []string{"vnet77"}
		h.adapter.Put(moved)
		quiet()
		h.converged()
		if d := h.status(2).Devices; !cmp.Equal(d, []string{"vnet77"}) {
			t.Errorf("devices are %v", d)
		}
	})
}

// A kernel gives a free device name to the next VM. The news that the former
// has stopped comes late.
func TestRecycledDevice(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		next := instance(2)
		next.VM.NICs[0].Binding.Devices = []string{device(1)}
		h.adapter.Put(next)
		quiet()
		h.converged()
		h.wantNICs(2)
		h.adapter.Stop(key(1))
		quiet()
		h.wantNICs(2)
	})
}

func TestFailedListRemovesNothing(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.adapter.FailList(errors.New("libvirtd is not there"))
		h.adapter.Resync()
		rest(time.Hour)
		h.wantNICs(1, 2)
		if a := h.Status().Adapter; !strings.Contains(a.Reason, "libvirtd is not there") {
			t.Errorf("adapter status is %+v", a)
		}
		h.must(put(tcp("web", 81))) // goes on with what is known
		h.converged()
		h.adapter.Deaf(true)
		h.adapter.Stop(key(2))
		h.adapter.FailList(nil)
		rest(2 * time.Minute)
		h.wantNICs(1)
	})
}

func TestFirstEmptyListRemovesNothing(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.adapter.Blind(true)
		h.adapter.Disconnect()
		rest(4 * time.Second)
		h.wantNICs(1, 2)
		h.adapter.Blind(false)
		rest(10 * time.Second)
		h.wantNICs(1, 2)
		h.adapter.Blind(true)
		h.adapter.Resync()
		for range 3 { // asking often makes it no truer
			if err := h.Refresh(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		h.wantNICs(1, 2)
		rest(10 * time.Second)
		h.wantNICs()
		h.adapter.Blind(false)
		h.adapter.Resync()
		quiet()
		h.wantNICs(1, 2)
	})
}

// A daemon that restarts loses events. What it lists afterwards counts.
func TestReconnect(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.adapter.FailWatch(errors.New("connection refused"))
		h.adapter.Disconnect()
		h.adapter.FailList(errors.New("connection refused"))
		rest(30 * time.Second)
		h.adapter.Stop(key(1)) // nobody hears it
		h.adapter.FailList(nil)
		h.adapter.FailWatch(nil)
		rest(2 * time.Minute)
		h.wantNICs(2)
		h.adapter.Put(instance(1))
		quiet()
		h.wantNICs(1, 2)
	})
}

func TestLostEventIsFoundByRelisting(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		h.adapter.Deaf(true)
		h.adapter.Put(instance(2))
		rest(6 * time.Minute)
		h.wantNICs(1, 2)
		h.adapter.Stop(key(2))
		if err := h.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		quiet()
		h.wantNICs(1)
	})
}

func TestRefreshAfterLostStart(t *testing.T) {
	onHost(t, nil, func(h *host) {
		rest(10 * time.Second)
		h.adapter.Deaf(true)
		h.must(put(tcp("web", 80)))
		for n := 1; n <= 20; n++ {
			h.adapter.Put(instance(n))
			r := h.must(put(record(n, "web")))
			wantState(t, r.NICs[0], Pending, "")
			if err := h.Refresh(context.Background()); err != nil {
				t.Fatal(err)
			}
			r = h.must(put(record(n, "web")))
			wantState(t, r.NICs[0], Enforced, "")
		}
	})
}

// News that Refresh has brought is in every change that follows it.
func TestRefreshOfABusyEngine(t *testing.T) {
	onHost(t, nil, func(h *host) {
		rest(10 * time.Second)
		h.adapter.Deaf(true)
		h.must(put(tcp("web", 80)))
		for n := 1; n <= 20; n++ { // what the writer takes first is up to chance
			release := h.busy()
			h.adapter.Put(instance(n))
			if err := h.inv.look(context.Background()); err != nil {
				t.Fatal(err)
			}
			answer := h.later(put(record(n, "web")))
			release()
			if err := <-answer; err != nil {
				t.Fatal(err)
			}
			if got := len(h.backend.Ruleset().NICs); got != n {
				t.Fatalf("%d NICs are enforced when the change to the %dth is answered", got, n)
			}
		}
	})
}

// A List that contradicts itself closes those whom it is about.
func TestOneDeviceTwiceInAList(t *testing.T) {
	twin := instance(2)
	twin.VM.NICs[0].Binding.Devices = []string{device(1)}
	onHost(t, func(h *host, _ *Options) {
		h.adapter.Put(instance(1))
		h.adapter.Put(twin)
		h.adapter.Put(instance(3))
	}, func(h *host) {
		h.must(put(tcp("web", 80)))
		_, err := h.Change(context.Background(), put(record(1, "web"), record(2, "web"), record(3, "web")))
		if !errors.Is(err, core.ErrInvalid) {
			t.Errorf("error is %v", err)
		}
		h.must(put(record(1, "web"), record(3, "web")))
		h.adapter.Put(labelled(4, "web"))
		claim := labelled(2, "web")
		claim.VM.NICs[0].Binding = twin.VM.NICs[0].Binding
		h.adapter.Deaf(true)
		h.adapter.Put(claim)
		h.adapter.Deaf(false)
		h.adapter.Resync()
		quiet()
		h.wantNICs(3, 4)
		h.wantState(1, Conflict, "device vnet1")
		h.wantState(2, Conflict, "device vnet1")
		h.must(put(tcp("web", 81)))
	})
}

// Until the adapter has answered, what an earlier life enforced stays.
func TestStartWithAnAdapterThatFails(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		broken := func(h *host, _ *Options) { h.adapter.FailList(errors.New("no libvirtd")) }
		h.restart(broken)
		rest(10 * time.Minute)
		h.wantNICs(1, 2)
		r, err := h.Change(context.Background(), put(tcp("web", 81)))
		if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "no libvirtd") || !r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
		h.wantNICs(1, 2)
		h.adapter.FailList(nil)
		rest(2 * time.Minute)
		h.converged()
		h.wantNICs(1, 2)
	})
}

func TestStartWithAnAdapterThatHangs(t *testing.T) {
	onHost(t, func(h *host, _ *Options) { h.adapter.HangList() }, func(h *host) {
		ctx, cancel := within(time.Second)
		defer cancel()
		r, err := h.Change(ctx, put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, core.ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) || !r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
	})
}

func TestStartWithAnEmptyList(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.restart(func(h *host, _ *Options) { h.adapter.Blind(true) })
		rest(3 * time.Second)
		if err := h.Refresh(context.Background()); err != nil { // makes it no truer
			t.Fatal(err)
		}
		rest(time.Second)
		h.wantNICs(1, 2)
		h.adapter.Blind(false)
		rest(6 * time.Second)
		h.wantNICs(1, 2)
		h.converged()

		h.restart(func(h *host, _ *Options) { h.adapter.Blind(true) })
		rest(10 * time.Second)
		h.wantNICs()
	})
	// Where nothing is enforced, there is nothing to wait for.
	onHost(t, nil, func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		h.adapter.Put(instance(1))
		quiet()
		h.wantNICs(1)
	})
}

func TestInSyncRestartWritesNothing(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		writes := h.backend.Writes()
		h.backend.OnWrite(func(from, to core.Ruleset) {
			if from.Fingerprint() != to.Fingerprint() {
				t.Errorf("a restart wrote from %s to %s", from.Fingerprint().Short(), to.Fingerprint().Short())
			}
		})
		h.restart(nil)
		rest(5 * time.Minute)
		if w := h.backend.Writes(); w != writes {
			t.Errorf("%d writes after a restart", w-writes)
		}
		if !h.Status().Points[0].InSync {
			t.Errorf("status is %+v", h.Status().Points)
		}
	})
}

func TestRecordsOfGoneVMs(t *testing.T) {
	gone := func(h *host, o *Options) {
		o.Gone = func(tx *state.Tx, vms []state.VM) error {
			for _, v := range vms {
				if v.Source == state.SourceCloudStack {
					if err := tx.DeleteVM(v.Source, v.Key); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	cloud := func(n int) state.VM {
		v := record(n, "web")
		v.Source = state.SourceCloudStack
		return v
	}
	onHost(t, func(h *host, o *Options) { running(1, 2)(h, o); gone(h, o) }, func(h *host) {
		h.must(put(tcp("web", 80), cloud(1), record(2, "web"), cloud(3)))
		has := func(want string) {
			t.Helper()
			got := ""
			for n := 1; n <= 3; n++ {
				if _, ok := h.store.Snapshot().VMs[key(n)]; ok {
					got += fmt.Sprint(n)
				}
			}
			if got != want {
				t.Errorf("there are records of %s, want %s", got, want)
			}
		}
		has("123") // 3 may be about to start
		h.adapter.Stop(key(1))
		h.adapter.Stop(key(2))
		quiet()
		has("23")
		h.adapter.Put(instance(3))
		h.adapter.Put(instance(2))
		quiet()
		h.adapter.Blind(true)
		h.adapter.Resync()
		quiet()
		has("23") // an empty List that nobody believes yet
		h.stop()
		h.adapter.Blind(false)
		h.adapter.Stop(key(3))
		h.adapter.Blind(true)
		h.start(gone)
		has("23")
		rest(10 * time.Second)
		has("2")
	})
}

func TestNoAdapterTakesHints(t *testing.T) {
	onHost(t, func(h *host, o *Options) { o.Adapter = nil }, func(h *host) {
		here := record(1, "web")
		here.NICs[0].Binding = core.Binding{Bridge: "br0", Devices: []string{"vnet5"}}
		r := h.must(put(tcp("web", 80), here, record(2, "web")))
		h.converged()
		wantState(t, r.NICs[0], Enforced, "")
		wantState(t, r.NICs[1], Pending, "")
		if h.backend.Count(coretest.Sync) != 1 {
			t.Errorf("calls are %v", h.backend.Calls())
		}
		if err := h.Refresh(context.Background()); err != nil {
			t.Error(err)
		}
		// Two NICs at one device: refused, whoever comes second.
		twice := record(2, "web")
		twice.NICs[0].Binding = here.NICs[0].Binding
		if _, err := h.Change(context.Background(), put(twice)); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("error is %v", err)
		}
	})
}
