package vmops_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/conformance/xapi/stock"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
	"github.com/ringwall/ringwall/hypervisors/xenserver/vmops"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// The test binary stands in for the plugin in dom0.
func TestMain(m *testing.M) {
	if stock.Enabled() {
		os.Exit(stock.Main())
	}
	os.Exit(m.Run())
}

type fixture struct {
	pool     *sim.Pool
	hosts    []*sim.Host
	dirs     []string
	server   *sim.Server
	network  sim.Ref
	adapter  *xenserver.Adapter
	backends []*vmops.Backend
	groups   []core.Group
}

type siteOptions struct {
	hosts   int
	version string
	ovs     bool
}

func site(t *testing.T, o siteOptions) *fixture {
	t.Helper()
	f := &fixture{pool: sim.NewPool(sim.Options{Version: o.version})}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range max(1, o.hosts) {
		h := f.pool.AddHost(sim.HostSpec{Name: fmt.Sprintf("xen%d", i+1)})
		dir := t.TempDir()
		socket := filepath.Join(dir, "xapi")
		s, err := h.ServeLocal(socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		h.Plugins["vmops"] = self
		h.Env = stock.Options{Dir: dir, Socket: socket, Python3: o.version >= "8.3", OVS: o.ovs}.Environ()
		f.hosts, f.dirs = append(f.hosts, h), append(f.dirs, dir)
	}
	f.network = f.pool.AddNetwork(sim.NetworkSpec{Name: "guests", Bridge: "xenbr0"})
	if f.server, err = f.hosts[0].Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.server.Close() })
	f.adapter = xenserver.New(xenserver.Options{XAPI: f.client(t), Log: slog.New(slog.DiscardHandler), Backoff: 5 * time.Millisecond})
	t.Cleanup(func() { f.adapter.Close() })
	for i := range f.hosts {
		f.backends = append(f.backends, f.open(t, i))
	}
	return f
}

func (f *fixture) client(t *testing.T) *xapi.Client {
	t.Helper()
	c, err := xapi.New(xapi.Options{Hosts: []string{f.server.Addr}, User: "root", Password: "secret", Pins: []string{f.server.Fingerprint}, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fixture) open(t *testing.T, host int) *vmops.Backend {
	t.Helper()
	b := vmops.New(vmops.Options{XAPI: f.client(t), Host: f.hosts[host].Name, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { b.Close() })
	return b
}

// vm is a VM that its own other_config puts into groups.
func (f *fixture) vm(name string, n byte, groups, addresses string) *sim.VM {
	return f.pool.AddVM(sim.VMSpec{Name: name, VIFs: []sim.VIFSpec{{Network: f.network, MAC: core.MAC{2, 0, 0, 0, 0, n}.String(),
		OtherConfig: map[string]string{"ringwall-groups": groups, "ringwall-addresses": addresses}}}})
}

func options() core.Options {
	return core.Options{Bridges: []core.Pattern{"xenbr*"}, AllowDNS: true, Multicast: core.MulticastDrop}
}

// ruleset is what a host should hold by what the pool says.
func (f *fixture) ruleset(t *testing.T, host int) core.Ruleset {
	t.Helper()
	list, err := f.adapter.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in := policy.Input{Options: options(), Groups: f.groups, Point: f.hosts[host].UUID}
	for _, i := range list {
		in.VMs = append(in.VMs, i.VM)
	}
	rs, err := policy.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func (f *fixture) sync(t *testing.T) {
	t.Helper()
	if err := f.trySync(t, 0); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) trySync(t *testing.T, host int) error {
	t.Helper()
	return f.backends[host].Sync(t.Context(), f.ruleset(t, host))
}

func (f *fixture) state(t *testing.T, host int) *stock.State {
	t.Helper()
	s, err := stock.Load(f.dirs[host])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func observe(t *testing.T, b core.SecurityGroupBackend) core.Observation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o, err := b.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func cidrs(list ...string) *core.Peers {
	p := &core.Peers{}
	for _, s := range list {
		p.CIDRs = append(p.CIDRs, netip.MustParsePrefix(s))
	}
	return p
}

func rule(d core.Direction, p core.Protocol, peers *core.Peers, ports ...core.Span) core.Rule {
	return core.Rule{Direction: d, Protocol: p, Peers: peers, Ports: ports}
}

func port(n uint16) core.Span { return core.Span{First: n, Last: n} }

var web = core.Group{Name: "web", Rules: []core.Rule{rule(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8"), port(80), port(443))}}
