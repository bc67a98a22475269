package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

func TestSwapBackend(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		former, next := h.backend, &coretest.FakeBackend{Name: "next"}
		first := true
		next.OnWrite(func(_, to core.Ruleset) {
			if !first {
				return
			}
			first = false
			if former.Fingerprint() != to.Fingerprint() || former.Count(coretest.Teardown) > 0 {
				t.Error("the former backend is down before the next one is up")
			}
		})
		if err := h.SwapBackend(context.Background(), "", next); err != nil {
			t.Fatal(err)
		}
		if former.Count(coretest.Teardown) != 1 || former.Count(coretest.Close) != 1 {
			t.Errorf("calls are %v", former.Calls())
		}
		h.backend = next
		h.converged()
		h.must(put(tcp("web", 443)))
		h.converged()
		next.Tamper(flushed, wipe) // its events are followed
		quiet()
		h.converged()
		if p := h.Status().Points[0]; p.Backend != "next" || !p.InSync {
			t.Errorf("status is %+v", p)
		}
	})
}

func TestSwapThatIsNotTaken(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.AddFlow(flow(1, 80))
		for name, tc := range map[string]struct {
			prepare func(*coretest.FakeBackend)
			want    error
		}{
			"a feature is missing": {func(b *coretest.FakeBackend) { b.Features = []core.Feature{core.FeatureIPv4} }, core.ErrUnsupported},
			"it is not there":      {func(b *coretest.FakeBackend) { b.Fail(coretest.Sync, core.ErrNotReady) }, core.ErrNotReady},
			"it refuses a NIC":     {func(b *coretest.FakeBackend) { b.RefuseNIC(nicKey(2), coretest.ErrRefused) }, coretest.ErrRefused},
		} {
			next := &coretest.FakeBackend{}
			tc.prepare(next)
			if err := h.SwapBackend(context.Background(), "", next); !errors.Is(err, tc.want) {
				t.Errorf("%s: error is %v, want %v", name, err, tc.want)
			}
			if len(next.Ruleset().NICs) > 0 || next.Count(coretest.Close) > 0 {
				t.Errorf("%s: it is left with %+v", name, next.Ruleset())
			}
			h.must(put(tcp("web", 80), record(1, "web")))
			h.converged()
		}
		if err := h.SwapBackend(context.Background(), "mars", h.backend); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("error is %v", err)
		}
	})
}

// The new one is in force, and that is said so that it can be told from every
// other error.
func TestSwapThatLeavesSomethingBehind(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		next := &coretest.FakeBackend{Name: "next"}
		h.backend.Fail(coretest.Teardown, coretest.ErrRefused)
		err := h.SwapBackend(context.Background(), "", next)
		if !errors.Is(err, ErrLeftBehind) || !errors.Is(err, coretest.ErrRefused) {
			t.Errorf("error is %v", err)
		}
		h.backend = next
		h.converged()
	})
}

// Who gives up waiting learns all the same what has become of the backend.
func TestSwapIsNotLeftInTheAir(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		twoVMs(h)
		next := &coretest.FakeBackend{Name: "next"}
		release := next.Hang(coretest.Sync)
		ctx, cancel := within(time.Second)
		defer cancel()
		go func() {
			time.Sleep(10 * time.Second)
			release()
		}()
		if err := h.SwapBackend(ctx, "", next); err != nil {
			t.Errorf("error is %v", err)
		}
		h.backend = next
		h.converged()
	})
}

func TestReadsPassThrough(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		ctx, cancel := within(time.Second)
		defer cancel()
		h.backend.SetCounters(core.Counter{NIC: nicKey(1), Packets: 7})
		if c, err := h.Counters(ctx, ""); err != nil || len(c) != 1 || c[0].Packets != 7 {
			t.Errorf("counters are %v, %v", c, err)
		}
		if o, err := h.Observe(ctx, ""); err != nil || o.Fingerprint != h.backend.Fingerprint() {
			t.Errorf("observation is %v, %v", o, err)
		}
		if r, err := h.Ruleset(""); err != nil || r.Fingerprint() != h.backend.Fingerprint() {
			t.Errorf("ruleset: %v", err)
		}
		if err := h.Settle(ctx); err != nil {
			t.Error(err)
		}
		h.backend.Fail(coretest.Apply, core.ErrNotReady)
		h.backend.Fail(coretest.Sync, core.ErrNotReady)
		_, _ = h.Change(ctx, put(tcp("web", 81)))
		if err := h.Settle(ctx); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("settled with %v", err)
		}
	})
}

func TestSwapToABackendThatCanDoMore(t *testing.T) {
	onHost(t, func(h *host, _ *Options) {
		for _, f := range coretest.AllFeatures {
			if f != core.FeatureSystemVM {
				h.backend.Features = append(h.backend.Features, f)
			}
		}
		in := labelled(1)
		in.VM.Kind = core.SystemVM
		h.adapter.Put(in)
	}, func(h *host) {
		quiet()
		h.wantState(1, Closed, "lacks system-vm")
		next := &coretest.FakeBackend{}
		next.OnWrite(func(from, to core.Ruleset) {
			if _, had := from.NICs[nicKey(1)]; had && to.NICs[nicKey(1)].Kind != core.SystemVM {
				t.Error("the NIC was closed again")
			}
		})
		if err := h.SwapBackend(context.Background(), "", next); err != nil {
			t.Fatal(err)
		}
		quiet()
		h.wantState(1, Enforced, "")
		if p := h.Status().Points[0]; !p.InSync {
			t.Errorf("status is %+v", p)
		}
	})
}
