package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

var flushed = core.Drift{Object: "table bridge ringwall", Difference: "missing"}

func wipe(r *core.Ruleset) { *r = core.Ruleset{} }

func TestDriftIsRepaired(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.Tamper(flushed, wipe) // the backend tells
		quiet()
		h.converged()
		if s := h.Status().Points[0].Stats; s.Drifts != 1 || s.Repairs != 1 {
			t.Errorf("stats are %+v", s)
		}
	})
}

func TestDriftIsFoundWithoutEvents(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		running(1, 2)(h, o)
		for _, f := range coretest.AllFeatures {
			if f != core.FeatureEvents {
				h.backend.Features = append(h.backend.Features, f)
			}
		}
	}, func(h *host) {
		twoVMs(h)
		h.backend.Tamper(flushed, wipe)
		rest(31 * time.Second)
		h.converged()
		h.backend.Wipe() // a host's rules gone, fingerprint and all
		rest(31 * time.Second)
		h.converged()
		if s := h.Status().Points[0].Stats; s.Drifts != 2 || s.Repairs != 2 {
			t.Errorf("stats are %+v", s)
		}
	})
}

func TestDriftThatCannotBeRepairedYet(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.Fail(coretest.Sync, core.ErrNotReady)
		h.backend.Tamper(flushed, wipe)
		quiet()
		p := h.Status().Points[0]
		if p.InSync || p.Enforced != (core.Fingerprint{}) || p.Stats.Repairs != 0 {
			t.Errorf("status is %+v", p)
		}
		h.wantState(1, Stale, "")
		h.backend.Fail(coretest.Sync, nil)
		rest(2 * time.Minute)
		h.converged()
	})
}

// Drift next to a refusal: what is kept is put back, too.
func TestDriftBesideARefusal(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.must(put(tcp("ssh", 22)))
		h.backend.RefuseWhen(func(_, to core.Ruleset) error {
			if n, ok := to.NICs[nicKey(1)]; ok && n.Groups[0] != "web" {
				return &core.ObjectError{NICs: []core.NICKey{nicKey(1)}, Err: coretest.ErrRefused}
			}
			return nil
		})
		_, _ = h.Change(context.Background(), put(record(1, "ssh")))
		h.backend.Tamper(flushed, wipe)
		quiet()
		h.wantNICs(1, 2)
		h.wantState(1, Stale, "refused")
	})
}

func TestBackendThatFightsBack(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		before := h.backend.Count(coretest.Sync)
		stop := time.Now().Add(time.Second)
		for time.Now().Before(stop) {
			h.backend.Tamper(flushed, wipe)
			time.Sleep(100 * time.Microsecond)
		}
		quiet()
		h.converged()
		if n := h.backend.Count(coretest.Sync) - before; n > 120 {
			t.Errorf("%d repairs in a second", n)
		}
	})
}

func TestEventsEndAndBeginAnew(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		running(1, 2)(h, o)
		o.Timing.Observe = time.Hour
		h.backend.Fail(coretest.Events, core.ErrNotReady)
	}, func(h *host) {
		twoVMs(h)
		rest(10 * time.Minute)
		h.backend.Tamper(flushed, wipe) // nobody hears it
		h.backend.Fail(coretest.Events, nil)
		rest(2 * time.Minute)
		h.converged()
		for _, kind := range []core.EventKind{core.EventLost, core.EventRepaired, core.EventPorts} {
			before := h.backend.Count(coretest.Observe)
			h.backend.Emit(core.Event{Kind: kind})
			quiet()
			if h.backend.Count(coretest.Observe) == before {
				t.Errorf("nobody looked after %s", kind)
			}
		}
	})
}

func TestObserveFails(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.Fail(coretest.Observe, errors.New("EPERM"))
		rest(31 * time.Second)
		p := h.Status().Points[0]
		if !p.InSync || !strings.Contains(p.WatchError, "EPERM") {
			t.Errorf("status is %+v", p)
		}
		h.backend.Fail(coretest.Observe, nil)
		rest(31 * time.Second)
		if p := h.Status().Points[0]; p.WatchError != "" {
			t.Errorf("status is %+v", p)
		}
	})
}

func TestClosedPortsShow(t *testing.T) {
	onHost(t, running(1, 2, 3), func(h *host) {
		twoVMs(h)
		h.backend.SetCounters(
			core.Counter{Device: device(3), Direction: core.Egress, Reason: core.ReasonClosedPort, Packets: 4}, // the adapter knows it
			core.Counter{Device: "vnet99", Direction: core.Egress, Reason: core.ReasonClosedPort, Packets: 1},
			core.Counter{NIC: nicKey(1), Device: device(1), Direction: core.Ingress, Reason: core.ReasonRule, Packets: 9})
		rest(31 * time.Second)
		var got []string
		for _, s := range h.Status().NICs {
			if s.State == ClosedPort {
				got = append(got, s.Devices...)
			}
		}
		if !cmp.Equal(got, []string{"vnet99"}) {
			t.Errorf("closed ports are %v", got)
		}
		h.wantState(3, Closed, "no source")
	})
}

// The log says who touched what is enforced, once for each look.
func TestWhoIsToBlameIsLogged(t *testing.T) {
	var log bytes.Buffer
	onHost(t, func(h *host, o *Options) {
		running(1, 2)(h, o)
		o.Logger = slog.New(slog.NewTextHandler(&log, nil)) // info and above
	}, func(h *host) {
		twoVMs(h)
		h.backend.Emit(core.Event{Kind: core.EventDrift, Object: "table bridge ringwall", By: "nft[4711]"})
		quiet()
		if got := log.String(); strings.Count(got, "by=nft[4711]") != 1 || !strings.Contains(got, "level=INFO") {
			t.Errorf("the log says %q", got)
		}
	})
}

// A preview of what every point should hold writes nothing, with and without Run.
func TestPreview(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.Wipe()
		writes := h.backend.Writes()
		got, err := h.Preview(context.Background())
		if want := h.Status().Points[0].Wanted; err != nil || got[""] != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if h.backend.Writes() != writes {
			t.Error("it wrote")
		}
		h.adapter.FailList(core.ErrNotReady)
		if _, err := h.Preview(context.Background()); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("the adapter's error is %v", err)
		}
	})
}
