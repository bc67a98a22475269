package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

var macA = core.MAC{0x52, 0x54, 0, 0, 0, 0xa}

// fakeAgent answers on a socket as ringwalld does.
type fakeAgent struct {
	mu     sync.Mutex
	got    []api.ProgramRequest
	answer func(api.ProgramRequest) (int, any)
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var req api.ProgramRequest
	if err := json.Unmarshal(b, &req); err != nil || r.URL.Path != "/v1/program" || r.Method != http.MethodPost {
		http.Error(w, fmt.Sprintf("%s %s: %v", r.Method, r.URL.Path, err), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, req)
	status, answer := a.answer(req)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func (a *fakeAgent) serve(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: a}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func ok(api.ProgramRequest) (int, any) { return http.StatusOK, result(engine.InForce) }

func result(outcomes ...engine.Outcome) (r api.ProgramResult) {
	for _, o := range outcomes {
		r.NICs = append(r.NICs, engine.Programmed{NICStatus: engine.NICStatus{NIC: core.NICKey{VM: "k", MAC: macA}, State: engine.Closed, Reason: "why"}, Outcome: o})
	}
	return r
}

func TestProgramCarriesTheWholeInstance(t *testing.T) {
	in := core.Instance{Claims: true, DomainID: "7", VM: core.VM{Key: "k", Name: "n", Kind: core.SystemVM, NICs: []core.NIC{{
		MAC: macA, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Groups: []string{"web"}, SpoofingAllowed: true,
		Pairs:   []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, {Prefix: netip.MustParsePrefix("10.0.0.9/32"), MAC: macA}},
		Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet0"}},
	}}}}
	a := &fakeAgent{answer: ok}
	socket := filepath.Join(t.TempDir(), "s")
	a.serve(t, socket)
	outcome, err := agent{socket}.Program(t.Context(), in)
	if outcome != hook.Enforced || err != nil {
		t.Fatal(outcome, err)
	}
	want := api.ProgramRequest{DomainID: "7", Key: "k", Name: "n", Kind: "system", Claims: true, NICs: []api.ProgramNIC{{
		MAC: macA, Bridge: "br0", Devices: []string{"vnet0"}, Addresses: in.VM.NICs[0].Addresses, Groups: []string{"web"}, SpoofingAllowed: true,
		Pairs: []api.ProgramPair{{Address: netip.MustParsePrefix("10.0.0.0/24")}, {Address: netip.MustParsePrefix("10.0.0.9/32"), MAC: &macA}},
	}}}
	if d := cmp.Diff([]api.ProgramRequest{want}, a.got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("the agent got (-want +got):\n%s", d)
	}
	a.answer = func(api.ProgramRequest) (int, any) { return http.StatusServiceUnavailable, nil }
	if _, err := (agent{socket}).Program(t.Context(), in); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("refused: %v", err)
	}
	if _, err := (agent{socket + "-none"}).Program(t.Context(), in); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("no agent: %v", err)
	}
}

// A VM's outcome is that of its NICs together.
func TestOutcome(t *testing.T) {
	for _, tc := range []struct {
		nics    []engine.Outcome
		want    hook.Outcome
		failure bool
	}{
		{nil, hook.NoPolicy, false},
		{[]engine.Outcome{engine.NotOurs}, hook.NoPolicy, false},
		{[]engine.Outcome{engine.NoPolicy, engine.NoPolicy}, hook.NoPolicy, false},
		{[]engine.Outcome{engine.InForce, engine.NoPolicy, engine.NotOurs}, hook.Enforced, false},
		{[]engine.Outcome{engine.InForce, engine.Failed}, hook.Enforced, true},
	} {
		got, err := outcome(result(tc.nics...).NICs)
		if got != tc.want || (err != nil) != tc.failure {
			t.Errorf("%v: %v, %v", tc.nics, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), macA.String()+" is closed: why") {
			t.Errorf("the error does not name the NIC: %v", err)
		}
	}
}

// site is a libvirtd with our hook in it, and an agent that the hook finds.
type site struct {
	t      *testing.T
	ctx    context.Context
	host   *lab.Host
	daemon *guests.Libvirtd
	agent  *fakeAgent
	hooks  hook.Installer
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	s := &site{t: t, ctx: ctx, agent: &fakeAgent{answer: ok}}
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
	s.must(err)
	s.host, err = lab.New(ctx, lab.Options{})
	s.must(err)
	t.Cleanup(func() { s.host.Close() })
	s.must(s.host.AddBridge(lab.BridgeSpec{Name: "br0"}))
	s.daemon, err = guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Namespace: s.host.Namespace, Image: image})
	s.must(err)
	t.Cleanup(func() { s.daemon.Close() })
	binary := filepath.Join(t.TempDir(), hook.Program)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	s.hooks = hook.Installer{Dir: s.daemon.Dir("/etc/libvirt/hooks"), Binary: binary}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// install installs for a libvirt of that version, and restarts it when told so.
func (s *site) install(v kvm.Version, c hook.Config) {
	s.t.Helper()
	r, err := s.hooks.Install(v, c)
	s.must(err)
	if r.RestartLibvirt {
		s.must(s.daemon.Restart(s.ctx))
	}
}

// received counts the frames that a guest has sent into its tap.
func (s *site) received(device string) uint64 {
	s.t.Helper()
	links, err := s.host.Links()
	s.must(err)
	l, err := links.LinkByName(device)
	s.must(err)
	return l.Attrs().Statistics.RxPackets
}

// Whatever the form, the policy is asked for when the tap is there and the
// guest, which sends from its first instruction, has not begun.
func TestLibvirtRunsTheHookBeforeTheGuest(t *testing.T) {
	for form, v := range map[hook.Form]kvm.Version{hook.DropIn: 9_000_000, hook.Wrapper: 6_004_000} {
		t.Run(form.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			theirs := filepath.Join(s.hooks.Dir, "qemu")
			record := s.daemon.Dir("/run/theirs")
			s.must(os.WriteFile(theirs, []byte("#!/bin/sh\necho $2 >> /run/theirs\ncat > /run/theirs.xml\n"), 0o755))
			s.must(s.daemon.Restart(s.ctx)) // libvirt looks for hooks at its start
			s.install(v, hook.DefaultConfig())

			var device string
			var early uint64
			s.agent.answer = func(r api.ProgramRequest) (int, any) {
				device = r.NICs[0].Devices[0]
				time.Sleep(2 * time.Second) // a guest that ran would have sent by now
				early = s.received(device)
				return ok(r)
			}
			s.agent.serve(t, s.daemon.Dir("/run/ringwall/ringwall.sock"))
			frame := append(append(bytes.Repeat([]byte{0xff}, 6), macA[:]...), bytes.Repeat([]byte{8}, 50)...)
			g, err := s.daemon.StartGuest(s.ctx, guests.Spec{Name: "eager", NICs: []guests.NIC{{MAC: macA, Bridge: "br0"}},
				Metadata: `<r:vm xmlns:r="urn:ringwall:vm:1"><r:nic mac="52:54:00:00:00:0a"><r:group>web</r:group></r:nic></r:vm>`,
				Boot:     probe.Config{Flood: &probe.Flood{NIC: macA, Frame: frame, Interval: time.Millisecond}}})
			s.must(err)
			want := []api.ProgramRequest{{Key: core.VMKey(g.UUID()), Name: "eager", Kind: "user", Claims: true,
				NICs: []api.ProgramNIC{{MAC: macA, Bridge: "br0", Devices: []string{device}, Groups: []string{"web"}}}}}
			if d := cmp.Diff(want, s.agent.got, cmpopts.IgnoreFields(api.ProgramRequest{}, "DomainID")); d != "" {
				t.Errorf("the agent got (-want +got):\n%s", d)
			}
			if early != 0 {
				t.Errorf("the guest had sent %d frames before its policy was asked for", early)
			}
			if n := s.received(device); n == 0 {
				t.Error("the guest sends nothing, so this shows nothing")
			}
			s.must(g.Destroy())
			phases, err := os.ReadFile(record)
			s.must(err)
			if got := strings.Fields(string(phases)); cmp.Diff([]string{"prepare", "start", "started", "stopped", "release"}, got) != "" {
				t.Errorf("the other hook saw %v", got)
			}
			x, err := os.ReadFile(s.daemon.Dir("/run/theirs.xml"))
			s.must(err)
			if d, err := kvm.ParseDomain(string(x), kvm.ParseOptions{}); err != nil || d.Name != "eager" {
				t.Errorf("the other hook got %.60s (%v)", x, err)
			}
		})
	}
}

func TestFailureAtARealLibvirt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.install(9_000_000, hook.DefaultConfig())
	g, err := s.daemon.DefineGuest(guests.Spec{Name: "a", NICs: []guests.NIC{{MAC: macA, Bridge: "br0"}}})
	s.must(err)

	// No agent at all.
	s.must(g.Launch())
	s.must(g.Destroy())
	refuse := hook.DefaultConfig()
	refuse.OnFailure = hook.Refuse
	s.install(9_000_000, refuse)
	if err := g.Launch(); err == nil || !strings.Contains(err.Error(), "on_failure is refuse") {
		t.Errorf("refuse: %v; want an error that says so", err)
	}
	// An agent that knows nothing of the VM.
	s.agent.answer = func(api.ProgramRequest) (int, any) { return http.StatusOK, result(engine.NoPolicy) }
	s.agent.serve(t, s.daemon.Dir("/run/ringwall/ringwall.sock"))
	s.must(g.Launch())
	s.must(g.Destroy())

	_, err = s.hooks.Uninstall()
	s.must(err)
	before := len(s.agent.got)
	s.must(g.Launch())
	if len(s.agent.got) != before {
		t.Error("the hook still runs after its removal")
	}
}
