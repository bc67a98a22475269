package vmware

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/state"
)

// The whole of it: VMs that vCenter names, policy that they carry as keys,
// groups from a manifest, and the switch.
func TestUnderAnEngine(t *testing.T) {
	v := newVCenter(t, 4)
	vms := v.vms()
	v.setKeys(vms[0], "ringwall.kind", "system")
	v.setKeys(vms[1], "ringwall.groups", "web")
	v.setKeys(vms[2], "ringwall.groups", "web")
	store, err := state.Open(t.Context(), state.Options{Dir: t.TempDir()})
	check(t, err)
	defer store.Close()
	b := v.backend()
	b.eventPause = time.Millisecond
	e, err := engine.New(engine.Options{State: store, Adapter: v.adapter(), Backends: map[string]core.SecurityGroupBackend{"": b},
		Policy: core.Options{Bridges: []core.Pattern{"vlan100"}, VMPorts: []core.Pattern{"vnet*", "tap*"}},
		Timing: engine.Timing{RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond, Observe: time.Second, Confirm: 50 * time.Millisecond}})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() { cancel(); <-ended }()

	put := func(groups ...core.Group) error {
		_, err := e.Change(ctx, func(tx *state.Tx) error {
			for _, g := range groups {
				if err := tx.PutGroup(state.Group{Group: g, Source: "manifest"}); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}
	reaches := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got := v.reach()
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s, want %s; %+v", got, want, e.Status())
			}
		}
	}
	check(t, put(together("web")))
	reaches(".++. +.+. ++.. ....") // nobody speaks for the fourth
	v.setKeys(vms[3], "ringwall.groups", "web")
	reaches(".+++ +.++ ++.+ +++.")
	v.powerOff(vms[3]) // closed while it is off
	reaches(".++. +.+. ++.. ....")
	v.connect(vms[3], v.network) // behind our back, where it meets everybody
	reaches(".++. +.+. ++.. ....")
	// What features tell is refused at the call; the rest by name, and what was
	// enforced stays.
	ports := core.Group{Name: "web", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 80, Last: 80}}}}}
	if err := put(ports); !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), "ports") {
		t.Errorf("got %v", err)
	}
	everybody := core.Group{Name: "web", Rules: []core.Rule{{Direction: core.Ingress, Protocol: core.AnyProtocol}}}
	if err := put(everybody); err == nil || !strings.Contains(err.Error(), "addresses are not told apart") {
		t.Errorf("got %v", err)
	}
	reaches(".++. +.+. ++.. ....")
	// A VM whose policy cannot be expressed, and that had none before, is closed.
	check(t, put(core.Group{Name: "open", Rules: everybody.Rules}))
	v.setKeys(vms[3], "ringwall.groups", "open")
	v.powerOn(vms[3])
	time.Sleep(300 * time.Millisecond)
	reaches(".++. +.+. ++.. ....")
}
