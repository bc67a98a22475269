package xenserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Preflight implements core.HypervisorAdapter.
func (a *Adapter) Preflight(ctx context.Context) ([]core.Check, error) {
	s, err := a.read(ctx)
	if err != nil {
		return append([]core.Check{{Name: "xapi", Status: core.StatusError, Summary: "XAPI cannot be reached", Evidence: err.Error(),
			Fix: "xe-toolstack-restart on the host, or correct hypervisor.settings (hosts, password_file, pins)"}}, a.local(ctx)...), nil
	}
	v, err := a.view(s)
	if err != nil {
		return append([]core.Check{{Name: "xapi", Status: core.StatusError, Summary: "the host is not in the pool", Evidence: err.Error(),
			Fix: "name it with hypervisor.settings.host"}}, a.local(ctx)...), nil
	}
	instances, problems := s.Instances(v)
	checks := []core.Check{{Name: "xapi", Summary: fmt.Sprintf("XAPI answers: %d hosts, %d VMs in view", len(s.Hosts), len(instances))}}
	for _, ref := range inView(s, v) {
		checks = append(checks, CheckNetworkBackend(s.Hosts[ref]))
	}
	return append(append(checks, checkProblems(problems, len(instances))), a.local(ctx)...), nil
}

func inView(s *Site, v View) (out []xapi.Ref) {
	for ref, h := range s.Hosts {
		if v.Host == "" || h.UUID == v.Host {
			out = append(out, ref)
		}
	}
	slices.SortFunc(out, func(a, b xapi.Ref) int { return strings.Compare(s.Hosts[a].Name, s.Hosts[b].Name) })
	return out
}

const switchBackend = "xe-switch-network-backend bridge on the host, then reboot it"

// CheckNetworkBackend: under Open vSwitch packets meet no bridge hook.
func CheckNetworkBackend(h xapi.Host) core.Check {
	c := core.Check{Name: "network-backend", Evidence: "host " + h.Name + ": software_version network_backend=" + h.SoftwareVersion["network_backend"]}
	switch b := h.SoftwareVersion["network_backend"]; b {
	case "bridge":
		return core.Check{Name: c.Name, Summary: "host " + h.Name + " uses Linux bridges"}
	case "openvswitch":
		c.Status, c.Summary = core.StatusError, "host "+h.Name+" uses Open vSwitch, which no security group here reaches"
		c.Fix = switchBackend
	default:
		c.Status, c.Summary = core.StatusError, "host "+h.Name+" does not say whether it uses Linux bridges"
		c.Fix = "cat /etc/xensource/network.conf there; unless it says bridge: " + switchBackend
	}
	return c
}

func checkProblems(problems []error, vms int) core.Check {
	if len(problems) == 0 {
		return core.Check{Name: "vms", Summary: fmt.Sprintf("%d VMs in view, all of them understood", vms)}
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = strings.ReplaceAll(p.Error(), "\n", "; ")
	}
	slices.Sort(lines)
	return core.Check{Name: "vms", Status: core.StatusError, Summary: "parts of VMs cannot be used, and what they concern stays closed: " + lines[0],
		Evidence: strings.Join(lines, "\n"), Fix: "correct it: xe vif-param-set uuid=VIF other-config:ringwall-KEY=VALUE, or xe vm-param-set"}
}

// local are the checks of dom0 itself.
func (a *Adapter) local(ctx context.Context) []core.Check {
	if !a.o.Local {
		return nil
	}
	return []core.Check{a.checkNetworkConf(), a.checkSysctls(), a.checkTools(ctx)}
}

// checkNetworkConf reads what the host will use after its next start.
func (a *Adapter) checkNetworkConf() core.Check {
	file := a.path("/etc/xensource/network.conf")
	b, err := os.ReadFile(file)
	mode := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return core.Check{Name: "network-conf", Status: core.StatusWarning, Summary: "the network backend's file cannot be read", Evidence: err.Error(), Fix: "run the agent in dom0, as root"}
	case mode != "bridge":
		return core.Check{Name: "network-conf", Status: core.StatusError, Summary: "this host is set to " + mode + ", which no security group here reaches",
			Evidence: file + ": " + mode, Fix: switchBackend}
	}
	return core.Check{Name: "network-conf", Summary: "this host is set to Linux bridges"}
}

// checkSysctls only shows them: what each has to be is the backend's to say.
func (a *Adapter) checkSysctls() core.Check {
	var seen, missing []string
	for _, name := range []string{"arptables", "ip6tables", "iptables"} {
		key := "bridge-nf-call-" + name
		b, err := os.ReadFile(a.path("/proc/sys/net/bridge/" + key))
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		seen = append(seen, key+"="+strings.TrimSpace(string(b)))
	}
	if len(missing) > 0 {
		return core.Check{Name: "br-netfilter", Status: core.StatusWarning, Summary: "br_netfilter is not loaded: bridged packets do not meet the host's connection tracking",
			Evidence: strings.Join(missing, "\n"), Fix: "modprobe br_netfilter; echo br_netfilter > /etc/modules-load.d/ringwall.conf"}
	}
	return core.Check{Name: "br-netfilter", Summary: "br_netfilter is loaded: " + strings.Join(seen, ", ")}
}

// checkTools shows the kernel and the tools of dom0: they decide which driver
// it can run.
func (a *Adapter) checkTools(ctx context.Context) core.Check {
	kernel, _ := os.ReadFile(a.path("/proc/sys/kernel/osrelease"))
	lines := []string{"kernel: " + strings.TrimSpace(string(kernel))}
	var missing []string
	for _, tool := range []string{"iptables", "ebtables", "ipset"} {
		version, err := toolVersion(ctx, tool)
		if err != nil {
			missing = append(missing, tool)
			version = err.Error()
		}
		lines = append(lines, tool+": "+version)
	}
	c := core.Check{Name: "tools", Summary: strings.Join(lines, ", ")}
	if len(missing) > 0 {
		c.Status, c.Evidence = core.StatusWarning, strings.Join(lines, "\n")
		c.Summary = "missing for the iptables driver: " + strings.Join(missing, ", ")
		c.Fix = "yum install " + strings.Join(missing, " ") + ", or use the nftables driver (kernel 5.6 or newer)"
	}
	return c
}

func toolVersion(ctx context.Context, tool string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool, "-V").Output()
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}
