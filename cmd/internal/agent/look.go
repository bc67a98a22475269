package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/cmd/internal/version"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/source/manifest"
)

// Version says what this is.
func (a *Agent) Version(context.Context, api.Empty) (api.Version, error) {
	mode := config.ModeAgent
	if a.o.Standalone {
		mode = config.ModeStandalone
	}
	return api.Version{Version: version.String(), API: api.Version1, Mode: string(mode)}, nil
}

// Objects is desired state.
func (a *Agent) Objects(_ context.Context, in api.ObjectsRequest) (api.Objects, error) {
	s := a.store.Snapshot()
	out := api.Objects{GroupSources: map[string]string{}, VMSources: map[core.VMKey]string{}}
	var m manifest.Manifest
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		if in.All || !reserved(name) {
			m.Groups = append(m.Groups, s.Groups[name].Group)
			out.GroupSources[name] = s.Groups[name].Source
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.VMs)) {
		m.VMs = append(m.VMs, s.VMs[key].VM)
		out.VMSources[key] = s.VMs[key].Source
	}
	out.Manifest = m
	return out, nil
}

func reserved(group string) bool { return strings.HasPrefix(group, core.ReservedGroupPrefix) }

// NICs lists the NICs that somebody speaks for, or that are here.
func (a *Agent) NICs(ctx context.Context, _ api.ObjectsRequest) ([]api.NIC, error) {
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	type wanted struct {
		kind core.VMKind
		nic  core.NIC
	}
	known := map[core.NICKey]wanted{}
	for _, vm := range a.engine.Input("").VMs {
		for _, n := range vm.NICs {
			known[core.NICKey{VM: vm.Key, MAC: n.MAC}] = wanted{vm.Kind, n}
		}
	}
	out := []api.NIC{}
	for _, st := range a.engine.Status().NICs {
		n := api.NIC{NICStatus: st}
		strip(&n.NICStatus)
		if w, ok := known[st.NIC]; ok {
			n.Kind, n.Addresses, n.AntiSpoofing = w.kind.String(), w.nic.Addresses, !w.nic.SpoofingAllowed
			for _, p := range w.nic.Pairs {
				n.Pairs = append(n.Pairs, p.String())
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// strip leaves out the policies behind a state: they are the ruleset's, which
// diff and get rules show.
func strip(n *engine.NICStatus) { n.Wanted, n.Enforced = nil, nil }

// each calls fn with what every point enforces.
func (a *Agent) each(ctx context.Context, fn func(point string, rs core.Ruleset)) error {
	if err := a.ready(ctx); err != nil {
		return err
	}
	for _, point := range a.engine.Points() {
		rs, err := a.engine.Ruleset(point)
		if err != nil {
			return err
		}
		fn(point, rs)
	}
	return nil
}

// Sets lists the members of remote groups.
func (a *Agent) Sets(ctx context.Context, in api.ObjectsRequest) ([]api.Set, error) {
	out := []api.Set{}
	err := a.each(ctx, func(point string, rs core.Ruleset) {
		for _, name := range slices.Sorted(maps.Keys(rs.Sets)) {
			if in.All || !reserved(name) {
				out = append(out, api.Set{Point: point, Group: name, Members: rs.Sets[name].Members})
			}
		}
	})
	return out, err
}

// Rules lists the entries of groups.
func (a *Agent) Rules(ctx context.Context, in api.ObjectsRequest) ([]api.Rule, error) {
	out := []api.Rule{}
	err := a.each(ctx, func(point string, rs core.Ruleset) {
		for _, name := range slices.Sorted(maps.Keys(rs.Groups)) {
			if !in.All && reserved(name) {
				continue
			}
			for _, e := range rs.Groups[name].Entries {
				out = append(out, api.Rule{Point: point, Group: name, Direction: e.Direction.String(), Family: e.Family.String(),
					Protocol: e.Protocol.String(), Match: match(e), Peer: e.Peer.String()})
			}
		}
	})
	return out, err
}

// match is an entry's selector as a rule would say it.
func match(e core.Entry) string {
	switch {
	case e.Span == core.AnySpan:
		return ""
	case !e.Protocol.IsICMP():
		return e.Span.String()
	case e.Span.First == e.Span.Last:
		return fmt.Sprintf("type %d code %d", e.Span.First>>8, e.Span.First&0xff)
	case e.Span.First>>8 == e.Span.Last>>8:
		return fmt.Sprintf("type %d", e.Span.First>>8)
	}
	return fmt.Sprintf("types %d to %d", e.Span.First>>8, e.Span.Last>>8)
}

// Explain answers from the rules in force.
func (a *Agent) Explain(ctx context.Context, in api.ExplainRequest) (api.Explanation, error) {
	if err := a.ready(ctx); err != nil {
		return api.Explanation{}, err
	}
	rs, err := a.engine.Ruleset("")
	if err != nil {
		return api.Explanation{}, err
	}
	return api.Explain(rs, a.engine.Input("").Groups, in)
}

// Status is everything in one look.
func (a *Agent) Status(ctx context.Context, _ api.Empty) (api.Status, error) {
	if err := a.ready(ctx); err != nil {
		return api.Status{}, err
	}
	v, _ := a.Version(ctx, api.Empty{})
	s := a.store.Snapshot()
	a.mu.Lock()
	c, hypervisor := a.config, a.adapter.name
	a.mu.Unlock()
	out := api.Status{Version: v, Host: c.Host, Cluster: c.Cluster, Hypervisor: hypervisor, VMs: len(s.VMs), Status: a.engine.Status()}
	for name := range s.Groups {
		if !reserved(name) {
			out.Groups++
		}
	}
	if out.NICs == nil {
		out.NICs = []engine.NICStatus{}
	}
	for i := range out.NICs {
		strip(&out.NICs[i])
	}
	return out, nil
}

// Verify reads back what is enforced. It writes nothing: a standalone command
// does not even start its engine for it.
func (a *Agent) Verify(ctx context.Context, _ api.Empty) ([]api.Verification, error) {
	wanted, err := a.wanted(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Verification
	for _, point := range a.engine.Points() {
		o, err := a.engine.Observe(ctx, point)
		if err != nil {
			return nil, err
		}
		v := api.Verification{Point: point, Wanted: wanted[point], Enforced: o.Fingerprint, Differences: []api.Difference{}}
		for _, d := range o.Drift {
			diff := api.Difference{Object: d.Object, Difference: d.Difference}
			if d.NIC != (core.NICKey{}) {
				diff.NIC = d.NIC.String()
			}
			v.Differences = append(v.Differences, diff)
		}
		out = append(out, v)
	}
	return out, nil
}

// wanted is what every point should hold.
func (a *Agent) wanted(ctx context.Context) (map[string]core.Fingerprint, error) {
	if a.o.Standalone {
		return a.engine.Preview(ctx)
	}
	out := map[string]core.Fingerprint{}
	for _, p := range a.engine.Status().Points {
		out[p.Name] = p.Wanted
	}
	return out, nil
}

// Counters reads every point's counters, sorted.
func (a *Agent) Counters(ctx context.Context, _ api.Empty) ([]api.Counter, error) {
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	names := map[core.NICKey]string{}
	for _, n := range a.engine.Status().NICs {
		names[n.NIC] = n.VM
	}
	out := []api.Counter{}
	for _, point := range a.engine.Points() {
		counters, err := a.engine.Counters(ctx, point)
		if err != nil {
			return nil, err
		}
		for _, c := range counters {
			x := api.Counter{Device: c.Device, Direction: c.Direction.String(), Reason: string(c.Reason), Packets: c.Packets, Bytes: c.Bytes}
			if c.NIC != (core.NICKey{}) {
				x.NIC, x.VM = c.NIC.String(), names[c.NIC]
			}
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(x, y api.Counter) int {
		return cmp.Or(strings.Compare(x.VM, y.VM), strings.Compare(x.NIC, y.NIC), strings.Compare(x.Device, y.Device),
			strings.Compare(y.Direction, x.Direction), strings.Compare(x.Reason, y.Reason))
	})
	return out, nil
}

// Plugins lists the plugins that run.
func (a *Agent) Plugins(context.Context, api.Empty) ([]plugin.State, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []plugin.State{}
	for _, p := range []*plugin.Plugin{a.backend.plugin, a.adapter.plugin} {
		if p != nil {
			out = append(out, p.State())
		}
	}
	return out, nil
}

// Doctor checks the host, and what this agent is told to do with it.
func (a *Agent) Doctor(ctx context.Context, _ api.Empty) ([]api.Check, error) {
	a.mu.Lock()
	c, backend, adapter := a.config, a.backend, a.adapter
	a.mu.Unlock()
	out := []api.Check{}
	add := func(part string, checks []core.Check, err error) {
		if err != nil {
			checks = append(checks, core.Check{Name: "preflight", Status: core.StatusError, Summary: "the checks cannot be made", Evidence: err.Error()})
		}
		for _, k := range checks {
			out = append(out, api.Check{Part: part, Name: k.Name, Status: k.Status.String(), Summary: k.Summary, Evidence: k.Evidence, Fix: k.Fix})
		}
	}
	add("config", append(configChecks(c), scriptChecks(c.CloudStack)...), nil)
	checks, err := backend.value.Preflight(ctx)
	add("backend "+backend.name, checks, err)
	if adapter.opened {
		checks, err := adapter.value.Preflight(ctx)
		add("hypervisor "+adapter.name, checks, err)
	}
	if !a.o.Standalone {
		add("engine", engineChecks(a.engine.Status()), nil)
	}
	return out, nil
}

func configChecks(c *config.Loaded) []core.Check {
	out := []core.Check{{Name: "bridges", Summary: "under management: " + joined(c.Bridges)}}
	if c.CloudStack.Enabled {
		out[0].Summary += " and what CloudStack names"
	}
	if len(c.Bridges) == 0 && !c.CloudStack.Enabled {
		out[0] = core.Check{Name: "bridges", Status: core.StatusError, Summary: "no bridge is under management, so nothing is enforced",
			Evidence: "bridges: [] for host " + c.Host + " in " + c.Path, Fix: "name the bridges of VMs in " + c.Path + ", as in bridges: [\"cloudbr*\"], then ringwall config reload"}
	}
	if !c.Enforce {
		out = append(out, core.Check{Name: "enforce", Status: core.StatusWarning, Summary: "everything passes and is only counted",
			Evidence: "enforce: false", Fix: "set enforce: true in " + c.Path + ", then ringwall config reload"})
	}
	return out
}

func engineChecks(s engine.Status) []core.Check {
	var out []core.Check
	for _, p := range s.Points {
		k := core.Check{Name: "in-sync", Summary: "what is wanted is enforced"}
		if !p.InSync {
			k.Status, k.Summary, k.Evidence = core.StatusError, "what is wanted is not all enforced", cmp.Or(p.Reason, p.WatchError)
			k.Fix = "ringwall status shows the NICs that it concerns; the agent goes on trying"
		}
		out = append(out, k)
	}
	for _, text := range s.Problems {
		out = append(out, core.Check{Name: "desired-state", Status: core.StatusError, Summary: text})
	}
	return out
}
