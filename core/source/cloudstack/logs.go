package cloudstack

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/engine"
)

// standing is how the NICs of a VM are enforced.
type standing struct {
	inForce bool
	reason  string
}

// standings looks at every VM of this source that has a NIC here.
func (s *Source) standings(all map[string]record) map[string]standing {
	out := map[string]standing{}
	for _, n := range s.engine.Status().NICs {
		r, ok := all[n.VM]
		if !ok || n.State == engine.Pending || r.nic(n.NIC.MAC) == nil {
			continue
		}
		at, seen := out[n.VM]
		if !seen {
			at.inForce = true
		}
		if n.State != engine.Enforced {
			at = standing{reason: fmt.Sprintf("nic %s is %s: %s", n.NIC.MAC, n.State, n.Reason)}
		}
		out[n.VM] = at
	}
	return out
}

// ruleLogs tells of every VM that runs here. One whose rules are not in force,
// or of which nothing is known, has the number -1: the server sends its rules
// again then. It is the server's only lasting retry, so none is left out.
func (s *Source) ruleLogs() (Answer, error) {
	inv := s.engine.Inventory()
	all := records(s.engine.Snapshot())
	standings := s.standings(all)
	running := map[string]string{} // user VMs, with their domains
	for _, in := range inv.VMs {
		if isUserVM(in.VM.Name) {
			running[in.VM.Name] = in.DomainID
		}
	}
	if !inv.Adapter || !inv.Ready { // or a VM could be forgotten
		for vm := range all {
			if _, listed := running[vm]; !listed && isUserVM(vm) {
				running[vm] = ""
			}
		}
	}
	names := make([]string, 0, len(running))
	for vm := range running {
		names = append(names, vm)
	}
	slices.Sort(names)
	var a Answer
	lines := make([]string, 0, len(names))
	for _, vm := range names {
		r, known := all[vm]
		l := r.log(vm, running[vm])
		if at := standings[vm]; !at.inForce {
			l.Signature, l.Sequence = initialSignature, noSequence
			if at.reason != "" {
				a.Warnings = append(a.Warnings, "vm "+vm+": "+at.reason)
			}
		}
		lines = append(lines, l.String())
		if known && !r.Leaving && !s.released() {
			if err := s.files.correct(vm, l); err != nil {
				a.Warnings = append(a.Warnings, err.Error())
			}
		}
	}
	a.Text = strings.Join(lines, ";")
	return a, nil
}

// written puts down what is in force of a VM. The answer stands without it.
func (s *Source) written(vm string) Answer {
	r, ok := s.record(vm)
	if !ok {
		return Answer{}
	}
	in, _ := s.engine.Inventory().Find(vm)
	return s.warned(s.files.write(vm, r.log(vm, in.DomainID), r.NICs))
}

// gone removes the files of a VM.
func (s *Source) gone(vm string) Answer { return s.warned(s.files.remove(vm)) }

func (s *Source) warned(err error) Answer {
	if err == nil {
		return Answer{}
	}
	s.log.Warn("a file of the stock script's is not as it should be", "error", err)
	return Answer{Warnings: []string{err.Error()}}
}

// Exit statuses of verify_network_rules, as the stock script's.
const (
	verifyInput     = 1
	verifyAddresses = 2 // there: sets of addresses
	verifyBridge    = 3 // there: rules of the bridge
	verifyDefault   = 4 // there: default rules
	verifyMAC       = 5 // there: ebtables
)

// verify says whether a NIC is held to what the call names.
func (s *Source) verify(c Call) (Answer, error) {
	fail := func(exit int, format string, args ...any) (Answer, error) {
		return Answer{Exit: exit, Text: fmt.Sprintf(format, args...)}, nil
	}
	r, ok := s.record(c.VM)
	if !ok {
		return fail(verifyInput, "vm %s is not known", c.VM)
	}
	n := r.nic(c.MAC)
	if n == nil {
		return fail(verifyMAC, "vm %s has no NIC %s", c.VM, c.MAC)
	}
	if n.IP != c.IP || c.IP6.IsValid() && n.IP6 != c.IP6 {
		return fail(verifyAddresses, "vm %s nic %s does not have the address %s %v", c.VM, c.MAC, c.IP, c.IP6)
	}
	for _, p := range c.Secondary {
		if !slices.Contains(n.Secondary, p) {
			return fail(verifyAddresses, "vm %s nic %s does not have the address %s", c.VM, c.MAC, p.Addr())
		}
	}
	for _, st := range s.engine.Status().NICs {
		if st.VM != c.VM || st.NIC.MAC != c.MAC {
			continue
		}
		switch st.State {
		case engine.Enforced:
			return Answer{}, nil
		case engine.Unmanaged:
			return fail(verifyBridge, "vm %s nic %s: %s", c.VM, c.MAC, st.Reason)
		}
		return fail(verifyDefault, "vm %s nic %s is %s: %s", c.VM, c.MAC, st.State, st.Reason)
	}
	return Answer{}, fmt.Errorf("vm %s nic %s: %w", c.VM, c.MAC, core.ErrNotFound)
}
