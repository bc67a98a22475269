package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

// program is what the libvirt hook does for VM n.
func (h *host) program(in core.Instance) []Outcome {
	h.t.Helper()
	nics, err := h.Program(context.Background(), in)
	if err != nil {
		h.t.Fatal(err)
	}
	var out []Outcome
	for _, n := range nics {
		out = append(out, n.Outcome)
	}
	return out
}

func (h *host) wantOutcomes(in core.Instance, want ...Outcome) {
	h.t.Helper()
	got := h.program(in)
	if len(got) != len(want) {
		h.t.Fatalf("outcomes %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			h.t.Errorf("outcomes %v, want %v", got, want)
		}
	}
}

// The hypervisor holds the VM's lock while it starts: whoever asks it waits.
func TestProgramAsksNobody(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		release := h.adapter.HangList()
		defer release()
		h.adapter.Deaf(true)
		start := time.Now()
		h.wantOutcomes(instance(2), InForce)
		if d := time.Since(start); d > time.Second {
			t.Errorf("took %s", d)
		}
		h.wantNICs(1, 2)
		h.converged()
		// It counts as present for as long as nothing is said of it.
		rest(time.Hour)
		h.wantNICs(1, 2)
		h.wantState(2, Enforced, "")
	})
}

func TestProgramOutcomes(t *testing.T) {
	onHost(t, nil, func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		h.wantOutcomes(instance(2), NoPolicy)
		h.wantOutcomes(labelled(3, "web"), InForce)
		bad := labelled(4, "no-such-group")
		h.wantOutcomes(bad, Failed)
		elsewhere := instance(5)
		elsewhere.VM.NICs[0].Binding.Bridge = "virbr0"
		h.wantOutcomes(elsewhere, NotOurs)
		// One of two NICs, and a source that knows a third.
		two := instance(1)
		two.VM.NICs = append(two.VM.NICs, core.NIC{MAC: mac(99), Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet99"}}})
		h.wantOutcomes(two, InForce, NoPolicy)
		contested := labelled(1, "web")
		h.wantOutcomes(contested, InForce)
		h.backend.RefuseNIC(nicKey(6), errors.New("no room"))
		h.wantOutcomes(labelled(6, "web"), Failed)
		h.backend.Fail(coretest.Apply, core.ErrNotReady)
		h.backend.Fail(coretest.Sync, core.ErrNotReady) // with which a look that is due mends what Apply did not
		if _, err := h.Program(context.Background(), labelled(7, "web")); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("no backend: %v", err)
		}
	})
	onHost(t, func(_ *host, o *Options) { o.Adapter = nil }, func(h *host) {
		if _, err := h.Program(context.Background(), instance(1)); !errors.Is(err, core.ErrUnsupported) {
			t.Errorf("without an adapter: %v", err)
		}
	})
}

// A List that began before the VM was programmed cannot know of it; the next
// one can, and is not long in coming.
func TestListSpeaksOfProgrammedVMs(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		h.adapter.Deaf(true)
		release := h.adapter.HangList()
		h.adapter.Resync()
		quiet()
		h.wantOutcomes(instance(2), InForce)
		release() // the list that hung has no VM 2
		quiet()
		h.wantNICs(1, 2)
		rest(10 * time.Second) // its start has failed
		h.wantNICs(1)

		h.wantOutcomes(instance(2), InForce)
		h.adapter.Put(instance(2))
		rest(10 * time.Second)
		h.wantNICs(1, 2)
		h.adapter.Stop(key(2))
		rest(6 * time.Minute)
		h.wantNICs(1)
	})
}

// A VM that is started again at once: the end of its former life is told when
// the next has begun.
func TestLateEventsOfAFormerLife(t *testing.T) {
	next := instance(2)
	next.VM.NICs[0].Binding.Devices = []string{"vnet22"}
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.adapter.Deaf(true)
		h.adapter.Stop(key(2))
		h.wantOutcomes(next, InForce)
		h.adapter.Put(next) // runs, and nobody was told
		h.adapter.Deaf(false)
		h.adapter.Tell(core.VMEvent{Kind: core.VMStopped, Instance: instance(2)})
		quiet()
		h.wantNICs(1, 2)
		if d := h.status(2).Devices; len(d) != 1 || d[0] != "vnet22" {
			t.Errorf("devices %v", d)
		}
		// The same of another VM, whose device the new one has got.
		h.adapter.Deaf(true)
		h.adapter.Stop(key(1))
		third := labelled(3, "web")
		third.VM.NICs[0].Binding.Devices = []string{device(1)}
		h.wantOutcomes(third, InForce)
		h.adapter.Put(third)
		h.adapter.Tell(core.VMEvent{Kind: core.VMChanged, Instance: instance(1)})
		quiet()
		h.wantNICs(2, 3)
	})
}

// An event that says what the hook has said is the adapter's word: no List.
func TestStartedEventConfirms(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		rest(time.Minute)
		h.wantOutcomes(instance(2), InForce)
		h.adapter.Put(instance(2))
		quiet()
		lists := h.adapter.Lists()
		h.adapter.Stop(key(2))
		quiet()
		h.wantNICs(1)
		if n := h.adapter.Lists(); n != lists {
			t.Errorf("%d Lists for a VM that was confirmed", n-lists)
		}
	})
}

// At boot libvirtd starts VMs while a List waits for it.
func TestProgramAtBoot(t *testing.T) {
	for name, boot := range map[string]func(*host){
		"nothing enforced": func(*host) {},
		"closed ports": func(h *host) {
			if err := h.backend.Sync(context.Background(), core.Ruleset{Options: testOptions}); err != nil {
				h.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onHost(t, nil, func(h *host) {
				h.must(put(tcp("web", 80), record(1, "web"), record(2, "web")))
				h.stop()
				if err := h.backend.Teardown(context.Background()); err != nil {
					t.Fatal(err)
				}
				boot(h)
				release := h.adapter.HangList()
				h.start(nil)
				h.wantOutcomes(instance(1), InForce)
				h.wantOutcomes(instance(2), InForce)
				h.wantNICs(1, 2)
				h.adapter.Put(instance(1)) // the second has failed to start
				release()
				rest(time.Minute)
				h.wantNICs(1)
				h.converged()
			})
		})
	}
}

// An agent that was started again does not know whom the kernel's policies are
// for, and must not lose them.
func TestProgramBeforeTheFirstList(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.stop()
		release := h.adapter.HangList()
		h.start(nil)
		if _, err := h.Program(context.Background(), labelled(3, "web")); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("error is %v", err)
		}
		h.wantNICs(1, 2)
		h.adapter.Put(labelled(3, "web"))
		release()
		rest(time.Minute)
		h.wantNICs(1, 2, 3)
		h.converged()
	})
}
