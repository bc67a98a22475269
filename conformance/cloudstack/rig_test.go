package cloudstack_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	"github.com/ringwall/ringwall/core"
)

func TestMain(m *testing.M) {
	code := labtest.Main(m)
	if dir, err := built(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// built are the agent and the commands.
var built = sync.OnceValues(func() (string, error) {
	return programs.Build("cmd/ringwalld", "cmd/ringwall", "cmd/security_group")
})

// account is in every VM's name: names of namespaces are the whole machine's.
var account = os.Getpid()

// rig is a CloudStack host out of the lab: VMs are namespaces that the netns
// adapter finds, and CloudStack's agent is the test, which runs the command.
type rig struct {
	t    testing.TB
	host *labtest.Host
	dir  string
	bin  string
	log  bytes.Buffer
	cmd  *exec.Cmd
	// outside is a machine behind the uplink.
	outside *lab.Station
	// stack is what the host's own IP stack accepts.
	stack *lab.Port
	down  map[*lab.Station]bool
}

type rigOptions struct {
	driver string // default nftables
	more   string // lines of config, at two spaces
	idle   bool   // do not start the agent
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	bin, err := built()
	labtest.Check(t, err)
	r := &rig{t: t, host: labtest.New(t, lab.Options{}), dir: t.TempDir(), bin: bin, down: map[*lab.Station]bool{}}
	r.host.AddBridge(lab.BridgeSpec{Name: "cloudbr0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}, Addresses: prefixes("10.1.0.254/16", "fd00::fe/64")})
	r.outside = r.host.AddStation(lab.StationSpec{Name: "outside", Ports: []lab.PortSpec{{Bridge: "cloudbr0", Device: "eth0", MAC: core.MAC{2, 0, 0, 0, 0, 9},
		Addresses: prefixes("10.1.250.9/16", "fd00::9/64")}}})
	r.stack = r.host.Stack()
	r.configure(o)
	if !o.idle {
		r.start()
	}
	return r
}

func (r *rig) configure(o rigOptions) {
	r.t.Helper()
	if o.driver == "" {
		o.driver = "nftables"
	}
	text := fmt.Sprintf(`defaults:
  state: %[1]s/state
  socket: {path: %[1]s/s}
  hypervisor: {adapter: netns, run: in_process, settings: {namespaces: ["i-%[2]d-*", "r-%[2]d-*"], ports: ["vnet*"]}}
  backend: {driver: %[3]s}
  cloudstack: {enabled: true, files: %[1]s/cloud, lock: %[1]s/lock, log: %[1]s/log}
%[4]s`, r.dir, account, o.driver, o.more)
	labtest.Check(r.t, os.WriteFile(filepath.Join(r.dir, "config.yaml"), []byte(text), 0o600))
}

func (r *rig) environ() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "RINGWALL_CONFIG=" + filepath.Join(r.dir, "config.yaml")}
}

func (r *rig) start() {
	r.t.Helper()
	r.cmd = exec.Command(filepath.Join(r.bin, "ringwalld"))
	r.cmd.Env = r.environ()
	r.log.Reset()
	r.cmd.Stderr = &r.log
	labtest.Check(r.t, r.host.Do(r.cmd.Start))
	r.t.Cleanup(r.stop)
	if !r.wait(40*time.Second, func() bool { return r.listening() && r.call("get_rule_logs_for_vms").code == 0 }) {
		r.t.Fatalf("the agent does not answer: %+v; it said:\n%s", r.call("can_bridge_firewall"), r.log.String())
	}
}

func (r *rig) listening() bool {
	_, err := os.Stat(filepath.Join(r.dir, "s"))
	return err == nil
}

func (r *rig) stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
	if r.t.Failed() {
		r.t.Logf("the agent said:\n%s", r.log.String())
	}
	r.cmd = nil
}

func (r *rig) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

func (r *rig) wait(d time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// result is what a call of the command gave.
type result struct {
	code           int
	stdout, stderr string
}

func (r *rig) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, "security_group"), args...)
	cmd.Env = r.environ()
	return cmd
}

func run(cmd *exec.Cmd) result {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (r *rig) call(args ...string) result {
	r.t.Helper()
	return run(r.command(r.t.Context(), args...))
}

// must is a call that has to succeed, without a word.
func (r *rig) must(args ...string) {
	r.t.Helper()
	if res := r.call(args...); res.code != 0 || res.stdout+res.stderr != "" {
		r.t.Fatalf("%q: exit %d, %q %q; the agent said:\n%s", args, res.code, res.stdout, res.stderr, r.log.String())
	}
}

// guest is a VM with one NIC or more on cloudbr0.
type guest struct {
	*lab.Station
	r    *rig
	n    int
	name string
	nics int
}

func mac(n, i int) core.MAC     { return core.MAC{0x1e, 0, 0xb4, byte(n >> 8), byte(i), byte(n)} }
func addr(n, i int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 1, byte(i*50 + n>>8), byte(n)}) }
func addr6(n, i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00::%x:%x", i+1, n)) }
func device(n, i int) string    { return fmt.Sprintf("vnet%d", n*4+i) }
func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// spec describes VM n with its NICs.
func (r *rig) spec(n, nics int, mute bool) lab.StationSpec {
	s := lab.StationSpec{Name: fmt.Sprint("vm", n), NetnsName: fmt.Sprintf("i-%d-%d-VM", account, n), Mute: mute}
	for i := range nics {
		s.Ports = append(s.Ports, lab.PortSpec{Bridge: "cloudbr0", Device: device(n, i), MAC: mac(n, i),
			Addresses: []netip.Prefix{netip.PrefixFrom(addr(n, i), 16), netip.PrefixFrom(addr6(n, i), 64)}})
	}
	return s
}

// boot starts a VM whose kernel is mute, so that only crafted frames move.
func (r *rig) boot(n, nics int) *guest { return r.add(r.spec(n, nics, true), n, nics) }

// bootLoud starts a VM whose kernel answers.
func (r *rig) bootLoud(n int) *guest { return r.add(r.spec(n, 1, false), n, 1) }

func (r *rig) add(spec lab.StationSpec, n, nics int) *guest {
	r.t.Helper()
	return &guest{Station: r.host.AddStation(spec), r: r, n: n, name: spec.NetnsName, nics: nics}
}

// end stops a VM without a word to anybody.
func (r *rig) end(s *lab.Station, netns string) {
	r.t.Helper()
	r.down[s] = true
	labtest.Check(r.t, s.Stop())
	labtest.Check(r.t, unix.Unmount("/run/netns/"+netns, unix.MNT_DETACH))
	labtest.Check(r.t, os.Remove("/run/netns/"+netns))
}

// defaults is the agent's argument list for a NIC.
func (g *guest) defaults(i int, more ...string) []string {
	args := []string{"default_network_rules", "--vmname", g.name, "--vmid", fmt.Sprint(g.n), "--vmip", addr(g.n, i).String(), "--vmip6", addr6(g.n, i).String(),
		"--vmmac", mac(g.n, i).String(), "--vif", device(g.n, i), "--brname", "cloudbr0", "--nicsecips", "0;"}
	if i == 0 {
		args = append(args, "--isFirstNic")
	}
	return append(args, more...)
}

func (g *guest) rules(seq int, text string) []string {
	args := []string{"add_network_rules", "--vmname", g.name, "--vmid", fmt.Sprint(g.n), "--vmip", addr(g.n, 0).String(), "--vmip6", addr6(g.n, 0).String(),
		"--sig", fmt.Sprintf("%032x", seq), "--seq", fmt.Sprint(seq), "--vmmac", mac(g.n, 0).String(), "--vif", device(g.n, 0), "--brname", "cloudbr0", "--nicsecips", "0;"}
	if text != "" {
		args = append(args, "--rules", text)
	}
	return args
}

// program is what the agent does at a start: default rules and rules.
func (g *guest) program(seq int, text string) {
	g.r.t.Helper()
	for i := range g.nics {
		g.r.must(g.defaults(i)...)
	}
	g.r.must(g.rules(seq, text)...)
}

// logs is what the server is told, by VM name: the sequence number.
func (r *rig) logs() map[string]string {
	r.t.Helper()
	res := r.call("get_rule_logs_for_vms")
	if res.code != 0 || res.stderr != "" || !strings.HasSuffix(res.stdout, "\n") || strings.Count(res.stdout, "\n") != 1 {
		r.t.Fatalf("get_rule_logs_for_vms: %+v", res)
	}
	out := map[string]string{}
	for e := range strings.SplitSeq(strings.TrimSuffix(res.stdout, "\n"), ";") {
		if f := strings.Split(e, ","); len(f) == 6 {
			out[f[0]] = f[5]
		} else if e != "" {
			r.t.Fatalf("entry %q", e)
		}
	}
	return out
}

// probe is a frame and where it must arrive, if at all.
type probe struct {
	name string
	from *lab.Port
	to   *lab.Port
	f    frame.Frame
	pass bool
}

// send sends probes and fails the test when one ends up elsewhere than said.
func (r *rig) send(probes ...probe) {
	r.t.Helper()
	ports := []*lab.Port{r.stack}
	for _, s := range r.host.Stations() {
		if !r.down[s] {
			ports = append(ports, s.Ports()...)
		}
	}
	o, err := lab.Observe(ports...)
	labtest.Check(r.t, err)
	defer o.Close()
	all := make([]lab.Probe, len(probes))
	for i, p := range probes {
		all[i] = lab.Probe{Name: p.name, From: p.from, Frame: p.f}
	}
	seen, err := o.Send(r.t.Context(), all...)
	labtest.Check(r.t, err)
	for i, p := range probes {
		switch {
		case seen[i].At(p.to) != p.pass:
			r.t.Errorf("%s: passes %v, want %v (%s)", p.name, seen[i].At(p.to), p.pass, seen[i])
		case !p.pass && slices.ContainsFunc(seen[i].Ports(), func(at *lab.Port) bool { return strings.HasPrefix(at.Device(), "vnet") }):
			// At the uplink it may arrive: bridges flood what they do not know.
			r.t.Errorf("%s: it is seen at %v", p.name, seen[i].Ports())
		}
	}
}

func between(from, to *lab.Port) frame.Flow { return lab.FlowBetween(from, to, core.IPv4) }
