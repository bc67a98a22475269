package coretest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx = context.Background()
	nic = core.NICKey{VM: "v", MAC: core.MAC{2, 0, 0, 0, 0, 1}}
)

func ruleset(groups ...string) core.Ruleset {
	r := core.Ruleset{Groups: map[string]core.GroupPolicy{}, Sets: map[string]core.AddressSet{},
		NICs: map[core.NICKey]core.NICPolicy{nic: {Key: nic, Groups: groups, Devices: []string{"vnet0"}}}}
	for _, g := range groups {
		r.Groups[g] = core.GroupPolicy{}
	}
	return r
}

func diff(from, to core.Ruleset) core.Delta {
	return policy.Diff(policy.Version(from), policy.Version(to))
}

func TestBackendSyncAndApply(t *testing.T) {
	b := &FakeBackend{}
	a, c := ruleset("a"), ruleset("a", "c")
	if err := b.Sync(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(ctx, a); err != nil || b.Writes() != 1 {
		t.Errorf("the same again: %v, %d writes", err, b.Writes())
	}
	if err := b.Apply(ctx, diff(c, a)); !errors.Is(err, core.ErrConflict) {
		t.Errorf("from another ruleset: %v", err)
	}
	if err := b.Apply(ctx, diff(a, c)); err != nil || b.Fingerprint() != c.Fingerprint() {
		t.Errorf("apply: %v", err)
	}
	if err := b.Teardown(ctx); err != nil || b.Fingerprint() != (core.Fingerprint{}) {
		t.Errorf("teardown: %v", err)
	}
	broken := ruleset("a")
	delete(broken.Groups, "a")
	if err := b.Sync(ctx, broken); err == nil || len(b.Abuse()) != 1 {
		t.Errorf("a ruleset that refers to nothing: %v, %v", err, b.Abuse())
	}
}

func TestBackendFaults(t *testing.T) {
	b := &FakeBackend{}
	if err := b.Sync(ctx, ruleset("a")); err != nil {
		t.Fatal(err)
	}
	held := b.Fingerprint()
	try := func(name string, want error, check func(error) bool) {
		t.Helper()
		err := b.Sync(ctx, ruleset("b"))
		if !errors.Is(err, want) || !check(err) {
			t.Errorf("%s: error is %v", name, err)
		}
		if b.Fingerprint() != held {
			t.Errorf("%s: the failure has changed something", name)
		}
	}
	names := func(err error) bool { var o *core.ObjectError; return errors.As(err, &o) }
	b.RefuseNIC(nic, ErrRefused)
	try("refused NIC", ErrRefused, names)
	if err := b.Sync(ctx, ruleset("a")); err != nil {
		t.Errorf("what is enforced was refused: %v", err)
	}
	b.NameObjects(false)
	try("without names", ErrRefused, func(err error) bool { return !names(err) })
	b.NameObjects(true)
	b.RefuseNIC(nic, nil)
	b.RefuseWhen(func(_, to core.Ruleset) error { return core.ErrInvalid })
	try("refused by function", core.ErrInvalid, func(error) bool { return true })
	b.RefuseWhen(nil)
	b.FailNext(Sync, core.ErrNotReady)
	try("next", core.ErrNotReady, func(error) bool { return true })
	b.Fail(Sync, core.ErrNotReady)
	try("always", core.ErrNotReady, func(error) bool { return true })
	b.Fail(Sync, nil)
	release := b.Hang(Sync)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := b.Sync(short, ruleset("b")); !errors.Is(err, context.DeadlineExceeded) || b.Fingerprint() != held {
		t.Errorf("hanging: %v", err)
	}
	release()
	b.LoseAnswer()
	if err := b.Sync(ctx, ruleset("b")); !errors.Is(err, context.DeadlineExceeded) || b.Fingerprint() == held {
		t.Errorf("lost answer: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_ = b.Sync(ctx, ruleset("c"))
	if a := b.Abuse(); len(a) != 1 || !strings.Contains(a[0], "after close") {
		t.Errorf("abuse is %v", a)
	}
}

func TestBackendDriftAndFlows(t *testing.T) {
	b := &FakeBackend{}
	watching, stop := context.WithCancel(ctx)
	events, err := b.Events(watching)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(ctx, ruleset("a")); err != nil {
		t.Fatal(err)
	}
	b.Tamper(core.Drift{Object: "chain x", Difference: "missing"}, func(r *core.Ruleset) { clear(r.NICs) })
	if e := <-events; e.Kind != core.EventDrift || e.Object != "chain x" {
		t.Errorf("event is %+v", e)
	}
	stop()
	if _, open := <-events; open {
		t.Error("events go on")
	}
	if o, err := b.Observe(ctx); err != nil || len(o.Drift) != 1 || len(b.Ruleset().NICs) != 0 {
		t.Errorf("observed %+v, %v", o, err)
	}
	if err := b.Apply(ctx, diff(ruleset("a"), ruleset("b"))); !errors.Is(err, core.ErrConflict) {
		t.Errorf("apply upon drift: %v", err)
	}
	if err := b.Sync(ctx, ruleset("a")); err != nil || len(b.Ruleset().NICs) != 1 {
		t.Errorf("repair: %v", err)
	}
	f := core.Flow{Bridge: "br0", SrcPort: 1}
	b.AddFlow(f)
	if n, err := b.RevokeFlows(ctx, []core.Flow{f, {SrcPort: 9}}, nil); n != 1 || err != nil || !b.Tracked()[0].Revoked {
		t.Errorf("revoked %d, %v", n, err)
	}
	if n, err := b.RevokeFlows(ctx, nil, b.Tracked()); n != 1 || err != nil || b.Tracked()[0].Revoked {
		t.Errorf("given back %d, %v", n, err)
	}
}

func TestAdapter(t *testing.T) {
	a := &FakeAdapter{}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events, err := a.Watch(watching)
	if err != nil {
		t.Fatal(err)
	}
	in := core.Instance{VM: core.VM{Key: "v", Name: "v"}}
	a.Put(in)
	a.Put(in)
	a.Deaf(true)
	a.Put(core.Instance{VM: core.VM{Key: "w"}})
	a.Deaf(false)
	a.Stop("v")
	a.Resync()
	var kinds []core.VMEventKind
	for range 5 {
		kinds = append(kinds, (<-events).Kind)
	}
	if want := []core.VMEventKind{core.VMResync, core.VMStarted, core.VMChanged, core.VMStopped, core.VMResync}; !slices.Equal(kinds, want) {
		t.Errorf("events are %v, want %v", kinds, want)
	}
	if l, err := a.List(ctx); err != nil || len(l) != 1 || l[0].VM.Key != "w" {
		t.Errorf("list is %v, %v", l, err)
	}
	a.Blind(true)
	if l, err := a.List(ctx); err != nil || len(l) != 0 {
		t.Errorf("blind list is %v, %v", l, err)
	}
	a.FailList(core.ErrNotReady)
	if _, err := a.List(ctx); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("error is %v", err)
	}
	release := a.HangList()
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := a.List(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: %v", err)
	}
	release()
	a.Disconnect()
	if _, open := <-events; open {
		t.Error("events go on")
	}
	a.FailWatch(core.ErrNotReady)
	if _, err := a.Watch(ctx); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("error is %v", err)
	}
}
