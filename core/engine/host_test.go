package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is an engine with fakes around it, in a synctest bubble: sleeping costs
// nothing, and waiting for quiet is exact.
type host struct {
	*Engine
	t       testing.TB
	dir     string
	store   *state.Store
	backend *coretest.FakeBackend
	adapter *coretest.FakeAdapter
	devices map[string]int // device -> VM that had it last
	stop    func()         // ends Run and lets go of the state
}

var testOptions = core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*", "tap*"}}

// onHost runs a test on a fresh host whose engine runs. more may change the
// options and may put VMs before the start.
func onHost(t *testing.T, more func(*host, *Options), test func(*host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t, dir: t.TempDir(), backend: &coretest.FakeBackend{}, adapter: &coretest.FakeAdapter{}}
		h.start(more)
		defer func() { h.stop() }()
		test(h)
	})
}

func (h *host) start(more func(*host, *Options)) {
	h.t.Helper()
	var err error
	if h.store, err = state.Open(context.Background(), state.Options{Dir: h.dir}); err != nil {
		h.t.Fatal(err)
	}
	o := Options{State: h.store, Backends: map[string]core.SecurityGroupBackend{"": h.backend}, Adapter: h.adapter,
		Policy: testOptions, Logger: slog.New(slog.NewTextHandler(h.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if more != nil {
		more(h, &o)
	}
	if h.Engine, err = New(o); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	h.stop = func() {
		h.stop = func() {}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			h.t.Errorf("Run ended with %v", err)
		}
		if err := h.store.Close(); err != nil {
			h.t.Error(err)
		}
		for _, b := range o.Backends {
			for _, a := range b.(*coretest.FakeBackend).Abuse() {
				h.t.Errorf("the engine misused a backend: %s", a)
			}
		}
	}
	synctest.Wait()
}

// restart is an agent that was killed and started again.
func (h *host) restart(more func(*host, *Options)) {
	h.t.Helper()
	h.stop()
	h.start(more)
}

// rest lets time go by until everything that is due has happened.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// quiet is long enough for everything but retries and intervals.
func quiet() { rest(200 * time.Millisecond) }

func mac(n int) core.MAC       { return core.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }
func ip(n int) netip.Addr      { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }
func key(n int) core.VMKey     { return core.VMKey(fmt.Sprintf("vm-%d", n)) }
func nicKey(n int) core.NICKey { return core.NICKey{VM: key(n), MAC: mac(n)} }
func device(n int) string      { return fmt.Sprintf("vnet%d", n) }

// record is the desired record of VM n, with groups.
func record(n int, groups ...string) state.VM {
	return state.VM{Source: state.SourceAPI, VM: core.VM{Key: key(n), Name: string(key(n)),
		NICs: []core.NIC{{MAC: mac(n), Addresses: []netip.Addr{ip(n)}, Groups: groups}}}}
}

// instance is VM n as the hypervisor has it.
func instance(n int) core.Instance {
	return core.Instance{VM: core.VM{Key: key(n), Name: string(key(n)),
		NICs: []core.NIC{{MAC: mac(n), Binding: core.Binding{Bridge: "br0", Devices: []string{device(n)}}}}}}
}

// labelled is VM n with metadata that speaks for its groups.
func labelled(n int, groups ...string) core.Instance {
	in := instance(n)
	in.Claims = true
	in.VM.NICs[0].Addresses = []netip.Addr{ip(n)}
	in.VM.NICs[0].Groups = groups
	return in
}

// tcp is a group that lets these ports in, from anywhere.
func tcp(name string, ports ...uint16) state.Group {
	g := state.Group{Source: state.SourceAPI, Group: core.Group{Name: name}}
	for _, p := range ports {
		g.Rules = append(g.Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: p, Last: p}}})
	}
	return g
}

// from is a group that lets TCP in from the members of others.
func from(name string, groups ...string) state.Group {
	return state.Group{Source: state.SourceAPI, Group: core.Group{Name: name,
		Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolTCP, Peers: &core.Peers{Groups: groups}}}}}
}

func put(items ...any) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		for _, item := range items {
			var err error
			switch item := item.(type) {
			case state.Group:
				err = tx.PutGroup(item)
			case state.VM:
				err = tx.PutVM(item)
			default:
				err = fmt.Errorf("put of %T", item)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// must makes a change that must be in force.
func (h *host) must(change func(*state.Tx) error) Result {
	h.t.Helper()
	r, err := h.Change(context.Background(), change)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// wanted is what the backend should hold: the compilation of everything.
func (h *host) wanted() core.Ruleset {
	h.t.Helper()
	rs, err := policy.Compile(h.Input(""))
	if err != nil {
		h.t.Fatal(err)
	}
	return rs
}

// converged checks that the backend holds what it should.
func (h *host) converged() {
	h.t.Helper()
	want := policy.Version(h.wanted())
	have := policy.Version(h.backend.Ruleset())
	if want.Fingerprint != have.Fingerprint {
		h.t.Fatalf("the backend holds something else than wanted: %+v", policy.Diff(have, want))
	}
}

// nics are the NICs that the backend has policies for.
func (h *host) nics() []core.NICKey {
	var out []core.NICKey
	for k := range h.backend.Ruleset().NICs {
		out = append(out, k)
	}
	slices.SortFunc(out, compareNICs)
	return out
}

func (h *host) status(n int) NICStatus {
	h.t.Helper()
	for _, s := range h.Status().NICs {
		if s.NIC == nicKey(n) {
			return s
		}
	}
	h.t.Fatalf("no status of NIC %s", nicKey(n))
	return NICStatus{}
}

func (h *host) wantState(n int, want State, reason string) {
	h.t.Helper()
	wantState(h.t, h.status(n), want, reason)
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
