package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

func TestMetadataAndConflicts(t *testing.T) {
	onHost(t, nil, func(h *host) {
		h.must(put(tcp("web", 80)))
		h.adapter.Put(labelled(1, "web"))
		h.adapter.Put(labelled(2, "nobody")) // metadata names a group that is not there
		h.adapter.Put(instance(3))
		quiet()
		h.converged()
		h.wantNICs(1)
		h.wantState(1, Enforced, "")
		h.wantState(2, Closed, "nobody: there is no such group")
		h.wantState(3, Closed, "no source says anything")
		if s := h.status(1); s.Source != SourceHypervisor {
			t.Errorf("source is %q", s.Source)
		}
		// The owner of a record stands when metadata speaks up later.
		h.must(put(record(3, "web"), tcp("ssh", 22)))
		h.adapter.Put(labelled(3, "ssh"))
		quiet()
		h.wantState(3, Conflict, "belongs to source api")
		if n := h.backend.Ruleset().NICs[nicKey(3)]; len(n.Groups) != 1 || n.Groups[0] != "web" {
			t.Errorf("groups are %v", n.Groups)
		}
		if p := strings.Join(h.Status().Problems, "\n"); !strings.Contains(p, "vm-3 belongs to source api") || !strings.Contains(p, "vm-2") {
			t.Errorf("problems are %q", p)
		}
		// Old faults do not stand in the way of a change.
		h.must(put(tcp("web", 81)))
		h.adapter.Put(instance(3))
		h.must(put(tcp("nobody", 1)))
		quiet()
		h.wantState(2, Enforced, "")
		h.wantState(3, Enforced, "")
		if p := h.Status().Problems; len(p) != 0 {
			t.Errorf("problems are %q", p)
		}
	})
}

func TestSystemVMsMayBeKnownTwice(t *testing.T) {
	onHost(t, nil, func(h *host) {
		in := labelled(1)
		in.VM.Kind = core.SystemVM
		h.adapter.Put(in)
		quiet()
		h.wantState(1, Enforced, "")
		r := record(1)
		r.Kind = core.SystemVM
		h.must(put(r))
		h.wantState(1, Enforced, "")
	})
}

func TestRecordByName(t *testing.T) {
	byName := func(source string) state.VM {
		v := record(1, "web")
		v.Key, v.Name, v.Source = "i-2-7-VM", "i-2-7-VM", source
		return v
	}
	named := func(n int, name string) core.Instance {
		in := instance(n)
		in.VM.Name = name
		return in
	}
	onHost(t, nil, func(h *host) {
		h.adapter.Put(named(1, "i-2-7-VM"))
		quiet()
		r := h.must(put(tcp("web", 80), byName(state.SourceAPI)))
		// The hypervisor's UUID is the key here.
		if len(r.NICs) != 1 || r.NICs[0].NIC != nicKey(1) {
			t.Errorf("result is %+v", r)
		}
		h.wantState(1, Enforced, "")
		// A record by UUID, too, is one too many.
		v := record(1, "web")
		v.Name = "web1"
		_, err := h.Change(context.Background(), put(v))
		if !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), "vm i-2-7-VM of source api is vm vm-1") {
			t.Errorf("error is %v", err)
		}
	})
	onHost(t, nil, func(h *host) {
		h.adapter.Put(named(1, "twin"))
		h.adapter.Put(named(2, "twin"))
		quiet()
		v := byName(state.SourceAPI)
		v.Key, v.Name = "twin", "twin"
		_, err := h.Plan(context.Background(), put(tcp("web", 80), v))
		if err == nil || !strings.Contains(err.Error(), "has 2 VMs of that name") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestAdapterWinsOverHints(t *testing.T) {
	onHost(t, running(1), func(h *host) {
		v := record(1, "web")
		v.NICs[0].Binding = core.Binding{Bridge: "br9", Devices: []string{"vnet9"}}
		r := h.must(put(tcp("web", 80), v))
		if s := r.NICs[0]; s.Bridge != "br0" || s.Devices[0] != device(1) || s.State != Enforced {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestNICsByMAC(t *testing.T) {
	onHost(t, nil, func(h *host) {
		in := instance(1)
		in.VM.NICs = append(in.VM.NICs, core.NIC{MAC: mac(99), Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet99"}}},
			core.NIC{MAC: mac(98), Binding: core.Binding{Bridge: "br0", Devices: []string{"odd0"}}})
		h.adapter.Put(in)
		quiet()
		v := record(1, "web")
		v.NICs = append(v.NICs, core.NIC{MAC: mac(2), Groups: []string{"web"}})
		h.must(put(tcp("web", 80), v))
		want := map[core.MAC]State{mac(1): Enforced, mac(2): Pending, mac(99): Closed, mac(98): Closed}
		for _, s := range h.Status().NICs {
			if s.State != want[s.NIC.MAC] {
				t.Errorf("nic %s is %s (%s), want %s", s.NIC, s.State, s.Reason, want[s.NIC.MAC])
			}
			delete(want, s.NIC.MAC)
		}
		if len(want) > 0 {
			t.Errorf("no status of %v", want)
		}
	})
}

// A port that nothing closes is not called closed.
func TestOddDeviceWithoutPolicyIsOpen(t *testing.T) {
	onHost(t, nil, func(h *host) {
		in := instance(1)
		in.VM.NICs[0].Binding.Devices = []string{"odd0"}
		h.adapter.Put(in)
		h.adapter.Put(instance(2))
		quiet()
		h.wantState(1, Unmanaged, "pass like an uplink")
		h.wantState(2, Closed, "no source")
	})
}
