package engine

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

func TestStatusAsJSON(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.backend.RefuseNIC(nicKey(2), coretest.ErrRefused)
		_, _ = h.Change(context.Background(), put(record(2), record(3, "web")))
		text, err := json.Marshal(h.Status())
		if err != nil {
			t.Fatal(err)
		}
		var got Status
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		states := map[core.NICKey]State{}
		for _, n := range got.NICs {
			states[n.NIC] = n.State
		}
		if want := (map[core.NICKey]State{nicKey(1): Enforced, nicKey(2): Stale, nicKey(3): Pending}); !cmp.Equal(states, want) {
			t.Errorf("states are %v, want %v", states, want)
		}
		if p := got.Points[0]; p.InSync || p.Retry.IsZero() || !strings.Contains(p.Reason, "1 NICs") {
			t.Errorf("point is %+v", p)
		}
		if a := got.Adapter; a == nil || !a.Ready || a.VMs != 2 || got.Revision != 2 {
			t.Errorf("status is %s", text)
		}
		if err := json.Unmarshal([]byte(`{"nics":[{"state":"fine"}]}`), &got); err == nil {
			t.Error("a state that there is not was read")
		}
	})
}

func TestStatusBeforeTheAdapterAnswers(t *testing.T) {
	onHost(t, func(h *host, o *Options) { h.adapter.HangList() }, func(h *host) {
		s := h.Status()
		if s.Adapter.Ready || s.Points[0].InSync || !strings.Contains(s.Points[0].Reason, "has not answered yet") {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestStatusWhenTheBackendFailsFromTheStart(t *testing.T) {
	onHost(t, running(1, 2), func(h *host) {
		twoVMs(h)
		h.restart(func(h *host, _ *Options) { h.backend.Fail(coretest.Sync, core.ErrNotReady) })
		rest(time.Second)
		h.wantState(1, Stale, "as it was before the start: not ready")
		h.wantNICs(1, 2)
	})
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("an engine without state and backend was made")
	}
}
