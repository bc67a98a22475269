package main

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// function answers one of the plugin's functions. calls are all that it asks
// for, in order; nothing is asked when the arguments are wrong.
type function struct {
	calls func(arguments) ([]cloudstack.Call, error)
	// value is what the caller reads when all calls have succeeded; nil is true.
	value func(cloudstack.Answer) string
	// failed is what it reads when one has not.
	failed string
	// counts: the answer is how many VMs have gone.
	counts bool
	// asksHost: the host itself may be why not.
	asksHost bool
}

// functions are ours; all others are the stock plugin's.
var functions = map[string]function{
	"can_bridge_firewall":            {calls: plain(cloudstack.CanBridgeFirewall), failed: "false", asksHost: true},
	"default_network_rules":          {calls: defaultRules, failed: "false"},
	"default_network_rules_systemvm": {calls: named(cloudstack.DefaultSystemVM), failed: "false"},
	"network_rules":                  {calls: networkRules, failed: "false"},
	"network_rules_vmSecondaryIp":    {calls: secondaryIP, failed: "false"},
	"destroy_network_rules_for_vm":   {calls: named(cloudstack.DestroyRules), failed: "false"},
	"get_rule_logs_for_vms":          {calls: plain(cloudstack.RuleLogs), failed: " ", value: func(a cloudstack.Answer) string { return a.Text }},
	"cleanup_rules":                  {calls: plain(cloudstack.CleanupRules), failed: "-1", counts: true},
}

// arguments are the strings of a call. Reading keeps the first error.
type arguments struct {
	values map[string]string
	err    *error
}

func newArguments(values map[string]string) arguments { return arguments{values, new(error)} }

func (a arguments) fail(name, value, reason string) {
	if *a.err == nil {
		if len(value) > 100 {
			value = value[:100] + "..."
		}
		if value != "" {
			value = strconv.Quote(value)
		}
		*a.err = &core.FieldError{Path: name, Value: value, Reason: reason}
	}
}

func (a arguments) need(name string) string {
	v, ok := a.values[name]
	if !ok {
		a.fail(name, "", "missing")
	}
	return v
}

// address may be empty: a NIC without IPv4.
func (a arguments) address(name string) netip.Addr {
	text := strings.TrimSpace(a.need(name))
	if text == "" {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		a.fail(name, text, "not an IP address")
	}
	return ip
}

func (a arguments) mac(name string) core.MAC {
	text := a.need(name)
	m, err := core.ParseMAC(text)
	if err != nil {
		a.fail(name, text, "not the MAC address of a NIC")
	}
	return m
}

func (a arguments) number(name string) int64 {
	text := a.need(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		a.fail(name, text, "not a number")
	}
	return n
}

func plain(c cloudstack.Command) func(arguments) ([]cloudstack.Call, error) {
	return func(arguments) ([]cloudstack.Call, error) { return []cloudstack.Call{{Command: c}}, nil }
}

func named(c cloudstack.Command) func(arguments) ([]cloudstack.Call, error) {
	return func(a arguments) ([]cloudstack.Call, error) {
		return []cloudstack.Call{{Command: c, VM: a.need("vmName")}}, *a.err
	}
}

// nicCall is what tells of a NIC: bridge and devices are the adapter's to say.
func nicCall(a arguments) cloudstack.Call {
	c := cloudstack.Call{Command: cloudstack.DefaultNetworkRules, Separator: cloudstack.SeparatorXenServer,
		VM: a.need("vmName"), VMID: a.need("vmID"), MAC: a.mac("vmMAC")}
	if ip := a.address("vmIP"); ip.Is4() {
		c.IP = ip
	} else {
		c.IP6 = ip
	}
	var err error
	if c.Secondary, err = cloudstack.ParseSecondary(a.need("secIps")); err != nil {
		a.fail("secIps", a.values["secIps"], "not addresses, each followed by ;")
	}
	return c
}

func defaultRules(a arguments) ([]cloudstack.Call, error) {
	return []cloudstack.Call{nicCall(a)}, *a.err
}

// networkRules tells of the NIC first: after a migration this is the only call
// that the new host gets.
func networkRules(a arguments) ([]cloudstack.Call, error) {
	nic := nicCall(a)
	nic.Check = true
	if cloudstack.IsSystemVM(nic.VM) {
		return []cloudstack.Call{{Command: cloudstack.DefaultSystemVM, VM: nic.VM}}, *a.err
	}
	rules := cloudstack.Call{Command: cloudstack.AddNetworkRules, Separator: cloudstack.SeparatorXenServer, VM: nic.VM, VMID: nic.VMID, IP: nic.IP,
		Signature: a.need("signature"), Sequence: a.number("seqno"), Rules: a.need("rules")}
	if strings.EqualFold(a.values["deflated"], "true") {
		var err error
		if rules.Rules, err = inflate(rules.Rules); err != nil {
			a.fail("rules", rules.Rules, "not zlib in Base64: "+err.Error())
		}
	}
	return []cloudstack.Call{nic, rules}, *a.err
}

// maxRules bounds what a call inflates to.
const maxRules = 16 << 20

func inflate(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		return "", err
	}
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxRules+1))
	if err == nil && len(out) > maxRules {
		err = fmt.Errorf("more than %d bytes", maxRules)
	}
	return string(out), err
}

func secondaryIP(a arguments) ([]cloudstack.Call, error) {
	c := cloudstack.Call{Command: cloudstack.SecondaryIP, VM: a.need("vmName"), MAC: a.mac("vmMac")}
	if ip := a.address("vmSecIp"); ip.IsValid() {
		c.Secondary = []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}
	} else {
		a.fail("vmSecIp", "", "missing")
	}
	var err error
	if c.Remove, err = cloudstack.ParseAction(a.need("action")); err != nil {
		a.fail("action", a.values["action"], "use -A or -D")
	}
	return []cloudstack.Call{c}, *a.err
}

// do makes the calls and gives the value.
func (f function) do(ctx context.Context, s api.Service, calls []cloudstack.Call) (value string, warnings []string, err error) {
	before := 0
	if f.counts {
		if before, err = vms(ctx, s); err != nil {
			return "", nil, err
		}
	}
	var a cloudstack.Answer
	for _, c := range calls {
		if a, err = s.CloudStack(ctx, c); err != nil {
			return "", warnings, err
		}
		warnings = append(warnings, a.Warnings...)
	}
	switch {
	case f.asksHost:
		return "true", warnings, refusal(ctx, s)
	case f.counts:
		after, err := vms(ctx, s)
		return strconv.Itoa(max(0, before-after)), warnings, err
	case f.value != nil:
		return f.value(a), warnings, nil
	}
	return "true", warnings, nil
}

// refusal is why this host cannot be enforced on, by what the adapter finds: with
// Open vSwitch no packet meets a bridge.
func refusal(ctx context.Context, s api.Service) error {
	checks, err := s.Doctor(ctx, api.Empty{})
	if err != nil {
		return err
	}
	for _, c := range checks {
		if c.Status == core.StatusError.String() && slices.Contains([]string{"network-backend", "network-conf"}, c.Name) {
			return fmt.Errorf("%s (%s); %s: %w", c.Summary, c.Evidence, c.Fix, core.ErrUnsupported)
		}
	}
	return nil
}

// vms counts those that CloudStack has spoken of.
func vms(ctx context.Context, s api.Service) (n int, err error) {
	o, err := s.Objects(ctx, api.ObjectsRequest{All: true})
	for _, source := range o.VMSources {
		if source == "cloudstack" {
			n++
		}
	}
	return n, err
}
