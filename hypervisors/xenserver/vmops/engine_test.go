package vmops_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/state"
)

// The engine leads three hosts through their plugins: rules for anybody and for
// members of a group, a VM that migrates and reboots, one that needs what the
// plugin lacks. The source of a migration has nothing left.
func TestEngine(t *testing.T) {
	f := site(t, siteOptions{hosts: 3})
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	backends := map[string]core.SecurityGroupBackend{}
	for i, h := range f.hosts {
		backends[h.UUID] = f.backends[i]
	}
	e, err := engine.New(engine.Options{State: store, Backends: backends, Adapter: f.adapter, Policy: options(),
		Timing: engine.Timing{RetryMin: 20 * time.Millisecond, Confirm: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) })
	defer running.Wait()
	defer cancel()
	groups := []core.Group{
		{Name: "web", Rules: []core.Rule{rule(core.Ingress, core.ProtocolTCP, nil, port(80))}},
		{Name: "db", Rules: []core.Rule{rule(core.Ingress, core.ProtocolTCP, &core.Peers{Groups: []string{"web"}}, port(3306))}},
	}
	if _, err := e.Change(t.Context(), func(tx *state.Tx) error {
		for _, g := range groups {
			if err := tx.PutGroup(state.Group{Group: g, Source: state.SourceManifest}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	web := f.vm("i-2-3-VM", 1, "web", "10.1.1.3")
	db := f.vm("db", 2, "db", "10.1.1.4")
	web.Start(f.hosts[0])
	db.Start(f.hosts[1])
	f.vm("both", 3, "web", "10.1.1.5, fd00::5").Start(f.hosts[1])
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, e.Status())
			}
		}
	}
	until("both are programmed", func() bool {
		return f.state(t, 0).Allows("i-2-3-VM", "ingress", "tcp", 80, "8.8.8.8") && f.state(t, 1).Allows("db", "ingress", "tcp", 3306, "10.1.1.3")
	})
	if s := f.state(t, 1); s.Allows("db", "ingress", "tcp", 3306, "8.8.8.8") || s.Allows("db", "ingress", "tcp", 80, "10.1.1.3") {
		t.Errorf("%+v", s)
	}
	until("the VM with IPv6 is closed", func() bool {
		vm := f.state(t, 1).VMs["both"]
		return vm != nil && vm.Log[5] != "-1" // default rules come first, and rules after them
	})
	if s := f.state(t, 1); s.Allows("both", "ingress", "tcp", 80, "8.8.8.8") || s.Allows("both", "egress", "tcp", 80, "8.8.8.8") {
		t.Errorf("%+v", s.VMs["both"])
	}
	web.Migrate(f.hosts[2])
	until("it has moved", func() bool {
		return f.state(t, 2).Allows("i-2-3-VM", "ingress", "tcp", 80, "8.8.8.8") && f.state(t, 0).VMs["i-2-3-VM"] == nil
	})
	web.Reboot()
	until("it has rebooted", func() bool {
		vm := f.state(t, 2).VMs["i-2-3-VM"]
		return vm != nil && vm.Device == web.Device(0) && vm.Log[5] != "-1" && len(vm.Ingress) == 1
	})
	for i := range f.hosts {
		if s := f.state(t, i); len(s.Failures) > 0 {
			t.Error(fmt.Sprint(f.hosts[i].Name, s.Failures))
		}
	}
}
