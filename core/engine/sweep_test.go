package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/state"
)

// flow is TCP from outside to VM n.
func flow(n int, port uint16) core.Flow {
	return core.Flow{Bridge: "br0", Protocol: core.ProtocolTCP, Src: ip(0xfff0), Dst: ip(n), SrcPort: 40000, DstPort: port}
}

func (h *host) revoked(f core.Flow) bool {
	h.t.Helper()
	for _, g := range h.backend.Tracked() {
		r := g.Revoked
		if g.Revoked = f.Revoked; g == f {
			return r
		}
	}
	h.t.Fatalf("flow %+v is not tracked", f)
	return false
}

func TestFlowsAreCutBeforeTheAnswer(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web"), record(2, "web")))
		h.backend.AddFlow(flow(1, 80), flow(1, 22), flow(2, 22))
		h.must(put(tcp("web", 80)))
		if h.revoked(flow(1, 80)) || !h.revoked(flow(1, 22)) || !h.revoked(flow(2, 22)) {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
		// The new ruleset comes first.
		calls := h.backend.Calls()
		if slices.Index(calls, coretest.RevokeFlows) < slices.Index(calls, coretest.Apply) {
			t.Errorf("calls are %v", calls)
		}
		h.must(put(tcp("web", 22)))
		if !h.revoked(flow(1, 80)) || h.revoked(flow(1, 22)) {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
		// Loosening gives back, too.
		h.must(put(tcp("web", 22, 80)))
		if h.revoked(flow(1, 80)) {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
		if s := h.Status().Points[0].Stats; s.FlowsRevoked != 3 || s.FlowsRestored != 3 {
			t.Errorf("stats are %+v", s)
		}
	})
}

func TestMembersAddressesAndNICsCutFlows(t *testing.T) {
	between := core.Flow{Bridge: "br0", Protocol: core.ProtocolTCP, Src: ip(2), Dst: ip(1), SrcPort: 40000, DstPort: 22}
	start := func(h *host) {
		h.must(put(tcp("bastion"), from("web", "bastion"), record(1, "web"), record(2, "bastion")))
		h.backend.AddFlow(between)
	}
	for name, change := range map[string]func(*state.Tx) error{
		"member leaves":  put(record(2)),
		"group off NIC":  put(record(1)),
		"address leaves": put(func() state.VM { v := record(2, "bastion"); v.NICs[0].Addresses[0] = ip(77); return v }()),
	} {
		onHost(t, running(1, 2), func(h *host) {
			start(h)
			h.must(change)
			if !h.revoked(between) {
				t.Errorf("%s: the flow lives on", name)
			}
		})
	}
}

// A packet under way when the ruleset changes can make a flow tracked after
// the first look.
func TestLateFlowsAreFound(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web")))
		h.must(put(tcp("web", 80))) // the first look is over
		h.backend.AddFlow(flow(1, 22))
		if h.revoked(flow(1, 22)) {
			t.Fatal("nobody can have seen the flow yet")
		}
		rest(10 * time.Millisecond)
		if !h.revoked(flow(1, 22)) {
			t.Error("the flow lives on")
		}
	})
}

// Where there is traffic to cut, the answer waits for the second look.
func TestLateFlowsOfLiveTraffic(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web")))
		h.backend.AddFlow(flow(1, 22))
		done := make(chan error)
		go func() {
			_, err := h.Change(context.Background(), put(tcp("web", 80)))
			done <- err
		}()
		synctest.Wait() // the first look is over
		late := flow(1, 22)
		late.SrcPort++
		h.backend.AddFlow(late)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !h.revoked(late) {
			t.Error("the flow lives on")
		}
	})
}

// An engine that ends at once, as a command's does, has looked again before.
func TestLateFlowsAtTheEnd(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web")))
		h.must(put(tcp("web", 80)))
		h.backend.AddFlow(flow(1, 22))
		h.stop()
		if !h.revoked(flow(1, 22)) {
			t.Error("the flow lives on")
		}
	})
}

func TestSweepAtStart(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web")))
		h.stop()
		h.backend.AddFlow(flow(1, 80), flow(1, 23)) // came while nobody looked
		h.start(nil)
		quiet()
		if h.revoked(flow(1, 80)) || !h.revoked(flow(1, 23)) {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
	})
}

func TestSweepThatFails(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		h.must(put(tcp("web", 80, 22), record(1, "web")))
		h.backend.AddFlow(flow(1, 22))
		h.backend.Fail(coretest.RevokeFlows, errors.New("ctnetlink: EBUSY"))
		r, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		if err == nil || !strings.Contains(err.Error(), "tracked flows were not revoked: ctnetlink: EBUSY") || !r.Stored {
			t.Errorf("result %+v, error %v", r, err)
		}
		h.converged()
		h.backend.Fail(coretest.RevokeFlows, nil)
		rest(2 * time.Minute)
		if !h.revoked(flow(1, 22)) || !h.Status().Points[0].InSync {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
	})
}

// A NIC that was kept back keeps its flows.
func TestFlowsAreJudgedByWhatIsEnforced(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		h.must(put(tcp("web", 80), tcp("ssh", 22), record(1, "web"), record(2, "web")))
		h.backend.AddFlow(flow(1, 80), flow(2, 80))
		h.backend.RefuseNIC(nicKey(1), coretest.ErrRefused)
		_, _ = h.Change(context.Background(), put(record(1, "ssh"), record(2, "ssh")))
		if h.revoked(flow(1, 80)) || !h.revoked(flow(2, 80)) {
			t.Errorf("flows are %+v", h.backend.Tracked())
		}
	})
}

func TestNothingToSweepWithoutFlows(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		running(1)(h, o)
		for _, f := range coretest.AllFeatures {
			if f != core.FeatureFlows {
				h.backend.Features = append(h.backend.Features, f)
			}
		}
	}, func(h *host) {
		h.must(put(tcp("web", 80), record(1, "web")))
		if h.backend.Count(coretest.Flows) > 0 {
			t.Error("flows were asked of a backend that has none")
		}
	})
}
