package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Running is a world that was built, with a backend in it.
type Running struct {
	*Model
	Host    *labtest.Host
	Backend core.SecurityGroupBackend

	t       testing.TB
	target  Target
	ports   map[string]*lab.Port
	labels  map[*lab.Port]string
	watch   *lab.Observatory
	stopped bool  // no backend runs: see Step.Netfilter
	shots   int   // sent so far by Volley and Hail
	last    tally // what was counted when the last step was over; nil = look anew
}

// Start builds a world and opens the backend in it. Sync has it enforce.
func Start(t testing.TB, target Target, w World) *Running {
	t.Helper()
	r := &Running{t: t, target: target, ports: map[string]*lab.Port{}, labels: map[*lab.Port]string{}}
	r.Model = labtest.Must(NewModel(w))(t)
	r.Host = labtest.New(t, lab.Options{Forwarding: w.Routed})
	r.plug()
	r.Backend = labtest.Must(target.Open(t.Context(), t, r.Host))(t)
	t.Cleanup(func() {
		if r.stopped {
			return
		}
		if err := r.Backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// plug makes bridges and stations. All stations are mute: only crafted frames
// move.
func (r *Running) plug() {
	hostWide := "0"
	if r.World.HostWide {
		hostWide = "1"
	}
	labtest.Check(r.t, r.Host.SetSysctl(map[string]string{
		"net.bridge.bridge-nf-call-iptables": hostWide, "net.bridge.bridge-nf-call-ip6tables": hostWide, "net.bridge.bridge-nf-call-arptables": hostWide,
		// Emulated, a scenario takes longer than the 30 seconds that a flow lives.
		"net.netfilter.nf_conntrack_udp_timeout": "600", "net.netfilter.nf_conntrack_icmp_timeout": "600", "net.netfilter.nf_conntrack_icmpv6_timeout": "600",
		// What the host says of itself would be taken for part of the flows.
		"net.ipv4.conf.all.send_redirects": "0", "net.ipv4.conf.default.send_redirects": "0",
	}))
	for _, name := range r.layout.bridges {
		r.Host.AddBridge(lab.BridgeSpec{Name: name, MAC: r.layout.router(name), Addresses: r.World.Bridges[name], NoSnooping: true})
		r.see(name, r.bridgePort(name))
	}
	var specs []lab.StationSpec
	add := func(label string, p lab.PortSpec) {
		specs = append(specs, lab.StationSpec{Name: label, Mute: true, Ports: []lab.PortSpec{p}})
	}
	for _, s := range r.layout.seats {
		add(s.label, lab.PortSpec{Bridge: s.bridge, Device: s.device, MAC: s.mac})
	}
	if r.World.Routed {
		add("x", lab.PortSpec{Device: DeviceX, MAC: MACX, HostAddresses: hostX})
	}
	for i, s := range r.Host.AddStations(specs...) {
		r.see(specs[i].Name, s.Port(0))
	}
	if r.World.PortIPv6 {
		for _, s := range r.layout.seats {
			labtest.Check(r.t, r.Host.SetSysctl(map[string]string{"net/ipv6/conf/" + s.device + "/addr_gen_mode": "1", "net/ipv6/conf/" + s.device + "/disable_ipv6": "0"}))
		}
	}
	r.see("host", r.Host.Stack())
	watched := make([]*lab.Port, 0, len(r.ports))
	for _, p := range r.ports {
		watched = append(watched, p)
	}
	r.watch = labtest.Observe(r.t, watched...)
	r.ports["uplink"] = r.ports["uplink:"+r.layout.bridges[0]]
	labtest.Check(r.t, r.introduce())
}

// bridgePort looks a bridge up again while the kernel is about to add addresses
// of its own to it: a list that changes under the reader is not given.
func (r *Running) bridgePort(name string) *lab.Port {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p, err := r.Host.Host.Port(name)
		if errors.Is(err, netlink.ErrDumpInterrupted) && time.Now().Before(deadline) {
			continue
		}
		labtest.Check(r.t, err)
		return p
	}
}

func (r *Running) see(label string, p *lab.Port) { r.ports[label], r.labels[p] = p, label }

// Port finds a port by its label.
func (r *Running) Port(label string) *lab.Port { return r.ports[label] }

// Sync has the backend enforce the world as it is now.
func (r *Running) Sync(ctx context.Context) error {
	if err := r.Backend.Sync(ctx, r.Ruleset.Ruleset); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return r.Observe(ctx)
}

// Observe fails unless the backend sees just what is wanted.
func (r *Running) Observe(ctx context.Context) error {
	o, err := r.Backend.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	if len(o.Drift) > 0 || o.Fingerprint != r.Ruleset.Fingerprint {
		return fmt.Errorf("the backend observes fingerprint %s, want %s, drift %+v", o.Fingerprint.Short(), r.Ruleset.Fingerprint.Short(), o.Drift)
	}
	return nil
}

// Change alters the world, tells the backend by difference, and sweeps.
func (r *Running) Change(ctx context.Context, change func(*World)) error {
	delta, err := r.Model.Change(change)
	if err != nil {
		return err
	}
	if err := r.introduce(); err != nil {
		return err
	}
	if !delta.Empty() {
		if err := r.Backend.Apply(ctx, delta); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	if err := r.Observe(ctx); err != nil {
		return fmt.Errorf("after the change: %w", err)
	}
	return r.Sweep(ctx)
}

// sweeps bounds Sweep: one that never finds an end is a fault.
const sweeps = 20

// Sweep revokes and gives back flows, until none is left to.
//
// Whose a flow is where addresses do not tell is the backend's to say
// (docs/semantics.md, "Flows"), so the tracker does as the backend is asked to.
func (r *Running) Sweep(ctx context.Context) error {
	b, ok := r.Backend.(core.FlowBackend)
	if _, lacks := Lacks(r.Backend, core.FeatureFlows); !ok || lacks {
		return nil
	}
	for range sweeps {
		flows, err := b.Flows(ctx)
		if err != nil {
			return fmt.Errorf("flows: %w", err)
		}
		if err := r.unlisted(flows); err != nil {
			return err
		}
		revoke, restore := policy.StaleFlows(r.Ruleset.Ruleset, flows)
		r.Tracker.Revoke(revoke, restore)
		if len(revoke)+len(restore) == 0 {
			return nil
		}
		if _, err := b.RevokeFlows(ctx, revoke, restore); err != nil {
			return fmt.Errorf("revoke flows: %w", err)
		}
	}
	return fmt.Errorf("after %d sweeps there are still flows to revoke or to give back", sweeps)
}

// unlisted is the error about a flow that the backend does not list although it
// is a NIC's that is here: it could never be revoked.
func (r *Running) unlisted(flows []core.Flow) error {
	key := func(f core.Flow) core.Flow {
		return core.Flow{Bridge: f.Bridge, Protocol: f.Protocol, Src: f.Src, Dst: f.Dst, SrcPort: f.SrcPort, DstPort: f.DstPort}
	}
	listed := map[core.Flow]bool{}
	for _, f := range flows {
		listed[key(f)] = true
	}
	holds := func(k core.NICKey, a netip.Addr) bool {
		return slices.Contains(r.Ruleset.Ruleset.NICs[k].Addresses, a)
	}
	for _, f := range r.Tracker.Flows() {
		if (holds(f.From, f.Src) || holds(f.To, f.Dst)) && !listed[key(f)] {
			return fmt.Errorf("the backend does not list the flow %+v, but %d others", f, len(flows))
		}
	}
	return nil
}

// Restart closes the backend and opens another one, which finds the former's
// state in force.
func (r *Running) Restart(ctx context.Context) error {
	if err := r.stop(); err != nil {
		return err
	}
	return r.restart(ctx)
}

func (r *Running) stop() error {
	r.stopped = true
	return r.Backend.Close()
}

func (r *Running) restart(ctx context.Context) error {
	b, err := r.target.Open(ctx, r.t, r.Host)
	if err != nil {
		return err
	}
	r.Backend, r.stopped = b, false
	if o, err := b.Observe(ctx); err != nil || o.Fingerprint != r.Ruleset.Fingerprint {
		return fmt.Errorf("after a restart the backend observes fingerprint %s, want %s: %w", o.Fingerprint.Short(), r.Ruleset.Fingerprint.Short(), err)
	}
	return r.Sync(ctx)
}
