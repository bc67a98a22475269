package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/state"
)

func wantState(t testing.TB, s NICStatus, want State, reason string) {
	t.Helper()
	if s.State != want || !strings.Contains(s.Reason, reason) {
		t.Errorf("nic %s is %s (%s), want %s (%s)", s.NIC, s.State, s.Reason, want, reason)
	}
}

func running(ns ...int) func(*host, *Options) {
	return func(h *host, _ *Options) {
		for _, n := range ns {
			h.adapter.Put(instance(n))
		}
	}
}

func TestChangeReturnsWhenEnforced(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		r := h.must(put(tcp("web", 80), record(1, "web")))
		h.converged()
		if !r.Stored || r.Revision != 1 || len(r.NICs) != 1 {
			t.Errorf("result is %+v", r)
		}
		wantState(t, r.NICs[0], Enforced, "")
		h.must(put(tcp("web", 80, 443)))
		h.converged()
		if n := h.backend.Count(coretest.Apply); n != 2 {
			t.Errorf("%d Applies for two changes", n)
		}
	})
}

func TestElsewhereIsPendingAtOnce(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.backend.Hang(coretest.Apply)
		began := time.Now()
		r := h.must(put(tcp("web", 80), record(2, "web")))
		if d := time.Since(began); d != 0 {
			t.Errorf("took %v", d)
		}
		wantState(t, r.NICs[0], Pending, "does not run here")
		if got, want := r.Pending(), []core.NICKey{nicKey(2)}; !cmp.Equal(got, want) {
			t.Errorf("pending are %v, want %v", got, want)
		}
	})
}

func TestMembersElsewhereConcernThisHost(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("bastion", 22), from("web", "bastion"), record(1, "web")))
		h.must(put(record(2, "bastion")))
		h.converged()
		if m := h.backend.Ruleset().Sets["bastion"].Members; len(m) != 1 || m[0] != ip(2) {
			t.Errorf("members are %v", m)
		}
		h.must(func(tx *state.Tx) error { return tx.DeleteVM(state.SourceAPI, key(2)) })
		h.converged()
	})
}

func TestRefusedBeforeAnythingChanges(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		for _, n := range []int{1, 2} {
			h.adapter.Put(instance(n))
		}
		h.adapter.Put(labelled(3))
		h.backend.Features = []core.Feature{core.FeatureIPv4, core.FeatureIPv6, core.FeaturePorts, core.FeatureAntiSpoof, core.FeatureMulticast, core.FeatureFailClosed}
	}, func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		manifest := record(1)
		manifest.Source = state.SourceManifest
		egress := tcp("web", 80)
		egress.Rules[0].Direction = core.Egress
		before, writes := h.store.Snapshot(), h.backend.Writes()
		clash := record(2)
		clash.NICs[0].Addresses = record(1).NICs[0].Addresses
		for name, tc := range map[string]struct {
			change func(*state.Tx) error
			want   error
			says   string
		}{
			"unknown group":     {put(record(2, "nobody")), core.ErrInvalid, "vm vm-2.nics[0].groups[0]: nobody"},
			"group in use":      {func(tx *state.Tx) error { return tx.DeleteGroup(state.SourceAPI, "web") }, core.ErrInvalid, "vm vm-1.nics[0].groups[0]: web"},
			"another source's":  {put(manifest), core.ErrConflict, "belongs to source api"},
			"lacking feature":   {put(egress), core.ErrUnsupported, "lacks egress"},
			"claimed":           {put(record(3)), core.ErrConflict, "metadata speaks for it"},
			"address of a peer": {put(clash), core.ErrInvalid, "vm vm-2.nics[0].addresses[0]: 10.1.0.1: is vm vm-1"},
		} {
			r, err := h.Change(context.Background(), tc.change)
			if !errors.Is(err, tc.want) || !strings.Contains(fmt.Sprint(err), tc.says) {
				t.Errorf("%s: error is %v, want %v saying %q", name, err, tc.want, tc.says)
			}
			if r.Stored || h.store.Snapshot() != before || h.backend.Writes() != writes {
				t.Errorf("%s: something has changed", name)
			}
		}
		h.must(put(tcp("web", 81)))
		h.converged()
	})
}

func TestUnwritableStateRefuses(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		if err := h.store.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, core.ErrNotReady) || r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
		if len(h.nics()) != 0 {
			t.Error("something was enforced that is not in the state")
		}
	})
}

func TestUnreachableBackendSaysSo(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		down := fmt.Errorf("plugin is gone: %w", core.ErrNotReady)
		h.backend.Fail(coretest.Apply, down)
		h.backend.Fail(coretest.Sync, down)
		r, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, core.ErrNotReady) || !r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
		wantState(t, r.NICs[0], Closed, "plugin is gone")
		// The same again is not an old answer.
		h.backend.Fail(coretest.Sync, nil)
		if r, err = h.Change(context.Background(), put(record(1, "web"))); err != nil {
			t.Error(err)
		}
		wantState(t, r.NICs[0], Enforced, "")
		h.converged()
	})
}

func TestRetriesWithoutBeingAsked(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.backend.Fail(coretest.Apply, core.ErrNotReady)
		h.backend.Fail(coretest.Sync, core.ErrNotReady)
		_, _ = h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		before := h.backend.Count(coretest.Sync)
		rest(10 * time.Minute)
		// 0.5 s, 1 s, ... 1 minute, a look for drift every 30 s at most.
		if n := h.backend.Count(coretest.Sync) - before; n < 10 || n > 45 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		h.backend.Fail(coretest.Sync, nil)
		rest(2 * time.Minute)
		h.converged()
		h.wantState(1, Enforced, "")
	})
}

func TestCallerGivesUp(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		release := h.backend.Hang(coretest.Apply)
		ctx, cancel := within(time.Second)
		defer cancel()
		r, err := h.Change(ctx, put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, context.DeadlineExceeded) || !r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
		release()
		synctest.Wait()
		h.converged()
	})
}

func TestHangingBackendIsCutOff(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		running(1)(h, o)
		o.Timing.Observe = time.Hour // else the look that is due then mends it before anybody hears
	}, func(h *host) {
		h.backend.Hang(coretest.Apply)
		_, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		rest(time.Second) // Sync does not hang
		h.converged()
	})
}

func TestOnePointNeverStopsAnother(t *testing.T) {
	other := &coretest.FakeBackend{Name: "other"}
	onHost(t, func(h *host, o *Options) {
		o.Backends["pool"] = other
		h.adapter.Put(instance(1))
		there := instance(2)
		there.VM.NICs[0].Binding.Point = "pool"
		h.adapter.Put(there)
		nowhere := instance(3)
		nowhere.VM.NICs[0].Binding.Point = "mars"
		h.adapter.Put(nowhere)
	}, func(h *host) {
		other.Hang(coretest.Apply)
		h.must(put(tcp("web", 80), record(1, "web")))
		ctx, cancel := within(time.Second)
		defer cancel()
		_, err := h.Change(ctx, put(record(2, "web")))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"pool"`) {
			t.Errorf("error is %v", err)
		}
		h.wantState(2, Closed, "being written")
		h.must(put(tcp("ssh", 22), record(1, "ssh")))
		h.converged()
		r := h.must(put(record(3, "ssh")))
		wantState(t, r.NICs[0], Pending, "mars")
	})
}

func TestBadChangeInABatchIsAlone(t *testing.T) {
	onHost(t, running(1, 2, 3, 4), func(h *host) {
		h.must(put(tcp("web", 80)))
		release := h.backend.Hang(coretest.Apply)
		var all sync.WaitGroup
		errs := make([]error, 5)
		for n := 1; n <= 4; n++ {
			all.Go(func() {
				group := "web"
				if n == 3 {
					group = "nobody"
				}
				_, errs[n] = h.Change(context.Background(), put(record(n, group)))
			})
		}
		synctest.Wait()
		release()
		all.Wait()
		for n := 1; n <= 4; n++ {
			if bad := errors.Is(errs[n], core.ErrInvalid); bad != (n == 3) {
				t.Errorf("change %d: %v", n, errs[n])
			}
		}
		h.converged()
	})
}

// 10,000 changes at once: few writes, bounded memory, the last one wins.
func TestManyChangesCoalesce(t *testing.T) {
	const vms, changes = 100, 10_000
	onHost(t, func(h *host, _ *Options) {
		for n := range vms {
			h.adapter.Put(instance(n))
		}
	}, func(h *host) {
		h.must(put(tcp("web", 80)))
		before := h.backend.Writes()
		var mem runtime.MemStats
		var all sync.WaitGroup
		for n := range vms {
			all.Go(func() { // one caller a VM keeps its order
				for i := range changes / vms {
					r := record(n, "web")
					r.NICs[0].Addresses[0] = ip(256*(i+1) + n)
					if _, err := h.Change(context.Background(), put(r)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		h.converged()
		for n := range vms {
			if got := h.backend.Ruleset().NICs[nicKey(n)].Addresses[0]; got != ip(256*(changes/vms)+n) {
				t.Fatalf("vm %d has %v", n, got)
			}
		}
		if w := h.backend.Writes() - before; w > changes/2 {
			t.Errorf("%d writes for %d changes", w, changes)
		}
		runtime.GC()
		runtime.ReadMemStats(&mem)
		if mem.HeapAlloc > 64<<20 {
			t.Errorf("%d MB are held after %d changes", mem.HeapAlloc>>20, changes)
		}
	})
}

// While the backend is busy, changes and news pile up to one.
func TestBusyBackendSeesOnlyTheNewest(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 1), record(1, "web")))
		release := h.backend.Hang(coretest.Apply)
		var all sync.WaitGroup
		for i := range 10_000 {
			if i%2 == 0 {
				h.adapter.Put(instance(1 + i%50))
			} else if i%100 == 1 {
				all.Go(func() { _, _ = h.Change(context.Background(), put(tcp("web", uint16(i)))) })
				synctest.Wait()
			}
		}
		before := h.backend.Writes()
		release()
		all.Wait()
		h.converged()
		if w := h.backend.Writes() - before; w > 2 {
			t.Errorf("%d writes", w)
		}
		if g := h.backend.Ruleset().Groups["web"].Entries; len(g) != 1 && len(g) != 2 || g[0].Span.First != 9901 {
			t.Errorf("the last change did not win: %v", g)
		}
	})
}

func TestPlanDoesNothing(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		before, calls := h.store.Snapshot(), len(h.backend.Calls())
		plan, err := h.Plan(context.Background(), put(tcp("web", 80, 443)))
		if err != nil {
			t.Fatal(err)
		}
		d := plan[""]
		if g := d.Groups["web"]; len(g.Add) != 2 || len(g.Remove) != 0 || len(d.NICs) != 0 || d.From != h.backend.Fingerprint() {
			t.Errorf("plan is %+v", d)
		}
		if _, err := h.Plan(context.Background(), put(record(1, "nobody"))); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("planning nonsense: %v", err)
		}
		if h.store.Snapshot() != before || len(h.backend.Calls()) != calls {
			t.Error("planning did something")
		}
	})
}

func TestPolicyAndDerive(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		h.adapter.Put(instance(1))
		o.Policy.Bridges = nil
		o.Derive = func(o core.Options, s *state.Snapshot) core.Options {
			for k := range s.Values {
				o.Bridges = append(o.Bridges[:len(o.Bridges):len(o.Bridges)], core.Pattern(k.Key))
			}
			return o
		}
	}, func(h *host) {
		r := h.must(put(tcp("web", 80), record(1, "web")))
		wantState(t, r.NICs[0], Unmanaged, `bridge "br0" is not under management`)
		r = h.must(func(tx *state.Tx) error {
			return errors.Join(tx.PutValue("bridges", "br0", nil), put(record(1, "web"))(tx))
		})
		wantState(t, r.NICs[0], Enforced, "")
		o := testOptions
		o.Bridges, o.EgressDefault = nil, core.EgressExplicit
		if _, err := h.SetPolicy(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		h.converged()
		if n := h.backend.Ruleset().NICs[nicKey(1)]; !n.EgressDeny4 {
			t.Error("the new policy is not in force")
		}
	})
}

func TestStoppedEngineAnswers(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		release := h.backend.Hang(coretest.Apply)
		defer release()
		answer := make(chan error)
		go func() {
			_, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
			answer <- err
		}()
		synctest.Wait()
		h.stop()
		if err := <-answer; !errors.Is(err, core.ErrNotReady) {
			t.Errorf("error is %v", err)
		}
		if _, err := h.Change(context.Background(), put(tcp("web", 80))); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("error is %v", err)
		}
	})
}

// busy keeps the writer busy, so that what comes meanwhile is one batch.
func (h *host) busy() (release func()) {
	gate := make(chan struct{})
	go func() {
		_, _ = h.Change(context.Background(), func(*state.Tx) error { <-gate; return nil })
	}()
	synctest.Wait()
	return func() { close(gate) }
}

// later makes a change and waits until it is in the queue.
func (h *host) later(change func(*state.Tx) error) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := h.Change(context.Background(), change)
		answer <- err
	}()
	synctest.Wait()
	return answer
}

func TestRefusedChangeDoesNotSpoilTheNext(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80)))
		release := h.busy()
		bad := record(1, "nobody")
		bad.Source = state.SourceManifest
		first := h.later(put(bad))
		second := h.later(put(record(1, "web"))) // conflicts with the first, if that stood
		release()
		if err := <-first; !errors.Is(err, core.ErrInvalid) {
			t.Errorf("the bad change: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the good change: %v", err)
		}
	})
}

func TestNoChangeIsBlamedForTheInventory(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		for n := 2; n < 30; n++ { // which comes first is up to chance
			release := h.busy()
			h.adapter.Put(labelled(n, "nobody"))
			synctest.Wait()
			answer := h.later(put(tcp("web", uint16(n))))
			release()
			if err := <-answer; err != nil {
				t.Fatal(err)
			}
		}
	})
}
