package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
)

// State is how a NIC stands.
type State uint8

const (
	// Enforced: the point holds it to exactly what is wanted.
	Enforced State = iota + 1
	// Pending: it does not run here.
	Pending
	// Closed: it passes nothing, because it has no policy or none was taken.
	Closed
	// Stale: it is held to an older policy, older rules or older members.
	Stale
	// Conflict: two sources or two NICs claim the same.
	Conflict
	// ClosedPort: a port that looks like a VM's, which no adapter knows.
	ClosedPort
	// Unmanaged: it is on a bridge, or at a port, that is not under management.
	Unmanaged
)

var stateNames = [...]string{"", "enforced", "pending", "closed", "stale", "conflict", "closed-port", "unmanaged"}

func (s State) String() string { return stateNames[s] }

// MarshalText and UnmarshalText make a State a word in JSON and YAML.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames[:], string(b))
	if i < 1 {
		return fmt.Errorf("%q is not a state: %w", b, core.ErrInvalid)
	}
	*s = State(i)
	return nil
}

// NICStatus says how one NIC stands and why.
type NICStatus struct {
	NIC     core.NICKey `json:"nic,omitzero"` // zero for a ClosedPort
	VM      string      `json:"vm,omitempty"`
	Source  string      `json:"source,omitempty"` // who speaks for it; empty = nobody
	Point   string      `json:"point,omitempty"`
	Bridge  string      `json:"bridge,omitempty"`
	Devices []string    `json:"devices,omitempty"`
	Groups  []string    `json:"groups,omitempty"`
	State   State       `json:"state"`
	Reason  string      `json:"reason,omitempty"`
	// Wanted and Enforced are the policies where they differ; nil = none.
	Wanted   *core.NICPolicy `json:"wanted,omitempty"`
	Enforced *core.NICPolicy `json:"enforced,omitempty"`
}

// PointStatus says how an enforcement point stands.
type PointStatus struct {
	Name     string           `json:"name"`
	Backend  string           `json:"backend"`
	Wanted   core.Fingerprint `json:"wanted"`
	Enforced core.Fingerprint `json:"enforced"` // zero = not known
	InSync   bool             `json:"in_sync"`  // holds exactly what is wanted, flows included
	Reason   string           `json:"reason,omitempty"`
	// WatchError: what is enforced could not be read back.
	WatchError string    `json:"watch_error,omitempty"`
	Retry      time.Time `json:"retry,omitzero"` // the next attempt, after a failure
	Synced     time.Time `json:"synced,omitzero"`
	Stats      Stats     `json:"stats"`
}

// AdapterStatus says how the inventory stands.
type AdapterStatus struct {
	Name   string    `json:"name"`
	Ready  bool      `json:"ready"` // has answered
	VMs    int       `json:"vms"`
	Listed time.Time `json:"listed,omitzero"` // the last List that succeeded
	Reason string    `json:"reason,omitempty"`
}

// Status is everything in one look.
type Status struct {
	Revision uint64         `json:"revision"`
	Adapter  *AdapterStatus `json:"adapter,omitempty"`
	Points   []PointStatus  `json:"points"`
	NICs     []NICStatus    `json:"nics"`
	// Problems are faults of desired state, metadata and inventory, each with
	// what it concerns in its text.
	Problems []string `json:"problems,omitempty"`
}

// Status reads from memory; it calls nobody.
func (e *Engine) Status() Status {
	v, _ := e.now()
	s := Status{Revision: v.snapshot.Revision, Adapter: e.adapterStatus()}
	reports := map[string]report{}
	for _, name := range e.Points() {
		r, _ := e.points[name].state()
		reports[name] = r
		s.Points = append(s.Points, e.pointStatus(v, e.points[name], r))
	}
	x := newExaminer(e, v, v.targets, reports)
	devices := map[string]bool{}
	for k, n := range v.nics {
		st := x.nic(k)
		if st.State == Closed || st.State == Conflict {
			for _, d := range n.binding.Devices {
				devices[n.binding.Point+" "+d] = true
			}
		}
		s.NICs = append(s.NICs, st)
	}
	for point, r := range reports {
		for _, d := range r.closed {
			if !devices[point+" "+d] {
				s.NICs = append(s.NICs, NICStatus{Point: point, Devices: []string{d}, State: ClosedPort,
					Reason: "the port looks like a VM's, but no NIC has it"})
			}
		}
	}
	slices.SortFunc(s.NICs, func(a, b NICStatus) int {
		return cmp.Or(strings.Compare(a.VM, b.VM), compareNICs(a.NIC, b.NIC), slices.Compare(a.Devices, b.Devices))
	})
	for _, name := range slices.Sorted(maps.Keys(v.problems)) {
		s.Problems = append(s.Problems, v.problems[name].Error())
	}
	return s
}

func (e *Engine) adapterStatus() *AdapterStatus {
	if e.opts.Adapter == nil {
		return nil
	}
	e.inv.mu.Lock()
	defer e.inv.mu.Unlock()
	a := &AdapterStatus{Name: e.opts.Adapter.Info().Name, Ready: e.inv.ready, VMs: len(e.inv.vms), Listed: e.inv.listed}
	switch {
	case e.inv.err != nil:
		a.Reason = e.inv.err.Error()
	case !e.inv.emptySince.IsZero():
		a.Reason = "no VM is listed; looking again before anything is removed"
	}
	return a
}

func (e *Engine) pointStatus(v *view, p *point, r report) PointStatus {
	_, info := p.backendNow()
	s := PointStatus{Name: p.name, Backend: info.Name, Wanted: v.targets[p.name].Fingerprint, Retry: r.retryAt, Synced: r.synced, Stats: r.stats}
	if r.known {
		s.Enforced = r.enforced.Fingerprint
	}
	s.InSync = r.clean() && s.Enforced == s.Wanted
	switch {
	case r.err != nil:
		s.Reason = r.err.Error()
	case len(r.affected) > 0:
		s.Reason = fmt.Sprintf("%d NICs are not held to what is wanted", len(r.affected))
	case !v.ready:
		s.Reason = "the hypervisor adapter has not answered yet; what is enforced stays as it is"
	case !s.InSync:
		s.Reason = "being written"
	}
	if r.watchErr != nil {
		s.WatchError = r.watchErr.Error()
	}
	return s
}

// examiner compares what is wanted with what is enforced.
type examiner struct {
	*view
	engine  *Engine
	targets map[string]*target
	reports map[string]report
	// differ has, by point, the groups whose rules or remote members are not
	// enforced as wanted. A point in sync has none.
	differ map[string]map[string]bool
}

func newExaminer(e *Engine, v *view, targets map[string]*target, reports map[string]report) *examiner {
	x := &examiner{view: v, engine: e, targets: targets, reports: reports, differ: map[string]map[string]bool{}}
	for name, r := range reports {
		if t := targets[name]; t.Fingerprint != r.enforced.Fingerprint {
			x.differ[name] = differingGroups(t.Ruleset, r.enforced.Ruleset)
		}
	}
	return x
}

func differingGroups(want, have core.Ruleset) map[string]bool {
	out := map[string]bool{}
	for name, g := range want.Groups {
		same := slices.Equal(g.Entries, have.Groups[name].Entries) && !slices.ContainsFunc(g.Entries, func(e core.Entry) bool {
			return e.Peer.Group != "" && !slices.Equal(want.Sets[e.Peer.Group].Members, have.Sets[e.Peer.Group].Members)
		})
		if !same {
			out[name] = true
		}
	}
	return out
}

func (x *examiner) nic(k core.NICKey) NICStatus {
	n := x.nics[k]
	s := NICStatus{NIC: k, VM: n.vm, Source: n.source, Point: n.binding.Point, Bridge: n.binding.Bridge, Devices: n.binding.Devices, Groups: n.groups}
	s.State, s.Reason = x.placed(n)
	if s.State != 0 {
		return s
	}
	t := x.targets[n.binding.Point]
	want, wanted := t.NICs[k]
	if !wanted {
		s.State, s.Reason = Closed, text(n.problem)
		if errors.Is(n.problem, core.ErrConflict) {
			s.State = Conflict
		}
		if t.err != nil {
			s.Reason = t.err.Error()
		}
		return s
	}
	r := x.reports[n.binding.Point]
	have, has := r.enforced.NICs[k]
	differs := !want.Equal(have) || !r.known || slices.ContainsFunc(want.Groups, func(g string) bool { return x.differ[n.binding.Point][g] })
	switch {
	case !differs && n.problem != nil:
		s.State, s.Reason = Conflict, text(n.problem)
	case !differs:
		s.State = Enforced
	default:
		s.State, s.Wanted = Closed, &want
		if has {
			s.Enforced = &have
		}
		if has && !isBlank(have) {
			s.State = Stale
		}
		s.Reason = cmp.Or(text(r.affected[k]), text(r.err), "being written")
		if !r.started { // nobody knows better
			s.State, s.Reason = Stale, "it is as it was before the start: "+s.Reason
		}
	}
	return s
}

// placed says how a NIC stands that is no concern of any ruleset's.
func (x *examiner) placed(n *nic) (State, string) {
	b := n.binding
	_, reached := x.engine.points[b.Point]
	switch {
	case !n.present && n.problem != nil:
		return Conflict, text(n.problem)
	case !n.present:
		return Pending, "it does not run here"
	case !reached:
		return Pending, fmt.Sprintf("it runs at enforcement point %q, which has no backend here", b.Point)
	case !x.options.ManagesBridge(b.Bridge):
		return Unmanaged, fmt.Sprintf("bridge %q is not under management", b.Bridge)
	case n.source == "" && n.problem != nil && slices.ContainsFunc(b.Devices, func(d string) bool { return !x.options.IsVMPort(d) }):
		return Unmanaged, fmt.Sprintf("%v; devices %v do not look like a VM's and pass like an uplink: add them to vm_ports", n.problem, b.Devices)
	}
	return 0, ""
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
