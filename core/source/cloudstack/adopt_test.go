package cloudstack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// stockHost is the stock script's part of a host in memory.
type stockHost struct {
	vms     map[string]bool
	devices map[string]bool
	err     error
}

func (s *stockHost) Remove(_ context.Context, vm string, devices []string) (bool, error) {
	if s.err != nil {
		return true, s.err
	}
	delete(s.vms, vm)
	for _, d := range devices {
		s.devices[d] = true
	}
	return len(s.vms) > 0, nil
}

func (h *host) stockLog(n int, text string) {
	h.t.Helper()
	if err := errors.Join(os.MkdirAll(h.files(), 0o755), os.WriteFile(filepath.Join(h.files(), name(n)+".log"), []byte(text), 0o644)); err != nil {
		h.t.Fatal(err)
	}
}

// TestAdopt: a VM keeps the script's rules until both calls have come for it,
// is reported with -1 until then, and only then loses the script's part.
func TestAdopt(t *testing.T) {
	s := &stockHost{vms: map[string]bool{name(7): true, name(8): true}, devices: map[string]bool{}}
	onHost(t, setup{stock: s}, func(h *host) {
		for n := 7; n <= 9; n++ { // 9 was never filtered
			h.adapter.Put(vm(n, "3", mac(n, 0)))
		}
		h.stockLog(7, name(7)+",7,10.1.0.7,3,aa,12\n")
		h.stockLog(8, name(8)+",8,10.1.0.8,3,aa,13\n")
		if a := h.call(cloudstack.Call{Command: cloudstack.Adopt}); a.Text != name(7)+"\n"+name(8) {
			t.Errorf("%q", a.Text)
		}
		for n := 7; n <= 8; n++ {
			h.expect(core.Ingress, n, 0, 23, true) // the script judges
			if got := h.logs()[name(n)]; !strings.HasSuffix(got, ",_initial_,-1") {
				t.Errorf("%s", got)
			}
		}
		h.expect(core.Ingress, 9, 0, 22, false)
		h.call(defaults(7, 0, check))
		h.expect(core.Ingress, 7, 0, 23, true)
		if !s.vms[name(7)] {
			t.Error("the script's part went before the rules had come")
		}
		s.err = errors.New("xtables is busy")
		h.call(rules(7, 12, ssh))
		h.expect(core.Ingress, 7, 0, 22, true)
		h.expect(core.Ingress, 7, 0, 23, false)
		s.err = nil
		h.call(cloudstack.Call{Command: cloudstack.CleanupRules}) // tries again
		if s.vms[name(7)] || !s.vms[name(8)] || !s.devices[device(7, 0)] {
			t.Errorf("%+v", s)
		}
		h.expect(core.Ingress, 8, 0, 23, true)
		h.logged(7, "7,10.1.0.7,3,0000000000000000000000000000000c,12")

		h.adapter.Put(vm(10, "4", mac(10, 0))) // started meanwhile
		h.call(defaults(10, 0, nil))
		if !s.devices[device(10, 0)] {
			t.Error("what is left of the script stops a new VM")
		}
		h.adapter.Stop("uuid-8") // without ever being taken over
		sleep(time.Second)
		h.call(cloudstack.Call{Command: cloudstack.CleanupRules})
		if s.vms[name(8)] {
			t.Error("a VM that is gone has left the script's part")
		}
	})
}

// TestRelease: rules stay until the script has rewritten each VM.
func TestRelease(t *testing.T) {
	onHost(t, setup{stock: &stockHost{devices: map[string]bool{}}}, func(h *host) {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); h.Run(ctx) }()
		defer func() { stop(); <-done }()
		for n := 7; n <= 8; n++ {
			h.adapter.Put(vm(n, "3", mac(n, 0)))
			h.call(defaults(n, 0, nil))
			h.call(rules(n, 5, ssh))
		}
		h.call(cloudstack.Call{Command: cloudstack.Release})
		sleep(time.Minute)
		for n := 7; n <= 8; n++ {
			h.expect(core.Ingress, n, 0, 23, false)
			b, err := os.ReadFile(filepath.Join(h.files(), name(n)+".log"))
			if err != nil || !strings.HasSuffix(string(b), ",_initial_,-1\n") {
				t.Errorf("%q, %v", b, err)
			}
		}
		h.stockLog(7, name(7)+",7,10.1.0.7,3,aa,6\n")
		sleep(5 * time.Second)
		h.expect(core.Ingress, 7, 0, 23, true)
		h.expect(core.Ingress, 8, 0, 23, false)
		h.stockLog(8, name(8)+",8,10.1.0.8,3,aa,6\n")
		sleep(5 * time.Second)
		if s := h.engine.Snapshot(); len(s.VMs)+len(s.Groups)+len(s.Values) != 0 || h.backend.Ruleset().Options.ManagesBridge("cloudbr0") {
			t.Errorf("left: %v %v %v", s.VMs, s.Groups, s.Values)
		}
	})
}

// TestNoAdopt: where the backend's chains have the script's names, or nobody
// says which VMs run, adopting is refused.
func TestNoAdopt(t *testing.T) {
	onHost(t, setup{}, func(h *host) { h.fails(cloudstack.Call{Command: cloudstack.Adopt}, "nftables driver") })
	onHost(t, setup{noAdapter: true, stock: &stockHost{}}, func(h *host) { h.fails(cloudstack.Call{Command: cloudstack.Adopt}, "name a hypervisor adapter") })
}
