package kvm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

// world is a fake libvirt and an adapter that looks at it.
type world struct {
	*kvm.Fake
	*kvm.Adapter
	log *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(links kvm.FakeLinks) *world {
	w := &world{Fake: &kvm.Fake{CallTimeout: 30 * time.Second}, log: &logBuffer{}}
	w.Adapter = kvm.New(kvm.Options{Libvirt: w.Fake, Links: links, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	return w
}

func uuid(n int) string { return fmt.Sprintf("6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a%04x", n) }

// run starts, or changes, VM n with one NIC on a tap.
func (w *world) run(n int, device string) {
	w.Run(uuid(n), fmt.Sprint("vm", n), numbered(n, "", device))
}

func numbered(n int, metadata, device string) string {
	x := domain(fmt.Sprint("vm", n), metadata, bridged(mac(byte(n)).String(), "br0", device))
	return strings.Replace(x, "6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a02", uuid(n), 1)
}

func instance(n int, device string) core.Instance {
	return core.Instance{VM: core.VM{Key: core.VMKey(uuid(n)), Name: fmt.Sprint("vm", n),
		NICs: []core.NIC{{MAC: mac(byte(n)), Binding: on("br0", device)}}}}
}

func TestListSortsOutBadDomains(t *testing.T) {
	w := newWorld(nil)
	w.run(1, "vnet1")
	w.Run(uuid(2), "broken", "<domain>")
	w.Run(uuid(3), "vm3", strings.Replace(numbered(3, "", "vnet3"), " id='1'", "", 1)) // ended meanwhile
	w.Run(uuid(4), "vm4", numbered(4, `<vm xmlns="urn:ringwall:vm:1" kind="king"/>`, "vnet4"))
	claimed := instance(4, "vnet4")
	claimed.Claims = true
	want := []core.Instance{instance(1, "vnet1"), {VM: core.VM{Key: core.VMKey(uuid(2)), Name: "broken"}}, claimed}
	got, err := w.List(t.Context())
	if diff := cmp.Diff(want, got, comparers); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for _, s := range []string{"domain=broken", "domain=vm4", "vm.kind"} {
		if !strings.Contains(w.log.String(), s) {
			t.Errorf("the log does not have %q:\n%s", s, w.log)
		}
	}
	if n := w.Connections(); n != 0 {
		t.Errorf("%d connections left open", n)
	}
}

func TestListFailsWhenLibvirtIsDownOrHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.run(1, "vnet1")
		w.SetDown(true)
		if got, err := w.List(t.Context()); !errors.Is(err, core.ErrNotReady) || got != nil {
			t.Errorf("down: %v, %v; want an ErrNotReady", got, err)
		}
		w.SetDown(false)
		w.SetHung(true)
		if got, err := w.List(t.Context()); !errors.Is(err, core.ErrNotReady) || got != nil {
			t.Errorf("hung: %v, %v; want an ErrNotReady", got, err)
		}
	})
}

// watch starts one; next gives its next event, and fails after a minute.
func (w *world) watch(ctx context.Context, t *testing.T) (next func() core.VMEvent, quiet func()) {
	t.Helper()
	events, err := w.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next = func() core.VMEvent {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(time.Minute):
			t.Fatal("no event")
			return core.VMEvent{}
		}
	}
	quiet = func() {
		t.Helper()
		synctest.Wait()
		select {
		case e := <-events:
			t.Errorf("event %v %s; want none", e.Kind, e.Instance.VM.Name)
		default:
		}
	}
	return next, quiet
}

func expect(t *testing.T, got core.VMEvent, kind core.VMEventKind, in core.Instance) {
	t.Helper()
	if diff := cmp.Diff(core.VMEvent{Kind: kind, Instance: in}, got, comparers); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func stopped(n int) core.Instance {
	return core.Instance{VM: core.VM{Key: core.VMKey(uuid(n)), Name: fmt.Sprint("vm", n)}}
}

func TestWatchTellsWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.run(1, "vnet1")
		next, quiet := w.watch(t.Context(), t)
		expect(t, next(), core.VMResync, core.Instance{})
		w.run(1, "vnet9")
		expect(t, next(), core.VMChanged, instance(1, "vnet9"))
		w.run(2, "vnet2")
		expect(t, next(), core.VMStarted, instance(2, "vnet2"))
		w.Stop(uuid(1))
		expect(t, next(), core.VMStopped, stopped(1))
		w.Touch(kvm.DomainRef{UUID: uuid(7), Name: "defined"})
		w.Stop(uuid(1))
		quiet()
		// Broken XML is a VM without NICs, not a stopped one.
		w.Run(uuid(2), "vm2", "<domain>")
		expect(t, next(), core.VMChanged, stopped(2))
	})
}

func TestWatchMergesWhatNobodyTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		next, quiet := w.watch(t.Context(), t)
		expect(t, next(), core.VMResync, core.Instance{})
		w.run(1, "vnet0")
		synctest.Wait() // this one is on offer already
		for i := range 10_000 {
			w.run(1, fmt.Sprint("vnet", i))
			w.Touch(kvm.DomainRef{UUID: uuid(1), Name: "vm1"})
		}
		synctest.Wait()
		expect(t, next(), core.VMStarted, instance(1, "vnet0"))
		expect(t, next(), core.VMChanged, instance(1, "vnet9999"))
		quiet()
	})
}

func TestWatchOutlivesTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.SetDown(true)
		next, quiet := w.watch(t.Context(), t)
		quiet() // and no error: libvirt may start later than we
		time.Sleep(10 * time.Second)
		w.run(1, "vnet1")
		w.SetDown(false)
		expect(t, next(), core.VMResync, core.Instance{})
		w.SetDown(true)
		time.Sleep(time.Hour)
		w.Stop(uuid(1))
		w.run(2, "vnet2")
		w.SetDown(false)
		expect(t, next(), core.VMResync, core.Instance{})
		// vm2 was there at the resync, vm1 was not.
		w.run(2, "vnet3")
		expect(t, next(), core.VMChanged, instance(2, "vnet3"))
		w.run(1, "vnet1")
		expect(t, next(), core.VMStarted, instance(1, "vnet1"))
	})
}

func TestWatchNoticesADaemonThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		next, _ := w.watch(t.Context(), t)
		expect(t, next(), core.VMResync, core.Instance{})
		w.SetDeaf(true)
		w.SetHung(true)
		w.run(1, "vnet1") // unheard
		time.Sleep(time.Minute)
		w.SetDeaf(false)
		w.SetHung(false)
		expect(t, next(), core.VMResync, core.Instance{})
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	for _, state := range []string{"idle", "down", "hung", "untaken"} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(nil)
				w.SetDown(state == "down")
				w.SetHung(state == "hung")
				ctx, cancel := context.WithCancel(t.Context())
				events, err := w.Watch(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if state == "idle" {
					<-events
				}
				synctest.Wait()
				cancel()
				synctest.Wait()
				if _, open := <-events; open {
					t.Error("the channel is still open")
				}
				if n := w.Connections(); n != 0 {
					t.Errorf("%d connections left open", n)
				}
			})
		})
	}
}

func TestPreflight(t *testing.T) {
	proc := t.TempDir()
	w := newWorld(nil)
	links := kvm.FakeLinks{
		"cloudbr0": {Name: "cloudbr0", Kind: "bridge"},
		"cloudbr1": {Name: "cloudbr1", Kind: "bridge"},
		"virbr0":   {Name: "virbr0", Kind: "dummy"},
	}
	w.Adapter = kvm.New(kvm.Options{Libvirt: w.Fake, Links: links, Proc: proc, Log: slog.New(slog.DiscardHandler)})
	statuses := func() map[string]string {
		t.Helper()
		checks, err := w.Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, c := range checks {
			out[c.Name] = c.Status.String() + ": " + c.Evidence
			if (c.Status == core.StatusOK) != (c.Fix == "") || c.Summary == "" {
				t.Errorf("check %+v: a fix belongs to what is wrong, and a summary to all", c)
			}
		}
		return out
	}
	// Nothing there.
	w.SetDown(true)
	got := statuses()
	if len(got) != 2 || !strings.HasPrefix(got["libvirt"], "error: the fake libvirt is down") || !strings.HasPrefix(got["br-netfilter"], "warning") {
		t.Errorf("libvirt down: %v", got)
	}
	// All well.
	w.SetDown(false)
	switches := filepath.Join(proc, "sys/net/bridge")
	if err := os.MkdirAll(switches, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(switches, "bridge-nf-call-iptables"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	links["br0"] = kvm.Link{Name: "br0", Kind: "bridge"}
	w.run(1, "vnet1")
	for name, status := range statuses() {
		if status != "ok: " {
			t.Errorf("all well: %s is %s", name, status)
		}
	}
	// All at once.
	w.Stop(uuid(1))
	w.SetNetwork("old", "gone0")
	x := readFile(t, "testdata/running.xml")
	w.Run("6c2f0f4e-1b0d-4c62-9b1a-8a6d0a3a3a01", "web-1", strings.Replace(x, `kind="user"`, `kind="usr"`, 1))
	want := map[string]string{
		"libvirt":      "ok: ",
		"br-netfilter": "ok: ",
		"bridges": "error: bridge gone0 (web-1: NIC 52:54:00:00:00:03 vnet2) does not exist\n" +
			"bridge ovsbr0 (web-1: NIC 52:54:00:00:00:05 vnet4) is Open vSwitch, which no security group here reaches\n" +
			"bridge virbr0 (web-1: NIC 52:54:00:00:00:02 vnet1) is no bridge but a dummy device",
		"nwfilter": "error: web-1: NIC 52:54:00:00:00:04 vnet3: nwfilter clean-traffic",
		"unfiltered-nics": "warning: web-1: NIC 52:54:00:00:00:06 macvtap0: type direct, not on a bridge\n" +
			"web-1: NIC 52:54:00:00:00:07: type hostdev, not on a bridge\n" +
			"web-1: NIC 52:54:00:00:00:08 tap8: type ethernet, not on a bridge",
		"domains": `error: web-1: vm.kind: "usr": use user or system`,
	}
	links["vnet2"] = kvm.Link{Name: "vnet2", Kind: "tun"}
	if diff := cmp.Diff(want, statuses()); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func TestOpenRefusesSettingsByName(t *testing.T) {
	for _, tc := range []struct {
		settings core.Settings
		want     string // path and reason; empty: taken
	}{
		{nil, ""},
		{core.Settings{"uri": "qemu:///system", "cloudstack_names": true, "timeout": "5s"}, ""},
		{core.Settings{"uri": "qemu+unix:///system?socket=/run/x.sock"}, ""},
		{core.Settings{"url": "qemu:///system"}, "hypervisor.settings.url: qemu:///system: no such setting"},
		{core.Settings{"uri": "qemu+ssh://host/system"}, "hypervisor.settings.uri: qemu+ssh://host/system: only a QEMU driver on this host"},
		{core.Settings{"uri": "xen:///system"}, "only a QEMU driver"},
		{core.Settings{"uri": "qemu:///session"}, "unprivileged"},
		{core.Settings{"uri": "qemu:///system?sock=/x"}, "unknown URI parameter"},
		{core.Settings{"uri": 3}, "hypervisor.settings.uri"},
		{core.Settings{"uri": "%"}, "use qemu:///system"},
		{core.Settings{"cloudstack_names": "perhaps"}, "not true or false"},
		{core.Settings{"timeout": "-1s"}, "not a duration"},
	} {
		a, err := kvm.Driver().Open(t.Context(), tc.settings)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%v: %v", tc.settings, err)
				continue
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		var fe *core.FieldError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v; want a FieldError with %q", tc.settings, err, tc.want)
		}
	}
}
