package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/state"
)

// some puts VMs 1 to 10 under policy.
func some(h *host) {
	items := []any{tcp("web", 80), tcp("ssh", 22), tcp("none"), from("db", "web")}
	for n := 1; n <= 10; n++ {
		items = append(items, record(n, "web"))
	}
	h.must(put(items...))
}

func ten(h *host, _ *Options) {
	for n := 1; n <= 10; n++ {
		h.adapter.Put(instance(n))
	}
}

func groupsOf(h *host, n int) string {
	return strings.Join(h.backend.Ruleset().NICs[nicKey(n)].Groups, ",")
}

func TestRefusedNICKeepsWhatItHas(t *testing.T) {
	for _, named := range []bool{true, false} {
		onHost(t, ten, func(h *host) {
			some(h)
			h.backend.NameObjects(named)
			h.backend.RefuseNIC(nicKey(3), coretest.ErrRefused)
			r, err := h.Change(context.Background(), put(record(3, "ssh"), record(4, "ssh"), record(5, "ssh")))
			if !errors.Is(err, coretest.ErrRefused) || !strings.Contains(err.Error(), nicKey(3).String()) || !r.Stored {
				t.Errorf("named %v: result %+v, error %v", named, r, err)
			}
			wantState(t, r.NICs[0], Stale, "refused")
			wantState(t, r.NICs[1], Enforced, "")
			wantState(t, r.NICs[2], Enforced, "")
			if w, e := r.NICs[0].Wanted, r.NICs[0].Enforced; w == nil || e == nil || w.Groups[0] != "ssh" || e.Groups[0] != "web" {
				t.Errorf("wanted %+v, enforced %+v", w, e)
			}
			for n, want := range map[int]string{2: "web", 3: "web", 4: "ssh", 5: "ssh"} {
				if g := groupsOf(h, n); g != want {
					t.Errorf("named %v: vm %d has groups %s, want %s", named, n, g, want)
				}
			}
			// Others go on.
			h.must(put(record(6, "ssh"), tcp("web", 80, 81)))
			if g := groupsOf(h, 6); g != "ssh" || len(h.backend.Ruleset().Groups["web"].Entries) == 1 {
				t.Errorf("another change was held up: %s", g)
			}
			// Another wish is tried at once, and what passes is no longer stale.
			h.must(put(record(3, "web")))
			h.wantState(3, Enforced, "")
			h.converged()
			// A refusal that ends is found by itself.
			_, _ = h.Change(context.Background(), put(record(3, "ssh")))
			h.backend.RefuseNIC(nicKey(3), nil)
			rest(2 * time.Minute)
			h.wantState(3, Enforced, "")
			h.converged()
		})
	}
}

func TestRefusedNewNICIsClosed(t *testing.T) {
	for _, named := range []bool{true, false} {
		onHost(t, ten, func(h *host) {
			some(h)
			h.backend.NameObjects(named)
			h.backend.RefuseNIC(nicKey(11), coretest.ErrRefused)
			h.adapter.Put(instance(11))
			h.adapter.Put(instance(12))
			quiet()
			r, err := h.Change(context.Background(), put(record(11, "web"), record(12, "web")))
			if !errors.Is(err, coretest.ErrRefused) {
				t.Errorf("error is %v", err)
			}
			wantState(t, r.NICs[0], Closed, "refused")
			wantState(t, r.NICs[1], Enforced, "")
			h.wantNICs(1, 10, 12, 2, 3, 4, 5, 6, 7, 8, 9) // as text sorts
		})
	}
}

// A device that does not look like a VM's would pass as an uplink without a
// policy.
func TestRefusedNICAtAnOddDeviceGetsABlankPolicy(t *testing.T) {
	for _, named := range []bool{true, false} {
		onHost(t, ten, func(h *host) {
			some(h)
			h.backend.NameObjects(named)
			h.backend.RefuseWhen(func(_, to core.Ruleset) error {
				if n := to.NICs[nicKey(11)]; len(n.Groups) == 0 {
					return nil
				} else if !named {
					return coretest.ErrRefused
				}
				return &core.ObjectError{NICs: []core.NICKey{nicKey(11)}, Err: coretest.ErrRefused}
			})
			in := instance(11)
			in.VM.NICs[0].Binding.Devices = []string{"odd0"}
			h.adapter.Put(in)
			quiet()
			_, err := h.Change(context.Background(), put(record(11, "web")))
			if !errors.Is(err, coretest.ErrRefused) {
				t.Errorf("error is %v", err)
			}
			h.wantState(11, Closed, "refused")
			n, ok := h.backend.Ruleset().NICs[nicKey(11)]
			if !ok || len(n.Groups)+len(n.Addresses) > 0 || !n.EgressDeny4 || !n.EgressDeny6 || n.Devices[0] != "odd0" {
				t.Errorf("named %v: policy is %+v", named, n)
			}
			// And when even that is refused, nobody else suffers.
			h.backend.RefuseWhen(nil)
			h.backend.RefuseNIC(nicKey(11), coretest.ErrRefused)
			moved := instance(11)
			moved.VM.NICs[0].Binding.Devices = []string{"odd1"}
			h.adapter.Put(moved)
			quiet()
			h.must(put(record(1, "ssh"), record(2, "ssh")))
			if g := groupsOf(h, 1) + groupsOf(h, 2); g != "sshssh" {
				t.Errorf("groups are %s", g)
			}
		})
	}
}

func TestRefusedGroup(t *testing.T) {
	for _, named := range []bool{true, false} {
		onHost(t, ten, func(h *host) {
			some(h)
			h.must(put(record(9, "ssh"), record(10, "db")))
			h.backend.NameObjects(named)
			h.backend.RefuseGroup("web", coretest.ErrRefused)
			_, err := h.Change(context.Background(), put(tcp("web", 443), tcp("ssh", 2222)))
			if !errors.Is(err, coretest.ErrRefused) {
				t.Errorf("error is %v", err)
			}
			r := h.backend.Ruleset()
			if p := r.Groups["web"].Entries[0].Span.First; p != 80 {
				t.Errorf("named %v: web has port %d", named, p)
			}
			if p := r.Groups["ssh"].Entries[0].Span.First; p != 2222 {
				t.Errorf("named %v: ssh has port %d", named, p)
			}
			h.wantState(1, Stale, "refused")
			h.wantState(9, Enforced, "")
			h.wantState(10, Enforced, "")
			// Members are part of the group: those who name it as a peer keep
			// the old ones.
			h.adapter.Put(instance(11))
			quiet()
			_, err = h.Change(context.Background(), put(record(11, "web")))
			if !errors.Is(err, coretest.ErrRefused) {
				t.Errorf("error is %v", err)
			}
			h.wantState(10, Stale, "refused")
			if m := h.backend.Ruleset().Sets["web"].Members; len(m) != 8 {
				t.Errorf("members are %v", m)
			}
			h.backend.RefuseGroup("web", nil)
			rest(3 * time.Minute)
			h.converged()
			for n := 1; n <= 11; n++ {
				h.wantState(n, Enforced, "")
			}
		})
	}
}

// A new group that is refused leaves its NICs with what they have.
func TestRefusedNewGroup(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		h.backend.RefuseGroup("new", coretest.ErrRefused)
		h.adapter.Put(instance(11))
		quiet()
		_, err := h.Change(context.Background(), put(tcp("new", 1), record(1, "new"), record(11, "new"), record(2, "ssh")))
		if !errors.Is(err, coretest.ErrRefused) {
			t.Errorf("error is %v", err)
		}
		h.wantState(1, Stale, "refused")
		h.wantState(11, Closed, "refused")
		h.wantState(2, Enforced, "")
		if g := groupsOf(h, 1); g != "web" {
			t.Errorf("groups are %s", g)
		}
	})
}

// The last NIC that has a group is kept back from leaving it: the group stays
// for it, and egress goes on being denied.
func TestKeptNICKeepsItsGroups(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		out := tcp("out", 53)
		out.Rules[0].Direction = core.Egress
		h.must(put(out, record(1, "out")))
		h.backend.RefuseNIC(nicKey(1), coretest.ErrRefused)
		_, err := h.Change(context.Background(), func(tx *state.Tx) error {
			return errors.Join(put(record(1, "web"))(tx), tx.DeleteGroup(state.SourceAPI, "out"))
		})
		if !errors.Is(err, coretest.ErrRefused) {
			t.Errorf("error is %v", err)
		}
		r := h.backend.Ruleset()
		if n := r.NICs[nicKey(1)]; len(r.Groups["out"].Entries) == 0 || !n.EgressDeny4 || n.Groups[0] != "out" {
			t.Errorf("nic is %+v, groups are %+v", n, r.Groups)
		}
	})
}

func TestManyBadOnesWithoutNames(t *testing.T) {
	bad := map[int]bool{13: true, 14: true, 47: true, 80: true}
	onHost(t, func(h *host, _ *Options) {
		for n := 1; n <= 100; n++ {
			h.adapter.Put(instance(n))
		}
	}, func(h *host) {
		h.must(put(tcp("web", 80), tcp("ssh", 22), record(100, "ssh")))
		h.backend.NameObjects(false)
		items := []any{}
		for n := 1; n <= 99; n++ {
			if bad[n] {
				h.backend.RefuseNIC(nicKey(n), coretest.ErrRefused)
			}
			items = append(items, record(n, "web"))
		}
		before := h.backend.Count(coretest.Apply) + h.backend.Count(coretest.Sync)
		if _, err := h.Change(context.Background(), put(items...)); !errors.Is(err, coretest.ErrRefused) {
			t.Errorf("error is %v", err)
		}
		if n := h.backend.Count(coretest.Apply) + h.backend.Count(coretest.Sync) - before; n > 60 {
			t.Errorf("%d attempts to find %d bad NICs in 99", n, len(bad))
		}
		for n := 1; n <= 99; n++ {
			want := Enforced
			if bad[n] {
				want = Closed
			}
			h.wantState(n, want, "")
		}
	})
}

// A backend that takes nothing is not asked about every object.
func TestHopelessBackendIsNotBisectedForever(t *testing.T) {
	onHost(t, func(h *host, _ *Options) {
		for n := 0; n <= 500; n++ {
			h.adapter.Put(instance(n))
		}
	}, func(h *host) {
		h.must(put(tcp("web", 80), record(0, "web")))
		before := h.backend.Count(coretest.Apply)
		broken := errors.New("netlink: no buffer space")
		h.backend.Fail(coretest.Apply, broken)
		items := []any{}
		for n := 1; n <= 500; n++ {
			items = append(items, record(n, "web"))
		}
		_, err := h.Change(context.Background(), put(items...))
		if !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
		if n := h.backend.Count(coretest.Apply) - before; n > 50 {
			t.Errorf("%d attempts", n)
		}
		h.backend.Fail(coretest.Apply, nil)
		rest(3 * time.Minute)
		h.converged()
	})
}

func TestAnswerThatWasLost(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		h.backend.LoseAnswer()
		_, err := h.Change(context.Background(), put(record(1, "ssh")))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		rest(time.Second)
		h.converged()
		h.wantState(1, Enforced, "")
	})
}

func TestConflictIsSynced(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		h.backend.Wipe() // another fingerprint than the engine knows
		h.must(put(record(1, "ssh")))
		h.converged()
		if h.backend.Count(coretest.Sync) != 2 {
			t.Errorf("calls are %v", h.backend.Calls())
		}
	})
}

// After a restart the engine does not know in detail what is enforced. A
// refusal without a name must not close what an earlier life opened.
func TestRestartWithARefusal(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		h.backend.NameObjects(false)
		h.restart(func(h *host, o *Options) {
			h.backend.RefuseWhen(func(_, to core.Ruleset) error {
				if len(to.NICs) != 10 || to.NICs[nicKey(3)].Groups[0] != "web" {
					return fmt.Errorf("closing what was open: %w", core.ErrInvalid)
				}
				return coretest.ErrRefused
			})
		})
		rest(10 * time.Minute)
		h.wantNICs(1, 10, 2, 3, 4, 5, 6, 7, 8, 9)
		if p := h.Status().Points[0]; p.InSync || !strings.Contains(p.Reason, "refused") {
			t.Errorf("status is %+v", p)
		}
	})
}

// What was kept for a NIC is kept beyond a restart, too.
func TestRestartKeepsWhatWasKept(t *testing.T) {
	onHost(t, ten, func(h *host) {
		some(h)
		refuse := func(_, to core.Ruleset) error {
			var err error
			if n, ok := to.NICs[nicKey(3)]; ok && n.Groups[0] != "web" {
				err = &core.ObjectError{NICs: []core.NICKey{nicKey(3)}, Err: coretest.ErrRefused}
			}
			if g, ok := to.Groups["db"]; ok && g.Entries[0].Peer.Group != "web" {
				err = errors.Join(err, &core.ObjectError{Groups: []string{"db"}, Err: coretest.ErrRefused})
			}
			return err
		}
		h.must(put(record(4, "db")))
		h.backend.RefuseWhen(refuse)
		_, _ = h.Change(context.Background(), put(record(3, "ssh"), tcp("db", 1), record(5, "ssh")))
		held := h.backend.Fingerprint()
		h.restart(nil)
		rest(time.Minute)
		if got := h.backend.Fingerprint(); got != held {
			t.Error("the restart has changed what is enforced")
		}
		h.wantState(3, Stale, "refused")
		h.wantState(4, Stale, "refused")
		h.wantState(5, Enforced, "")
		// Until the refusal ends, and then nothing is remembered.
		h.backend.RefuseWhen(nil)
		rest(2 * time.Minute)
		h.converged()
		if memo, err := h.store.Memo("kept/"); err != nil || memo != nil {
			t.Errorf("the memo is %q, %v", memo, err)
		}
		// After a reboot of the host there is nothing to keep.
		h.backend.RefuseWhen(refuse)
		_, _ = h.Change(context.Background(), put(record(3, "none")))
		h.stop()
		h.backend.Wipe()
		h.start(nil)
		quiet()
		h.wantState(3, Closed, "refused")
	})
}

// What the backend cannot do is held back, where it came with an inventory
// that nobody could refuse.
func TestUnsupportedMetadata(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		for _, f := range coretest.AllFeatures {
			if f != core.FeatureSystemVM {
				h.backend.Features = append(h.backend.Features, f)
			}
		}
	}, func(h *host) {
		h.must(put(tcp("web", 80)))
		sys := labelled(1)
		sys.VM.Kind = core.SystemVM
		h.adapter.Put(sys)
		h.adapter.Put(labelled(2, "web"))
		quiet()
		h.wantState(1, Closed, "lacks system-vm")
		h.wantState(2, Enforced, "")
		h.must(put(tcp("web", 81)))
	})
}

func TestUnsupportedOptions(t *testing.T) {
	onHost(t, func(h *host, o *Options) {
		o.Policy.CountOnly = true
		h.backend.Features = []core.Feature{core.FeatureMulticast, core.FeatureFailClosed, core.FeatureAntiSpoof, core.FeatureIPv4, core.FeatureIPv6, core.FeaturePorts}
		h.adapter.Put(instance(1))
	}, func(h *host) {
		_, err := h.Change(context.Background(), put(tcp("web", 80), record(1, "web")))
		if !errors.Is(err, core.ErrUnsupported) {
			t.Errorf("error is %v", err)
		}
		if h.backend.Count(coretest.Sync)+h.backend.Count(coretest.Apply) > 0 {
			t.Error("the backend was given what it cannot do")
		}
		if _, err := h.SetPolicy(context.Background(), testOptions); err != nil {
			t.Error(err)
		}
		h.wantState(1, Enforced, "")
	})
}
