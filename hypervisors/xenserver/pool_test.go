package xenserver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/state"
)

// A pool of three hosts with 300 VMs that start, reboot, migrate and are plugged
// while their group changes. Whatever the order, at the end each host holds the
// policies of its own VMs, on their devices, and of no other.
func TestPool(t *testing.T) {
	const hosts, vms = 3, 300
	pool := sim.NewPool(sim.Options{})
	var members []*sim.Host
	backends := map[string]core.SecurityGroupBackend{}
	fakes := map[string]*coretest.FakeBackend{}
	for i := range hosts {
		h := pool.AddHost(sim.HostSpec{Name: fmt.Sprint("xen", i+1)})
		fakes[h.UUID] = &coretest.FakeBackend{Name: h.Name}
		members, backends[h.UUID] = append(members, h), fakes[h.UUID]
	}
	network := pool.AddNetwork(sim.NetworkSpec{Bridge: "xenbr0"})
	f := &fixture{pool: pool, hosts: members, network: network}
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	e, err := engine.New(engine.Options{State: store, Backends: backends, Adapter: f.poolAdapter(t),
		Policy: core.Options{Bridges: []core.Pattern{"xenbr*"}, VMPorts: []core.Pattern{"vif*", "tap*"}},
		Timing: engine.Timing{RetryMin: 5 * time.Millisecond, Confirm: 20 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) })
	defer running.Wait()
	defer cancel()

	change := func(ports ...uint16) {
		t.Helper()
		g := core.Group{Name: "g"}
		for _, p := range ports {
			g.Rules = append(g.Rules, core.Rule{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: p, Last: p}}})
		}
		if _, err := e.Change(t.Context(), func(tx *state.Tx) error { return tx.PutGroup(state.Group{Group: g, Source: state.SourceManifest}) }); err != nil {
			t.Error(err)
		}
	}
	change(80)
	all := make([]*sim.VM, vms)
	spec := func(i, card int) sim.VIFSpec {
		return sim.VIFSpec{Network: network, MAC: core.MAC{2, 0, 0, byte(card), byte(i >> 8), byte(i)}.String(),
			OtherConfig: map[string]string{"ringwall-groups": "g", "ringwall-addresses": fmt.Sprintf("10.%d.%d.%d", card, i>>8, i&255)}}
	}
	for i := range all {
		all[i] = pool.AddVM(sim.VMSpec{Name: fmt.Sprint("vm", i), VIFs: []sim.VIFSpec{spec(i+1, 0)}})
		all[i].Start(members[i%hosts])
	}
	rng := rand.New(rand.NewPCG(1, 2))
	where := map[*sim.VM]*sim.Host{}
	for n := range 300 {
		i := rng.IntN(vms)
		switch vm := all[i]; rng.IntN(4) {
		case 0:
			vm.Reboot()
		case 1:
			where[vm] = members[rng.IntN(hosts)]
			vm.Migrate(where[vm])
		case 2:
			if len(vm.VIFs()) == 1 {
				vm.Plug(spec(i+1, 1))
			}
		case 3:
			change(uint16(80 + n))
		}
	}
	change(22, 443)
	if err := e.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{} // device on its host -> VM
	for i, vm := range all {
		host := where[vm]
		if host == nil {
			host = members[i%hosts]
		}
		for card := range vm.VIFs() {
			want[host.UUID+" "+vm.Device(card)] = vm.UUID
		}
	}
	got := map[string]string{}
	for point, b := range fakes {
		rs := b.Ruleset()
		for k, n := range rs.NICs {
			for _, d := range n.Devices {
				if d[:3] == "vif" {
					got[point+" "+d] = string(k.VM)
				}
			}
		}
		if len(rs.Groups["g"].Entries) != 4 {
			t.Errorf("group on %s: %v", b.Name, rs.Groups["g"].Entries)
		}
		if abuse := b.Abuse(); len(abuse) > 0 {
			t.Errorf("%s: %v", b.Name, abuse)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
