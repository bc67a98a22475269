package dom0_test

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

func TestMain(m *testing.M) {
	code := labtest.Main(m)
	if dir, err := built(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// built are the agent, the command and the plugin that XAPI runs, under both its
// names.
var built = sync.OnceValues(func() (string, error) {
	dir, err := programs.Build("cmd/ringwalld", "cmd/ringwall", "cmd/vmops")
	if err != nil {
		return "", err
	}
	return dir, os.Symlink("vmops", filepath.Join(dir, "setup-vif-rules"))
})

// dom0 is a XenServer host out of the lab: xenbr0 with its uplink eth0, XAPI
// simulated behind its unix socket, the agent, and the plugin that XAPI runs.
type dom0 struct {
	t       *testing.T
	host    *labtest.Host
	pool    *sim.Pool
	xen     *sim.Host
	network sim.Ref
	xapi    *xapi.Client
	dir     string
	bin     string
	log     bytes.Buffer
	agent   *exec.Cmd
	outside *lab.Station
	stack   *lab.Port
	gone    map[*lab.Station]bool
}

// forEach runs a test with each driver.
func forEach(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range []string{"nftables", "iptables"} {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

type options struct {
	driver     string // of the firewall; default nftables
	cloudstack bool
	pool       *sim.Pool // default: one of its own
	network    sim.Ref
	name       string
}

func build(t *testing.T, o options) *dom0 {
	t.Helper()
	if o.driver == "" {
		o.driver = "nftables"
	}
	if o.name == "" {
		o.name = "xen1"
	}
	bin, err := built()
	labtest.Check(t, err)
	d := &dom0{t: t, bin: bin, pool: o.pool, network: o.network, host: labtest.New(t, lab.Options{Name: o.name}), gone: map[*lab.Station]bool{}}
	if d.dir, err = os.MkdirTemp("", "dom0-"); err != nil { // a unix socket's path must be short
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.dir) })
	if d.pool == nil {
		d.pool = sim.NewPool(sim.Options{})
	}
	d.xen = d.pool.AddHost(sim.HostSpec{Name: o.name})
	if d.network == "" {
		d.network = d.pool.AddNetwork(sim.NetworkSpec{Name: "guests", Bridge: "xenbr0"})
	}
	socket := filepath.Join(d.dir, "xapi")
	s, err := d.xen.ServeLocal(socket)
	labtest.Check(t, err)
	t.Cleanup(func() { s.Close() })
	d.xapi, err = xapi.New(xapi.Options{Socket: socket, Timeout: time.Minute})
	labtest.Check(t, err)
	t.Cleanup(func() { d.xapi.Close(t.Context()) })
	d.xen.Plugins["vmops"] = filepath.Join(bin, "vmops")
	d.xen.Env = []string{"RINGWALL_CONFIG=" + filepath.Join(d.dir, "config.yaml")}
	d.xen.Around = func(start func() error) error { return d.host.Do(start) }

	d.host.AddBridge(lab.BridgeSpec{Name: "xenbr0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.254/16")}})
	d.outside = d.host.AddStation(lab.StationSpec{Name: "outside", Mute: true, Ports: []lab.PortSpec{{Bridge: "xenbr0", Device: "eth0", MAC: core.MAC{2, 0, 0, 0, 0, 9},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.250.9/16"), netip.MustParsePrefix("fd00::9/64")}}}})
	d.stack = d.host.Stack()
	text := fmt.Sprintf(`defaults:
  state: %[1]s/state
  socket: {path: %[1]s/s}
  hypervisor: {adapter: xenserver, run: in_process, settings: {socket: %[2]s, host: %[3]s}}
  backend: {driver: %[4]s%[5]s}
  bridges: ["xenbr*"]
  vm_ports: ["vif*", "tap*"]
  cloudstack: {enabled: %[6]v, files: %[1]s/cloud, log: %[1]s/log}
`, d.dir, socket, d.xen.UUID, o.driver, map[string]string{"iptables": ", settings: {layout: xenserver}"}[o.driver], o.cloudstack)
	labtest.Check(t, os.WriteFile(filepath.Join(d.dir, "config.yaml"), []byte(text), 0o600))
	d.agent = exec.Command(filepath.Join(bin, "ringwalld"))
	d.agent.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "RINGWALL_CONFIG=" + filepath.Join(d.dir, "config.yaml")}
	d.agent.Stderr = &d.log
	labtest.Check(t, d.host.Do(d.agent.Start))
	t.Cleanup(d.stop)
	d.wait(20*time.Second, "the agent's socket", func() bool { _, err := os.Stat(filepath.Join(d.dir, "s")); return err == nil })
	return d
}

func (d *dom0) stop() {
	_ = d.agent.Process.Signal(syscall.SIGTERM)
	_ = d.agent.Wait()
	if d.t.Failed() {
		d.t.Logf("the agent of %s said:\n%s", d.xen.Name, d.log.String())
	}
}

func (d *dom0) wait(limit time.Duration, what string, ok func() bool) time.Duration {
	d.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			d.t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func mac(n int) core.MAC     { return core.MAC{0x1e, 0, 0xb4, 0, byte(n >> 8), byte(n)} }
func addr(n int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}) }
func addr6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00::%x", 0x100+n)) }
func pfx(a netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(a, map[bool]int{true: 16, false: 64}[a.Is4()])}
}

// guest is a VM: in XAPI, and as two stations of the lab, its PV card and its
// emulated one.
type guest struct {
	*sim.VM
	d    *dom0
	name string
	n    int
	// vif and tap are its ends on the host, of each card.
	vif, tap []*lab.Port
	stations []*lab.Station
}

// start boots VM n on the host with the cards that it has.
func (d *dom0) start(vm *sim.VM, name string, n int) *guest {
	d.t.Helper()
	g := &guest{VM: vm, d: d, name: name, n: n}
	vm.Start(d.xen)
	g.plug(len(vm.VIFs()))
	return g
}

// plug puts the host's ends of the cards in place.
func (g *guest) plug(cards int) {
	g.d.t.Helper()
	for i := range cards {
		for _, kind := range []string{"vif", "tap"} {
			s := g.d.host.AddStation(lab.StationSpec{Name: fmt.Sprintf("%s-%s%d-%d", g.name, kind, i, g.Domid()), Mute: true, Ports: []lab.PortSpec{{
				Bridge: "xenbr0", Device: fmt.Sprintf("%s%d.%d", kind, g.Domid(), i), MAC: mac(g.n + i),
				Addresses: append(pfx(addr(g.n+i)), pfx(addr6(g.n+i))...)}}})
			g.stations = append(g.stations, s)
			if kind == "vif" {
				g.vif = append(g.vif, s.Port(0))
			} else {
				g.tap = append(g.tap, s.Port(0))
			}
		}
	}
}

// leave takes the host's ends away.
func (g *guest) leave() {
	g.d.t.Helper()
	for _, s := range g.stations {
		g.d.gone[s] = true
		labtest.Check(g.d.t, s.Stop())
	}
	g.stations, g.vif, g.tap = nil, nil, nil
}

func (d *dom0) vm(name string, n, cards int, config map[string]string) *sim.VM {
	spec := sim.VMSpec{Name: name}
	for i := range cards {
		spec.VIFs = append(spec.VIFs, sim.VIFSpec{Network: d.network, MAC: mac(n + i).String(), OtherConfig: config})
	}
	return d.pool.AddVM(spec)
}

// call runs a function of the plugin through XAPI.
func (d *dom0) call(function string, pairs ...string) (string, error) {
	args := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		args[pairs[i]] = pairs[i+1]
	}
	return d.xapi.CallPlugin(d.t.Context(), xapi.Ref(d.xen.Ref), "vmops", function, args)
}

func (d *dom0) must(want, function string, pairs ...string) {
	d.t.Helper()
	if out, err := d.call(function, pairs...); err != nil || out != want {
		d.t.Fatalf("%s: %q %v; the agent said:\n%s", function, out, err, d.log.String())
	}
}

func (g *guest) defaults(card int, secondary string) []string {
	return []string{"vmName", g.name, "vmIP", addr(g.n + card).String(), "vmMAC", mac(g.n + card).String(), "vmID", fmt.Sprint(g.n), "secIps", secondary}
}

// program is what the server tells of a VM that has started.
func (g *guest) program(seq int, rules string) {
	g.d.t.Helper()
	for i := range g.vif {
		g.d.must("true", "default_network_rules", g.defaults(i, addr6(g.n+i).String()+";")...)
	}
	g.rules(seq, rules)
}

func (g *guest) rules(seq int, rules string) {
	g.d.t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(rules))
	labtest.Check(g.d.t, w.Close())
	g.d.must("true", "network_rules", append(g.defaults(0, addr6(g.n).String()+";"), "signature", fmt.Sprintf("%032x", seq), "seqno", fmt.Sprint(seq),
		"deflated", "true", "rules", base64.StdEncoding.EncodeToString(b.Bytes()))...)
}

// probe is a frame and where it must arrive, if at all.
type probe struct {
	name     string
	from, to *lab.Port
	f        frame.Frame
	pass     bool
}

// seen sends probes and says which arrived.
func (d *dom0) seen(probes ...probe) []bool {
	d.t.Helper()
	ports := []*lab.Port{d.stack}
	for _, s := range d.host.Stations() {
		if !d.gone[s] {
			ports = append(ports, s.Ports()...)
		}
	}
	o, err := lab.Observe(ports...)
	labtest.Check(d.t, err)
	defer o.Close()
	all := make([]lab.Probe, len(probes))
	for i, p := range probes {
		all[i] = lab.Probe{Name: p.name, From: p.from, Frame: p.f}
	}
	sightings, err := o.Send(d.t.Context(), all...)
	labtest.Check(d.t, err)
	out := make([]bool, len(probes))
	for i, p := range probes {
		out[i] = sightings[i].At(p.to)
	}
	return out
}

func (d *dom0) send(probes ...probe) {
	d.t.Helper()
	for i, got := range d.seen(probes...) {
		if got != probes[i].pass {
			d.t.Errorf("%s: passes %v, want %v", probes[i].name, got, probes[i].pass)
		}
	}
}

func flow(from, to *lab.Port) frame.Flow { return lab.FlowBetween(from, to, core.IPv4) }
