package vmops

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// stockPlugin is the plugin's name in dom0.
const stockPlugin = "vmops"

// maxArgument bounds the plugin's only argument: Linux takes less than 128 KiB
// in one, and the rest of the call has its share.
const maxArgument = 120 << 10

func (b *Backend) call(ctx context.Context, l *look, function string, args map[string]string) (string, error) {
	out, err := b.xapi.CallPlugin(ctx, l.host, stockPlugin, function, args)
	if err != nil {
		return "", fmt.Errorf("host %s: vmops %s: %w", l.info.Name, function, err)
	}
	return strings.TrimSpace(out), nil
}

// demand calls a function that answers true or false.
func (b *Backend) demand(ctx context.Context, l *look, function string, args map[string]string) error {
	out, err := b.call(ctx, l, function, args)
	if err == nil && out != "true" {
		err = fmt.Errorf("host %s: vmops %s answers %q; /var/log/cloud/cloud.log there says why", l.info.Name, function, out)
	}
	return err
}

func (b *Backend) defaults(ctx context.Context, l *look, p program) error {
	if p.system {
		return b.demand(ctx, l, "default_network_rules_systemvm", map[string]string{"vmName": p.name})
	}
	return b.demand(ctx, l, "default_network_rules", map[string]string{
		"vmName": p.name, "vmIP": p.address, "vmMAC": p.nic.MAC.String(), "vmID": p.id(), "secIps": p.secIPs()})
}

func (b *Backend) userRules(ctx context.Context, l *look, p program, seq int64) error {
	args := map[string]string{"vmName": p.name, "vmIP": p.address, "vmMAC": p.nic.MAC.String(), "vmID": p.id(), "secIps": p.secIPs(),
		"signature": signature(p.rules), "seqno": strconv.FormatInt(seq, 10), "deflated": "true", "rules": deflate(p.rules)}
	if failsToInflate(l.info) {
		args["deflated"], args["rules"] = "false", p.rules
	}
	return b.demand(ctx, l, "network_rules", args)
}

// failsToInflate: the plugin for Python 3, which XCP-ng 8.3 and XenServer 8.4
// get, takes what it inflates for text and fails on every deflated list.
func failsToInflate(h xapi.Host) bool {
	major, rest, _ := strings.Cut(h.SoftwareVersion["product_version"], ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (a > 8 || a == 8 && b >= 3)
}

// checkSize refuses rules that would not fit on the plugin's command line.
func checkSize(h xapi.Host, p program) error {
	size := len(deflate(p.rules))
	if failsToInflate(h) {
		size = len(p.rules)
	}
	if size+len(p.secIPs()) > maxArgument {
		return &core.ObjectError{NICs: []core.NICKey{p.nic}, Err: fmt.Errorf(
			"the rules of %s take %d bytes, and vmops can be given %d; use wider CIDRs: %w", p.name, size, maxArgument, core.ErrUnsupported)}
	}
	return nil
}

func (b *Backend) secondary(ctx context.Context, l *look, p program, address, action string) error {
	return b.demand(ctx, l, "network_rules_vmSecondaryIp", map[string]string{
		"vmName": p.name, "vmMac": p.nic.MAC.String(), "vmSecIp": address, "action": action})
}

func (b *Backend) destroy(ctx context.Context, l *look, name string) error {
	return b.demand(ctx, l, "destroy_network_rules_for_vm", map[string]string{"vmName": name})
}
