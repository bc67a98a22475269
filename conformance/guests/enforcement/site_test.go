package enforcement

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// site is a host with bridge br0, a station u behind its uplink, a private
// libvirtd, and a ringwalld.
type site struct {
	t      *testing.T
	ctx    context.Context
	host   *labtest.Host
	u      *lab.Station
	heard  *listener // at u
	daemon *guests.Libvirtd
	bin    string // folder of the programs
	agent  *exec.Cmd
	log    programs.Log
	api    *api.Client
}

var macU = core.MAC{2, 0, 0, 0, 0, 0xee}

const addrU = "10.0.0.9"

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	s := &site{t: t, ctx: ctx, bin: t.TempDir()}
	image := labtest.Must(guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{}))(t)
	s.build("./cmd/ringwalld", "./cmd/"+hook.Program, "./plugins/ringwall-plugin-kvm")

	s.host = labtest.New(t, lab.Options{})
	s.host.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	s.u = s.host.AddStation(lab.StationSpec{Name: "u", Ports: []lab.PortSpec{{Bridge: "br0", Device: "eth0", MAC: macU,
		Addresses: []netip.Prefix{netip.MustParsePrefix(addrU + "/24"), netip.MustParsePrefix("fd00::9/64")}}}})
	s.heard = listen(t, s.u)
	s.daemon = labtest.Must(guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Namespace: s.host.Namespace, Image: image}))(t)
	t.Cleanup(func() { labtest.Check(t, s.daemon.Close()) })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent said:\n%s", s.log.String())
		}
	})
	s.startAgent()
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	labtest.Check(s.t, err)
}

func (s *site) build(packages ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, "go", append([]string{"build", "-o", s.bin + "/"}, packages...)...)
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("go build: %v\n%s", err, out)
	}
}

// startAgent runs ringwalld as its unit does. Its socket is where the hook finds
// it, in libvirtd's own /run.
func (s *site) startAgent() {
	s.t.Helper()
	program := filepath.Join(s.bin, "ringwall-plugin-kvm")
	sum := sha256.Sum256(labtest.Must(os.ReadFile(program))(s.t))
	socket := s.daemon.Dir("/run/ringwall/ringwall.sock")
	s.must(os.MkdirAll(filepath.Dir(socket), 0o755))
	config := filepath.Join(s.bin, "config.yaml")
	s.must(os.WriteFile(config, fmt.Appendf(nil, `defaults:
  state: %s
  socket: {path: %s}
  hypervisor: {adapter: kvm, run: plugin, settings: {uri: "%s"}}
  backend: {driver: nftables}
  bridges: [br0]
plugins:
  kvm: {path: %s, sha256: [%s]}
`, filepath.Join(s.bin, "state"), socket, s.daemon.URI(), program, hex.EncodeToString(sum[:])), 0o600))
	s.agent = exec.Command(filepath.Join(s.bin, "ringwalld"), "--config", config)
	s.agent.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	s.agent.Stderr = &s.log
	s.must(s.host.Do(s.agent.Start))
	s.t.Cleanup(s.stopAgent)
	s.api = labtest.Must(api.Dial(s.ctx, api.ClientConfig{Path: socket}))(s.t)
	s.t.Cleanup(s.api.Close)
}

func (s *site) stopAgent() {
	s.must(s.agent.Process.Signal(syscall.SIGTERM))
	if err := s.agent.Wait(); err != nil {
		s.t.Errorf("ringwalld ended with %v", err)
	}
}

// apply must be in force everywhere that it concerns.
func (s *site) apply(manifest string) {
	s.t.Helper()
	labtest.Must(s.api.Apply(s.ctx, api.ApplyRequest{Manifest: manifest}))(s.t)
}

// nic waits until a NIC stands as it should.
func (s *site) nic(vm string, mac core.MAC, want engine.State) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		state, reason := s.nicNow(vm, mac)
		if state == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s %s is %s (%s), want %s", vm, mac, state, reason, want)
		}
	}
}

// nicNow is how a NIC stands; 0 when the agent knows of none.
func (s *site) nicNow(vm string, mac core.MAC) (engine.State, string) {
	s.t.Helper()
	for _, n := range labtest.Must(s.api.Status(s.ctx, api.Empty{}))(s.t).NICs {
		if n.VM == vm && n.NIC.MAC == mac {
			return n.State, n.Reason
		}
	}
	return 0, "not known"
}

// guest starts one and does not wait for it.
func (s *site) launch(spec guests.Spec) *guests.Guest {
	s.t.Helper()
	spec.Memory = 192
	g := labtest.Must(s.daemon.DefineGuest(spec))(s.t)
	s.must(g.Launch())
	return g
}

func (s *site) ready(gs ...*guests.Guest) {
	s.t.Helper()
	errs := make([]error, len(gs))
	var all sync.WaitGroup
	for i, g := range gs {
		all.Go(func() { errs[i] = g.WaitReady(s.ctx) })
	}
	all.Wait()
	s.must(errors.Join(errs...))
}

// freezeAdapter makes the adapter's process stand still.
func (s *site) freezeAdapter() (thaw func()) {
	s.t.Helper()
	plugins := labtest.Must(s.api.Plugins(s.ctx, api.Empty{}))(s.t)
	if len(plugins) != 1 || plugins[0].PID == 0 {
		s.t.Fatalf("plugins: %+v", plugins)
	}
	p := labtest.Must(os.FindProcess(plugins[0].PID))(s.t)
	s.must(p.Signal(syscall.SIGSTOP))
	return func() {
		// The agent may have put another in its place: it does not answer.
		if err := p.Signal(syscall.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.t.Error(err)
		}
	}
}

// received counts the frames that a guest has sent into its tap.
func (s *site) received(g *guests.Guest, mac core.MAC) uint64 {
	s.t.Helper()
	device := labtest.Must(g.Device(mac))(s.t)
	links := labtest.Must(s.host.Links())(s.t)
	l, err := links.LinkByName(device)
	s.must(err)
	return l.Attrs().Statistics.RxPackets
}

// try is traffic of one guest's own kernel, and whether it must get through.
type try struct {
	from *guests.Guest
	kind string // tcp, or ping
	to   string
	port uint16
	want bool
}

// How long an answer may take, and how long silence is waited for.
const (
	patience = 10 * time.Second
	silence  = 1500 * time.Millisecond
)

// expect makes all tries at once: silence takes its time only once.
func (s *site) expect(when string, tries ...try) {
	s.t.Helper()
	got, errs := make([]bool, len(tries)), make([]error, len(tries))
	var all sync.WaitGroup
	for i, x := range tries {
		all.Go(func() { got[i], errs[i] = s.attempt(x) })
	}
	all.Wait()
	s.must(errors.Join(errs...))
	for i, x := range tries {
		if got[i] != x.want {
			s.t.Errorf("%s: %s from %s to %s port %d passes: %v, want %v", when, x.kind, x.from.Name(), x.to, x.port, got[i], x.want)
		}
	}
}

func (s *site) attempt(x try) (bool, error) {
	timeout := silence
	if x.want {
		timeout = patience
	}
	to := netip.MustParseAddr(x.to)
	if x.kind == "ping" {
		r, err := x.from.Probe().Ping(s.ctx, probe.Ping{To: to, Timeout: timeout})
		return r.Received > 0, err
	}
	r, err := x.from.Probe().Dial(s.ctx, probe.Dial{Network: x.kind, To: netip.AddrPortFrom(to, x.port), Payload: "hello", Timeout: timeout})
	return r.OK(), err
}

// rules is all that nf_tables holds in the host.
func (s *site) rules() string {
	s.t.Helper()
	var out []byte
	s.must(s.host.Do(func() (err error) {
		out, err = exec.CommandContext(s.ctx, "nft", "list", "ruleset").Output()
		return err
	}))
	return string(out)
}
