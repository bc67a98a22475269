package netns

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Preflight implements core.HypervisorAdapter.
func (a *adapter) Preflight(ctx context.Context) ([]core.Check, error) {
	if err := a.mayEnter(); err != nil {
		return []core.Check{{
			Name: "namespaces", Status: core.StatusError,
			Summary: "network namespaces cannot be entered", Evidence: err.Error(),
			Fix: "run as root, or with CAP_SYS_ADMIN",
		}}, nil
	}
	s, err := a.scan(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return []core.Check{{
			Name: "namespaces", Status: core.StatusError,
			Summary: "VMs cannot be listed", Evidence: err.Error(),
			Fix: "ls -l " + a.settings.directory,
		}}, nil
	}
	checks := []core.Check{a.checkVMs(s)}
	for _, name := range s.empty {
		path := filepath.Join(a.settings.directory, name)
		checks = append(checks, core.Check{
			Name: "namespace-left-over", Status: core.StatusWarning,
			Summary:  fmt.Sprintf("%s is the name of a VM, but no namespace is mounted there", name),
			Evidence: path + " is an ordinary file",
			Fix:      "rm " + path,
		})
	}
	for _, name := range s.aliases {
		checks = append(checks, core.Check{
			Name: "namespace-named-twice", Status: core.StatusWarning,
			Summary:  fmt.Sprintf("%s is another VM's namespace, or the bridges' own; it is not taken for a VM", name),
			Evidence: filepath.Join(a.settings.directory, name) + " has the same inode as one before it",
			Fix:      "ip netns delete " + name,
		})
	}
	for _, p := range s.strays {
		checks = append(checks, core.Check{
			Name: "port-not-named", Status: core.StatusWarning,
			Summary:  fmt.Sprintf("VM %s is on bridge %s by %s, which the setting ports does not name: no policy holds there", p.vm, p.bridge, p.device),
			Evidence: "ports: " + patterns(a.settings.ports),
			Fix:      fmt.Sprintf("add %s to hypervisor.settings.ports (and to vm_ports), or: ip link set %s nomaster", p.device, p.device),
		})
	}
	return checks, nil
}

func (a *adapter) checkVMs(s *scan) core.Check {
	nics := 0
	for _, vm := range s.vms {
		nics += len(vm.nics)
	}
	return core.Check{
		Name:     "namespaces",
		Summary:  fmt.Sprintf("%d VMs with %d NICs", len(s.vms), nics),
		Evidence: fmt.Sprintf("%s: %s; ports: %s", a.settings.directory, patterns(a.settings.namespaces), patterns(a.settings.ports)),
	}
}

// mayEnter goes where it is already, which asks for the same capability.
func (a *adapter) mayEnter() error {
	h, err := netlink.NewHandleAt(netns.NsHandle(a.own.Fd()), unix.NETLINK_ROUTE)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setns: %w", err)
	}
	if err != nil {
		return err
	}
	h.Close()
	return nil
}

func patterns(ps []core.Pattern) string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}
