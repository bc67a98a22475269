package engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

// Whatever changes, comes, goes and fails, in whatever order: when the faults
// are over, the backend holds the compilation of desired state and inventory,
// and no flow is left that it does not allow. In between, nothing is enforced
// for a VM that nobody ever asked for.
func TestConvergence(t *testing.T) {
	dirs := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(dirs, "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		// A rapid.T cannot fail within a bubble of its own, so faults are
		// brought out.
		var fault error
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 40).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) { fault = converge(t, dir, steps) })
		if fault != nil {
			rt.Fatal(fault)
		}
	})
}

// step is one thing that happens.
type step struct {
	Kind    string
	VM      int
	Groups  []string
	Port    uint16
	Method  coretest.Method
	Seconds int
}

var kinds = []string{"vm", "vm", "vm", "group", "group", "delete", "start", "start", "stop", "label", "refuse nic", "refuse group", "heal",
	"fail", "fail next", "lose", "anonymous", "tamper", "wipe", "deaf", "blind", "disconnect", "list fails", "resync", "flow", "sleep", "restart", "hang"}

func drawStep(t *rapid.T) step {
	return step{
		Kind:    rapid.SampledFrom(kinds).Draw(t, "kind"),
		VM:      rapid.IntRange(1, 5).Draw(t, "vm"),
		Groups:  rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID[string]).Draw(t, "groups"),
		Port:    rapid.Uint16Range(1, 3).Draw(t, "port"),
		Method:  rapid.SampledFrom([]coretest.Method{coretest.Sync, coretest.Apply, coretest.Observe, coretest.Flows, coretest.RevokeFlows, coretest.Events}).Draw(t, "method"),
		Seconds: rapid.SampledFrom([]int{0, 0, 1, 10, 100}).Draw(t, "seconds"),
	}
}

func converge(t *testing.T, dir string, steps []step) error {
	h := &host{t: t, dir: dir, backend: &coretest.FakeBackend{}, adapter: &coretest.FakeAdapter{}, devices: map[string]int{}}
	quietly := func(_ *host, o *Options) { o.Logger = nil }
	h.start(quietly)
	defer func() { h.stop() }()
	h.must(put(tcp("a", 1), from("b", "a"), from("c", "a", "b")))
	// No policy is ever written that nobody asked for, whatever is refused: a
	// NIC has groups that were asked for it, or none.
	asked := map[string]bool{}
	for _, s := range steps {
		if s.Kind == "vm" || s.Kind == "label" {
			asked[fmt.Sprint(nicKey(s.VM), slices.Sorted(slices.Values(s.Groups)))] = true
		}
	}
	h.backend.OnWrite(func(_, to core.Ruleset) {
		for k, n := range to.NICs {
			if !isBlank(n) && !asked[fmt.Sprint(k, n.Groups)] {
				t.Errorf("nic %s has groups %v, which nobody asked for", k, n.Groups)
			}
		}
	})
	var callers sync.WaitGroup
	for _, s := range steps {
		h.do(s, &callers, quietly)
		time.Sleep(time.Duration(s.Seconds) * time.Second)
	}
	h.heal()
	h.adapter.Resync()
	rest(5 * time.Minute)
	callers.Wait()
	ctx, cancel := within(time.Hour)
	defer cancel()
	if err := h.Settle(ctx); err != nil {
		return fmt.Errorf("it does not settle: %w", err)
	}
	want, have := policy.Version(h.wanted()), policy.Version(h.backend.Ruleset())
	if want.Fingerprint != have.Fingerprint {
		return fmt.Errorf("the backend holds something else than wanted: %+v", policy.Diff(have, want))
	}
	if revoke, restore := policy.StaleFlows(have.Ruleset, h.backend.Tracked()); len(revoke)+len(restore) > 0 {
		return fmt.Errorf("flows to revoke %v, to give back %v", revoke, restore)
	}
	if p := h.Status().Points[0]; !p.InSync {
		return fmt.Errorf("status is %+v", p)
	}
	return nil
}

func (h *host) do(s step, callers *sync.WaitGroup, more func(*host, *Options)) {
	change := func(fn func(*state.Tx) error) {
		callers.Go(func() {
			ctx, cancel := within(20 * time.Second)
			defer cancel()
			r, err := h.Change(ctx, fn)
			if err == nil && !r.Stored {
				h.t.Error("a change without error is not stored")
			}
		})
	}
	switch s.Kind {
	case "vm":
		change(put(record(s.VM, s.Groups...)))
	case "group":
		g := tcp("a", s.Port)
		if s.VM > 3 {
			g = from("b", s.Groups...)
		}
		change(put(g))
	case "delete":
		change(func(tx *state.Tx) error { return tx.DeleteVM(state.SourceAPI, key(s.VM)) })
	case "start":
		in := instance(s.VM)
		dev := device(10 + int(s.Port)) // names are used again, one VM at a time
		in.VM.NICs[0].Binding.Devices = []string{dev}
		if vm, used := h.devices[dev]; used && vm != s.VM {
			h.adapter.Stop(key(vm))
		}
		h.devices[dev] = s.VM
		h.adapter.Put(in)
	case "stop":
		h.adapter.Stop(key(s.VM))
	case "label":
		h.adapter.Put(labelled(s.VM, s.Groups...))
	case "refuse nic":
		h.backend.RefuseNIC(nicKey(s.VM), coretest.ErrRefused)
	case "refuse group":
		h.backend.RefuseGroup([]string{"a", "b", "c"}[s.Port-1], coretest.ErrRefused)
	case "heal":
		h.heal()
	case "fail":
		h.backend.Fail(s.Method, core.ErrNotReady)
	case "fail next":
		h.backend.FailNext(s.Method, errors.New("unknown"))
	case "lose":
		h.backend.LoseAnswer()
	case "anonymous":
		h.backend.NameObjects(s.Port == 1)
	case "tamper":
		h.backend.Tamper(flushed, wipe)
	case "wipe":
		h.backend.Wipe()
	case "deaf":
		h.adapter.Deaf(s.Port == 1)
	case "blind":
		h.adapter.Blind(s.Port == 1)
	case "disconnect":
		h.adapter.Disconnect()
	case "list fails":
		h.adapter.FailList(errors.New("no answer"))
	case "resync":
		h.adapter.Resync()
	case "flow":
		if f := flow(s.VM, s.Port); policy.EvaluateFlow(h.backend.Ruleset(), f).Allowed {
			h.backend.AddFlow(f)
		}
	case "hang":
		h.backend.Hang(s.Method)
	case "restart":
		callers.Wait() // their engine goes
		h.restart(more)
	}
}

func (h *host) heal() {
	for n := range 6 {
		h.backend.RefuseNIC(nicKey(n), nil)
	}
	for _, g := range []string{"a", "b", "c"} {
		h.backend.RefuseGroup(g, nil)
	}
	for _, m := range []coretest.Method{coretest.Sync, coretest.Apply, coretest.Observe, coretest.Flows, coretest.RevokeFlows, coretest.Events} {
		h.backend.Fail(m, nil)
		h.backend.Hang(m)() // the next calls; those under way run into their time
	}
	h.adapter.Deaf(false)
	h.adapter.Blind(false)
	h.adapter.FailList(nil)
}
