package plugintest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakes is a driver of both kinds over coretest's fakes.
type fakes struct {
	backend  *coretest.FakeBackend
	adapter  *coretest.FakeAdapter
	settings core.Settings // as Open got them
	openErr  error
	bare     bool // hide the optional interfaces
}

type backendDriver struct{ *fakes }
type adapterDriver struct{ *fakes }

func (d backendDriver) Info() core.Info { return d.backend.Info() }
func (d backendDriver) Open(_ context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	d.settings = s
	if d.openErr != nil {
		return nil, d.openErr
	}
	if d.bare {
		return struct{ core.SecurityGroupBackend }{d.backend}, nil
	}
	return d.backend, nil
}

func (d adapterDriver) Info() core.Info { return d.adapter.Info() }
func (d adapterDriver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	d.settings = s
	return d.adapter, d.openErr
}

func newFakes() *fakes {
	return &fakes{backend: &coretest.FakeBackend{}, adapter: &coretest.FakeAdapter{}}
}

func loop(t testing.TB, f *fakes) *plugintest.Loopback {
	t.Helper()
	l, err := plugintest.Serve(backendDriver{f}, adapterDriver{f})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func openBackend(t testing.TB, f *fakes) core.SecurityGroupBackend {
	t.Helper()
	d, err := loop(t, f).Backend()
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Open(t.Context(), core.Settings{"datapath": "auto", "n": 3})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openAdapter(t testing.TB, f *fakes) core.HypervisorAdapter {
	t.Helper()
	d, err := loop(t, f).Adapter()
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var equal = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func same(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, equal); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// ruleset is one NIC per VM with the given number of rules in a group of its
// own, and a remote group that all refer to.
func ruleset(nics, rules int) core.Ruleset {
	r := core.Ruleset{
		Options: core.Options{Bridges: []core.Pattern{"cloudbr*"}, VMPorts: []core.Pattern{"vnet*"}},
		Groups:  map[string]core.GroupPolicy{}, NICs: map[core.NICKey]core.NICPolicy{},
		Sets: map[string]core.AddressSet{"all": {}},
	}
	members := r.Sets["all"]
	for i := range nics {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		name := fmt.Sprintf("cloudstack/i-2-%d-VM", i)
		g := core.GroupPolicy{Entries: []core.Entry{{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP, Span: core.Span{First: 22, Last: 22}, Peer: core.Peer{Group: "all"}}}}
		for j := 1; j < rules; j++ {
			g.Entries = append(g.Entries, core.Entry{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP,
				Span: core.Span{First: uint16(j), Last: uint16(j + 10)}, Peer: core.Peer{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(j), 0}), 24)}})
		}
		r.Groups[name] = g
		k := core.NICKey{VM: core.VMKey(fmt.Sprintf("i-2-%d-VM", i)), MAC: core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
		r.NICs[k] = core.NICPolicy{Key: k, VM: string(k.VM), Bridge: "cloudbr0", Devices: []string{fmt.Sprintf("vnet%d", i)}, Addresses: []netip.Addr{a}, Groups: []string{name}, EgressDeny6: true}
		members.Members = append(members.Members, a)
	}
	r.Sets["all"] = members
	return r
}

// rename is a change of one NIC.
func rename(r core.Ruleset, i int) core.Delta {
	k := core.NICKey{VM: core.VMKey(fmt.Sprintf("i-2-%d-VM", i)), MAC: core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}
	n := r.NICs[k]
	n.VM = "renamed"
	d := core.Delta{From: r.Fingerprint(), NICs: []core.NICPolicy{n}}
	next, err := d.Apply(r, d.From)
	if err != nil {
		panic(err)
	}
	d.To = next.Fingerprint()
	return d
}

func TestFourThousandNICs(t *testing.T) {
	f := newFakes()
	b := openBackend(t, f)
	r := ruleset(4000, 20)
	if err := b.Sync(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if f.backend.Fingerprint() != r.Fingerprint() {
		t.Fatal("the ruleset changed on the way")
	}
	if got := f.backend.Ruleset(); got.Fingerprint() != r.Fingerprint() || len(got.NICs) != 4000 {
		t.Errorf("%d NICs arrived", len(got.NICs))
	}
	d := rename(r, 3999)
	if err := b.Apply(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	o, err := b.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if o.Fingerprint != d.To {
		t.Errorf("observed %s, want %s", o.Fingerprint.Short(), d.To.Short())
	}

	a := openAdapter(t, f)
	var want []core.Instance
	for i := range 4000 {
		in := core.Instance{VM: core.VM{Key: core.VMKey(fmt.Sprintf("vm-%04d", i)), NICs: []core.NIC{{
			MAC: core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
			Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{fmt.Sprintf("vnet%d", i)}},
		}}}}
		f.adapter.Put(in)
		want = append(want, in)
	}
	got, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, got)
}

func TestBackendCalls(t *testing.T) {
	f := newFakes()
	b := openBackend(t, f)
	same(t, core.Settings{"datapath": "auto", "n": 3}, f.settings)
	same(t, f.backend.Info(), b.Info())
	checks, err := b.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, []core.Check{{Name: "fake", Summary: "nothing to check"}}, checks)

	k := core.NICKey{VM: "a", MAC: core.MAC{2}}
	want := []core.Counter{{NIC: k, Direction: core.Egress, Reason: core.ReasonIPSpoof, Packets: 1 << 60, Bytes: 7}, {Device: "vnet9", Direction: core.Ingress, Reason: core.ReasonClosedPort}}
	f.backend.SetCounters(want...)
	counters, err := b.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, counters)

	flows := []core.Flow{{Bridge: "br0", Protocol: core.ProtocolTCP, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), SrcPort: 1, DstPort: 65535, From: k}, {Protocol: core.ProtocolUDP, Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Revoked: true, HostSrc: true}}
	f.backend.AddFlow(flows...)
	fb := b.(core.FlowBackend)
	got, err := fb.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, flows, got)
	n, err := fb.RevokeFlows(t.Context(), flows[:1], flows[1:])
	if err != nil || n != 2 {
		t.Errorf("changed %d, %v", n, err)
	}
	if tracked := f.backend.Tracked(); !tracked[0].Revoked || tracked[1].Revoked {
		t.Errorf("tracked: %+v", tracked)
	}

	ctx, cancel := context.WithCancel(t.Context())
	events, err := b.(core.EventBackend).Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.backend.Emit(core.Event{Kind: core.EventDrift, Object: "chain x", By: "nft[12]"})
	same(t, core.Event{Kind: core.EventDrift, Object: "chain x", By: "nft[12]"}, <-events)
	cancel()
	for range events { // closes
	}
	if err := b.Teardown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if n := f.backend.Count(coretest.Close); n != 1 {
		t.Errorf("closed %d times", n)
	}
	if _, err := b.Observe(t.Context()); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("after Close: %v", err)
	}
	if len(f.backend.Abuse()) > 0 {
		t.Error(f.backend.Abuse())
	}
}

func TestAdapterCalls(t *testing.T) {
	f := newFakes()
	a := openAdapter(t, f)
	in := core.Instance{Claims: true, VM: core.VM{Key: "7c5d", Name: "r-4-VM", Kind: core.SystemVM, NICs: []core.NIC{{MAC: core.MAC{2}, Groups: []string{"web"}, SpoofingAllowed: true,
		Pairs: []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.100/32"), MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}}}, Binding: core.Binding{Point: "p"}}}}}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := a.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	same(t, core.VMEvent{Kind: core.VMResync}, <-events)
	f.adapter.Put(in)
	same(t, core.VMEvent{Kind: core.VMStarted, Instance: in}, <-events)
	f.adapter.Stop("7c5d")
	same(t, core.VMEvent{Kind: core.VMStopped, Instance: core.Instance{VM: core.VM{Key: "7c5d", Name: "r-4-VM"}}}, <-events)
	cancel()
	for range events {
	}
	f.adapter.FailWatch(fmt.Errorf("libvirtd is away: %w", core.ErrNotReady))
	if _, err := a.Watch(t.Context()); !errors.Is(err, core.ErrNotReady) || err.Error() != "libvirtd is away: not ready" {
		t.Errorf("got %v", err)
	}
	f.adapter.FailList(fmt.Errorf("no permission: %w", core.ErrUnsupported))
	if _, err := a.List(t.Context()); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsCross(t *testing.T) {
	f := newFakes()
	b := openBackend(t, f)
	r := ruleset(2, 3)
	k := core.NICKey{VM: "i-2-1-VM", MAC: core.MAC{2, 0, 0, 0, 0, 1}}
	f.backend.RefuseNIC(k, fmt.Errorf("no room: %w", core.ErrUnsupported))
	err := b.Sync(t.Context(), r)
	var o *core.ObjectError
	if !errors.As(err, &o) || !errors.Is(err, core.ErrUnsupported) || o.NICs[0] != k {
		t.Errorf("got %v", err)
	}
	if err := b.Apply(t.Context(), core.Delta{From: core.Fingerprint{9}}); !errors.Is(err, core.ErrConflict) {
		t.Errorf("got %v", err)
	}
	f.openErr = fmt.Errorf("open: %w", &core.FieldError{Path: "settings.mark_mask", Value: "7", Reason: "too few bits"})
	d, _ := loop(t, f).Backend()
	_, err = d.Open(t.Context(), nil)
	var field *core.FieldError
	if !errors.As(err, &field) || field.Path != "settings.mark_mask" || err.Error() != f.openErr.Error() {
		t.Errorf("got %v", err)
	}
	// The caller's own deadline and cancellation are what they are in process.
	release := f.backend.Hang(coretest.Counters)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Counters(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := b.Counters(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A backend is a FlowBackend or an EventBackend when its features say so.
func TestOptionalInterfaces(t *testing.T) {
	base := []core.Feature{core.FeatureIPv4}
	for _, c := range []struct {
		features      []core.Feature
		flows, events bool
	}{
		{base, false, false},
		{append(base, core.FeatureFlows), true, false},
		{append(base, core.FeatureEvents), false, true},
		{append(base, core.FeatureFlows, core.FeatureEvents), true, true},
	} {
		f := newFakes()
		f.backend.Features = c.features
		b := openBackend(t, f)
		_, flows := b.(core.FlowBackend)
		_, events := b.(core.EventBackend)
		if flows != c.flows || events != c.events {
			t.Errorf("%v: flows %v, events %v", c.features, flows, events)
		}
	}
	f := newFakes()
	f.bare = true
	d, _ := loop(t, f).Backend()
	if _, err := d.Open(t.Context(), nil); !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), "lacks its methods") {
		t.Errorf("a driver that promises too much was opened: %v", err)
	}
}

func TestServesOneOfTwo(t *testing.T) {
	f := newFakes()
	l, err := plugintest.Serve(backendDriver{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Adapter(); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if _, err := plugintest.Serve(nil, nil); err == nil {
		t.Error("a plugin that serves nothing was taken")
	}
}

// What the plugin lacks is refused by name, before it hears of it.
func TestFeaturesAreChecked(t *testing.T) {
	f := newFakes()
	f.backend.Features = []core.Feature{core.FeatureIPv4, core.FeaturePorts, core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureFailClosed, core.FeatureMulticast, core.FeatureEgress}
	b := openBackend(t, f)
	r := ruleset(2, 3)
	if err := b.Sync(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	group := "cloudstack/i-2-1-VM"
	first := core.NICKey{VM: "i-2-1-VM", MAC: core.MAC{2, 0, 0, 0, 0, 1}}
	second := r.NICs[first]
	second.Key.MAC[0] = 6
	for name, d := range map[core.Feature]core.Delta{
		core.FeatureICMP:      {Groups: map[string]core.GroupDelta{group: {Add: []core.Entry{{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolICMP, Span: core.AnySpan, Peer: core.Peer{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}}}},
		core.FeatureCountOnly: {Options: &core.Options{CountOnly: true}},
		core.FeatureMultiNIC:  {NICs: []core.NICPolicy{second}},
	} {
		d.From = r.Fingerprint()
		err := b.Apply(t.Context(), d)
		if !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), string(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := f.backend.Count(coretest.Apply); n != 0 {
		t.Errorf("the plugin was asked %d times", n)
	}
	// The same NIC in the other's place is one NIC.
	d := core.Delta{From: r.Fingerprint(), NICs: []core.NICPolicy{second}, Removed: []core.NICKey{first}}
	next, _ := d.Apply(r, d.From)
	d.To = next.Fingerprint()
	if err := b.Apply(t.Context(), d); err != nil {
		t.Error(err)
	}
	r.Options.CountOnly = true
	if err := b.Sync(t.Context(), r); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// A change that the caller gave up and that still runs in the plugin does not
// run beside the next.
func TestWritesAreSerialised(t *testing.T) {
	f := newFakes()
	var running, most int
	release := make(chan struct{})
	b := openBackend(t, f)
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	f.backend.OnWrite(func(_, _ core.Ruleset) {
		running++
		most = max(most, running)
		<-release
		running--
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Sync(ctx, ruleset(1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- b.Sync(t.Context(), ruleset(2, 1)) }()
	time.Sleep(20 * time.Millisecond)
	free()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if abuse := f.backend.Abuse(); len(abuse) > 0 || most != 1 {
		t.Errorf("%d at once, %v", most, abuse)
	}
}
