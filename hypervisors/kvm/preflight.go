package kvm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Preflight implements core.HypervisorAdapter.
func (a *Adapter) Preflight(ctx context.Context) ([]core.Check, error) {
	daemon := a.checkLibvirt(ctx)
	checks := []core.Check{daemon, a.checkBridgeNetfilter()}
	for _, check := range a.o.Checks {
		checks = append(checks, check())
	}
	if daemon.Status != core.StatusOK {
		return checks, nil
	}
	domains, err := a.domains(ctx)
	if err != nil {
		return nil, err
	}
	return append(checks, a.checkBridges(domains), checkFilters(domains), checkBypass(domains), checkProblems(domains)), nil
}

func (a *Adapter) checkLibvirt(ctx context.Context) core.Check {
	v, err := a.LibvirtVersion(ctx)
	if err != nil {
		return core.Check{Name: "libvirt", Status: core.StatusError, Summary: "libvirt's QEMU driver cannot be reached",
			Evidence: err.Error(), Fix: "systemctl start libvirtd (or virtqemud.socket), or name its socket: uri: qemu+unix:///system?socket=PATH"}
	}
	return core.Check{Name: "libvirt", Summary: "libvirt " + v.String() + " answers"}
}

// checkBridgeNetfilter only warns: a backend may do without. Each backend's own
// preflight has the last word.
func (a *Adapter) checkBridgeNetfilter() core.Check {
	file := filepath.Join(a.o.Proc, "sys/net/bridge/bridge-nf-call-iptables")
	if _, err := os.Stat(file); err != nil {
		return core.Check{Name: "br-netfilter", Status: core.StatusWarning,
			Summary:  "br_netfilter is not loaded: bridged packets do not meet the host's connection tracking",
			Evidence: err.Error(),
			Fix:      "modprobe br_netfilter; echo br_netfilter > /etc/modules-load.d/ringwall.conf"}
	}
	return core.Check{Name: "br-netfilter", Summary: "br_netfilter is loaded"}
}

// checkBridges looks at every bridge that a NIC is plugged into.
func (a *Adapter) checkBridges(domains []Domain) core.Check {
	users := map[string]string{} // bridge -> a NIC on it
	virtual := map[string]bool{} // by virtualport or master: Open vSwitch
	for _, d := range domains {
		for _, i := range d.Interfaces {
			if name := i.Bridge; name != "" {
				users[name] = d.Name + ": " + i.describe()
				virtual[name] = virtual[name] || i.OpenVSwitch
			}
		}
	}
	var bad []string
	for _, name := range slices.Sorted(maps.Keys(users)) {
		l, err := a.o.Links.Link(name)
		switch {
		case virtual[name] || l.Kind == kindOVS:
			bad = append(bad, fmt.Sprintf("bridge %s (%s) is Open vSwitch, which no security group here reaches", name, users[name]))
		case errors.Is(err, core.ErrNotFound):
			bad = append(bad, fmt.Sprintf("bridge %s (%s) does not exist", name, users[name]))
		case err != nil:
			bad = append(bad, err.Error())
		case l.Kind != kindBridge:
			bad = append(bad, fmt.Sprintf("bridge %s (%s) is no bridge but a %s device", name, users[name], l.Kind))
		}
	}
	if len(bad) > 0 {
		return core.Check{Name: "bridges", Status: core.StatusError, Summary: summary(bad), Evidence: strings.Join(bad, "\n"),
			Fix: "plug the NICs into Linux bridges (virsh edit: <interface type='bridge'> without <virtualport>)"}
	}
	return core.Check{Name: "bridges", Summary: fmt.Sprintf("%d bridges with VMs, all of them Linux bridges", len(users))}
}

// checkFilters: libvirt's nwfilter writes rules for a tap whenever it pleases;
// two owners of one port cannot both be right.
func checkFilters(domains []Domain) core.Check {
	found := collect(domains, func(i Interface) string {
		if i.Filter == "" {
			return ""
		}
		return "nwfilter " + i.Filter
	})
	if len(found) > 0 {
		return core.Check{Name: "nwfilter", Status: core.StatusError,
			Summary: "libvirt's nwfilter guards NICs too: " + summary(found), Evidence: strings.Join(found, "\n"),
			Fix: "take <filterref> out (virsh edit DOMAIN, then start it again), and put its addresses into metadata"}
	}
	return core.Check{Name: "nwfilter", Summary: "no NIC has an nwfilter"}
}

// checkBypass names NICs whose packets never meet a bridge of the host.
func checkBypass(domains []Domain) core.Check {
	found := collect(domains, func(i Interface) string {
		switch i.Type {
		case "bridge", "network", "ethernet":
			if i.Bridge != "" || i.OpenVSwitch || i.Device == "" {
				return "" // on a bridge, or shown by the check of bridges, or not there yet
			}
		}
		return "type " + i.Type + ", not on a bridge"
	})
	if len(found) > 0 {
		return core.Check{Name: "unfiltered-nics", Status: core.StatusWarning,
			Summary: "NICs that no security group can reach: " + summary(found), Evidence: strings.Join(found, "\n"),
			Fix: "use <interface type='bridge'> for NICs that must be filtered"}
	}
	return core.Check{Name: "unfiltered-nics", Summary: "every NIC is on a bridge"}
}

func checkProblems(domains []Domain) core.Check {
	var found []string
	for _, d := range domains {
		for _, p := range d.Problems {
			for line := range strings.Lines(p.Error()) {
				found = append(found, d.Name+": "+strings.TrimSpace(line))
			}
		}
	}
	if len(found) > 0 {
		return core.Check{Name: "domains", Status: core.StatusError,
			Summary: "parts of domains cannot be used, and what they concern stays closed: " + summary(found), Evidence: strings.Join(found, "\n"),
			Fix: "correct it: virsh metadata DOMAIN --uri " + Namespace + " --key " + Key + " --live --config --edit, or virsh edit DOMAIN"}
	}
	return core.Check{Name: "domains", Summary: fmt.Sprintf("%d running domains, all of them understood", len(domains))}
}

func collect(domains []Domain, what func(Interface) string) (found []string) {
	for _, d := range domains {
		for _, i := range d.Interfaces {
			if w := what(i); w != "" {
				found = append(found, fmt.Sprintf("%s: %s: %s", d.Name, i.describe(), w))
			}
		}
	}
	return found
}

// summary is the first of them, on one line.
func summary(found []string) string {
	if len(found) == 1 {
		return found[0]
	}
	return fmt.Sprintf("%s, and %d more", found[0], len(found)-1)
}
