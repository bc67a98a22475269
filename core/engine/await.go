package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// await waits for the points that a request concerns, and for no other.
func (e *Engine) await(ctx context.Context, r *request, s staged) (Result, error) {
	res := Result{Stored: true, Revision: s.revision}
	v := s.after
	if !v.ready {
		ready, err := e.readyView(ctx)
		if err != nil {
			return res, fmt.Errorf("stored, but not enforced yet: %w", err)
		}
		v = ready
	}
	c := newConcern(s, v)
	reports, targets := map[string]report{}, maps.Clone(v.targets)
	var errs []error
	for _, name := range e.Points() {
		p := e.points[name]
		if !r.everywhere && !c.point(name) {
			reports[name], _ = p.state()
			continue
		}
		rep, err := p.await(ctx, e.stopped, v.targets[name].seq, v.attempts[name])
		if reports[name] = rep; err == nil {
			err = rep.err
			targets[name] = rep.target
		}
		if err != nil {
			errs = append(errs, e.locate(name, err))
			continue
		}
		for _, k := range slices.SortedFunc(maps.Keys(rep.affected), compareNICs) {
			if r.everywhere || c.nic(rep.target.Ruleset, k) {
				errs = append(errs, e.locate(name, fmt.Errorf("nic %s: %w", k, rep.affected[k])))
			}
		}
	}
	res.NICs = c.statuses(e, targets, reports)
	if len(errs) > 0 {
		return res, fmt.Errorf("stored, but not enforced as wanted: %w", errors.Join(errs...))
	}
	return res, nil
}

// locate says where, on hosts with several points.
func (e *Engine) locate(point string, err error) error {
	if len(e.points) == 1 {
		return err
	}
	return fmt.Errorf("enforcement point %q: %w", point, err)
}

// concern is what a request may have a bearing on.
type concern struct {
	views   []*view             // before, after, now
	vms     map[core.VMKey]bool // that it names
	groups  map[string]bool     // that it names
	members map[string]bool     // groups whose members may have changed
}

func newConcern(s staged, now *view) *concern {
	c := &concern{views: []*view{s.before, s.after, now}, vms: map[core.VMKey]bool{}, groups: s.touched.Groups,
		members: maps.Clone(s.touched.Groups)}
	if c.members == nil {
		c.members = map[string]bool{}
	}
	for _, v := range c.views {
		for key := range s.touched.VMs {
			key, ok := v.keys[key]
			if !ok {
				continue
			}
			c.vms[key] = true
			for _, k := range v.byVM[key] {
				for _, g := range v.nics[k].groups {
					c.members[g] = true
				}
			}
		}
	}
	return c
}

// point says whether the request may make a difference at a point.
func (c *concern) point(name string) bool {
	for _, v := range c.views {
		t := v.targets[name]
		for key := range c.vms {
			for _, k := range v.byVM[key] {
				if n := v.nics[k]; n.present && n.binding.Point == name && v.options.ManagesBridge(n.binding.Bridge) {
					return true
				}
			}
		}
		for g := range c.groups {
			if _, ok := t.Groups[g]; ok {
				return true
			}
		}
		for g := range c.members {
			if _, ok := t.Sets[g]; ok {
				return true
			}
		}
	}
	return false
}

// nic says whether the request may make a difference to a NIC.
func (c *concern) nic(r core.Ruleset, k core.NICKey) bool {
	return c.vms[k.VM] || slices.ContainsFunc(r.NICs[k].Groups, func(g string) bool {
		return c.groups[g] || slices.ContainsFunc(r.Groups[g].Entries, func(e core.Entry) bool { return c.members[e.Peer.Group] })
	})
}

// statuses are those of the VMs that the request names, and of NICs with a
// group that it names that are not as wanted.
func (c *concern) statuses(e *Engine, targets map[string]*target, reports map[string]report) []NICStatus {
	v, _ := e.now()
	keys := map[core.NICKey]bool{}
	for vm := range c.vms {
		for _, k := range v.byVM[vm] {
			keys[k] = true
		}
	}
	for _, r := range reports {
		for k := range r.affected {
			if n := v.nics[k]; n != nil && slices.ContainsFunc(n.groups, func(g string) bool { return c.groups[g] }) {
				keys[k] = true
			}
		}
	}
	x := newExaminer(e, v, targets, reports)
	out := make([]NICStatus, 0, len(keys))
	for _, k := range slices.SortedFunc(maps.Keys(keys), compareNICs) {
		out = append(out, x.nic(k))
	}
	return out
}
