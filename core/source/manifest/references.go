package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// references yields every place where m names a group, with its path.
func (m Manifest) references(yield func(path, group string)) {
	for i, g := range m.Groups {
		for j, r := range g.Rules {
			if r.Peers == nil {
				continue
			}
			side := map[core.Direction]string{core.Ingress: "from", core.Egress: "to"}[r.Direction]
			for k, name := range r.Peers.Groups {
				yield(fmt.Sprintf("groups[%d].rules[%d].%s.groups[%d]", i, j, side, k), name)
			}
		}
	}
	for i, vm := range m.VMs {
		for j, n := range vm.NICs {
			for k, name := range n.Groups {
				yield(fmt.Sprintf("vms[%d].nics[%d].groups[%d]", i, j, k), name)
			}
		}
	}
}

// CheckGroups refuses a reference to a group that is neither in m nor, as
// exists says, anywhere else.
func (m Manifest) CheckGroups(exists func(name string) bool) error {
	own := map[string]bool{}
	for _, g := range m.Groups {
		own[g.Name] = true
	}
	var errs []error
	m.references(func(path, name string) {
		if !own[name] && !exists(name) {
			errs = append(errs, &core.FieldError{Path: path, Value: name, Reason: "there is no such group"})
		}
	})
	return errors.Join(errs...)
}

// validate is core.Validate as if every group that m refers to were there,
// with paths in the manifest's words.
func (m Manifest) validate(o ...core.ValidateOption) error {
	groups := slices.Clone(m.Groups)
	seen := map[string]bool{}
	for _, g := range groups {
		seen[g.Name] = true
	}
	m.references(func(_, name string) {
		g := core.Group{Name: name}
		// A name that no group can have stays unknown, and is refused where it stands.
		if !seen[name] && core.Validate([]core.Group{g}, nil, o...) == nil {
			groups = append(groups, g)
		}
		seen[name] = true
	})
	err := core.Validate(groups, m.VMs, o...)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	errs := slices.Clone(joined.Unwrap())
	for i, e := range errs {
		var f *core.FieldError
		if errors.As(e, &f) {
			errs[i] = &core.FieldError{Path: deviceKey(f.Path), Value: f.Value, Reason: deviceKey(f.Reason)}
		}
	}
	return errors.Join(errs...)
}

// deviceKey: the model has devices, the manifest a device, or several.
func deviceKey(path string) string {
	return strings.ReplaceAll(strings.ReplaceAll(path, ".devices[0]", ".device"), ".devices[", ".device[")
}
