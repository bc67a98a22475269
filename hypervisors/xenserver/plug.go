package xenserver

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Plug is an interface that xenopsd is about to bring up, before XAPI's own
// records say that its VM runs here.
type Plug struct {
	VM    string   // UUID; empty: the VM that XAPI has under Domid on this host
	Domid xapi.Int // of the domain that is built
	VIF   uint64   // which card
	// Exists says whether an interface of the host is there already: the other
	// cards of the VM.
	Exists func(device string) bool
}

// AboutToRun is the VM of a plug as it will be.
func (a *Adapter) AboutToRun(ctx context.Context, p Plug) (core.Instance, error) {
	s, err := a.read(ctx)
	if err != nil {
		return core.Instance{}, err
	}
	v, err := a.view(s)
	if err != nil {
		return core.Instance{}, err
	}
	if v.Host == "" {
		return core.Instance{}, fmt.Errorf("which host this is; name it with hypervisor.settings.host: %w", core.ErrNotFound)
	}
	host, err := FindHost(s.Hosts, v.Host)
	if err != nil {
		return core.Instance{}, err
	}
	for ref, vm := range s.VMs {
		if vm.IsTemplate || vm.IsSnapshot || vm.IsControlDomain {
			continue
		}
		if vm.UUID != p.VM && (p.VM != "" || vm.Domid != p.Domid || vm.ResidentOn != host) {
			continue
		}
		vm.PowerState, vm.ResidentOn, vm.Domid = "Running", host, p.Domid
		s.VMs[ref] = vm
		for _, card := range vm.VIFs {
			vif := s.VIFs[card]
			n, err := strconv.ParseUint(vif.Device, 10, 16)
			vif.Attached = err == nil && (n == p.VIF || p.Exists(Devices(int64(p.Domid), n)[1]))
			s.VIFs[card] = vif
		}
		in, problems, ok := s.Instance(ref, v)
		a.report(problems)
		if ok {
			return in, nil
		}
	}
	return core.Instance{}, fmt.Errorf("XAPI has no VM %q with domain %d: %w", p.VM, int64(p.Domid), core.ErrNotFound)
}
