package vmops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
)

// Preflight implements core.SecurityGroupBackend. Of vmops it calls only what
// looks.
func (b *Backend) Preflight(ctx context.Context) ([]core.Check, error) {
	b.calls.Lock()
	defer b.calls.Unlock()
	l, err := b.look(ctx)
	if err != nil {
		return []core.Check{{Name: "xapi", Status: core.StatusError, Summary: "host " + b.host + " cannot be looked at", Evidence: err.Error(),
			Fix: "correct backend.settings (hosts, password_file, pins, host)"}}, nil
	}
	backend := xenserver.CheckNetworkBackend(l.info)
	checks := []core.Check{{Name: "xapi", Summary: "XAPI knows host " + l.info.Name + ", version " + l.info.SoftwareVersion["product_version"]}, backend}
	if backend.Status != core.StatusOK {
		return checks, nil
	}
	able := b.checkPlugin(ctx, l)
	checks = append(checks, able)
	if able.Status != core.StatusOK {
		return checks, nil
	}
	return append(checks, b.checkOwner(ctx, l), l.checkOthers()), nil
}

func (b *Backend) checkPlugin(ctx context.Context, l *look) core.Check {
	c := core.Check{Name: "vmops"}
	out, err := b.call(ctx, l, "can_bridge_firewall", map[string]string{"host_uuid": l.info.UUID, "instance": "VM"})
	switch {
	case errors.Is(err, core.ErrNotFound):
		c.Status, c.Summary, c.Evidence = core.StatusError, "host "+l.info.Name+" has no vmops plugin", err.Error()
		c.Fix = "install CloudStack's host plugins on it, or run the agent there"
	case err != nil:
		c.Status, c.Summary, c.Evidence = core.StatusError, "vmops on host "+l.info.Name+" fails", err.Error()
		c.Fix = "look into /var/log/cloud/cloud.log on the host"
	case out != "true":
		c.Status, c.Summary, c.Evidence = core.StatusError, "vmops on host "+l.info.Name+" says that it cannot filter bridges", "can_bridge_firewall: "+out
		c.Fix = "on the host: ebtables -V, ipset -V, and cat /etc/xensource/network.conf, which must say bridge"
	default:
		c.Summary = "vmops on host " + l.info.Name + " can filter bridges"
		if failsToInflate(l.info) {
			c.Summary += "; rules go to it in the clear, since it fails on deflated ones"
		}
	}
	return c
}

// checkOwner: vmops keeps one list of rules for a VM, and two who write it undo
// each other.
func (b *Backend) checkOwner(ctx context.Context, l *look) core.Check {
	logs, err := b.logs(ctx, l)
	if err != nil {
		return core.Check{Name: "vmops-owner", Status: core.StatusError, Summary: "the rule logs cannot be read", Evidence: err.Error(), Fix: "look into /var/log/cloud/cloud.log on the host"}
	}
	if names := l.strangers(logs); len(names) > 0 {
		return core.Check{Name: "vmops-owner", Status: core.StatusError, Summary: fmt.Sprintf("host %s has rules of %d VMs that were not written from here", l.info.Name, len(names)),
			Evidence: strings.Join(names, ", "), Fix: "use this backend only where CloudStack does not drive the pool; " + foreign(l, names).Error()}
	}
	return core.Check{Name: "vmops-owner", Summary: fmt.Sprintf("all rules on host %s were written from here (%d VMs)", l.info.Name, len(l.records))}
}

// checkOthers: the plugin closes forwarding for the whole host, and a VM that it
// was not told of gets nothing in and has its egress open.
func (l *look) checkOthers() core.Check {
	var names []string
	for key, g := range l.vms {
		if _, told := l.records[key]; g.here && !told {
			names = append(names, g.Name)
		}
	}
	if len(names) == 0 {
		return core.Check{Name: "vmops-others", Summary: "every VM on host " + l.info.Name + " is programmed"}
	}
	slices.Sort(names)
	return core.Check{Name: "vmops-others", Status: core.StatusWarning,
		Summary:  fmt.Sprintf("%d VMs on host %s have no rules: once vmops has made its own, nothing reaches them, and what they send is not looked at", len(names), l.info.Name),
		Evidence: strings.Join(names, ", "), Fix: "give each of them a policy, or move it to another host"}
}
