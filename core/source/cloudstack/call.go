package cloudstack

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ringwall/ringwall/core"
)

// Command is what is asked, in CloudStack's own words.
type Command string

const (
	CanBridgeFirewall   Command = "can_bridge_firewall"
	DefaultNetworkRules Command = "default_network_rules"
	AddNetworkRules     Command = "add_network_rules"
	SecondaryIP         Command = "network_rules_vmSecondaryIp"
	DestroyRules        Command = "destroy_network_rules_for_vm"
	DefaultSystemVM     Command = "default_network_rules_systemvm"
	RuleLogs            Command = "get_rule_logs_for_vms"
	CleanupRules        Command = "cleanup_rules"
	PostDefaultRules    Command = "post_default_network_rules"
	VerifyRules         Command = "verify_network_rules"
	Adopt               Command = "adopt"   // ringwall install cloudstack
	Release             Command = "release" // ringwall uninstall cloudstack
)

// Commands lists what the stock script understands.
var Commands = []Command{CanBridgeFirewall, DefaultNetworkRules, DefaultSystemVM, DestroyRules, RuleLogs, AddNetworkRules,
	SecondaryIP, CleanupRules, PostDefaultRules, VerifyRules}

// Call is one call. Which fields count is up to the command; the zero value is
// what was not given.
type Call struct {
	Command     Command    `json:"command"`
	VM          string     `json:"vm,omitempty"`
	VMID        string     `json:"vm_id,omitempty"`
	IP          netip.Addr `json:"ip,omitzero"`
	IP6         netip.Addr `json:"ip6,omitzero"`
	MAC         core.MAC   `json:"mac,omitzero"`
	Device      string     `json:"device,omitempty"`
	Bridge      string     `json:"bridge,omitempty"`
	LocalBridge string     `json:"local_bridge,omitempty"`
	// Secondary addresses; prefixes longer than one address are IPv6 subnets.
	Secondary []netip.Prefix `json:"secondary,omitempty"`
	Signature string         `json:"signature,omitempty"`
	Sequence  int64          `json:"sequence,omitempty"`
	Rules     string         `json:"rules,omitempty"`
	// Separator of Rules; empty = KVM's. Calls of XenServer's plugin name neither
	// device nor bridge: those are the adapter's to say.
	Separator Separator `json:"separator,omitempty"`
	Remove    bool      `json:"remove,omitempty"` // of SecondaryIP
	FirstNIC  bool      `json:"first_nic,omitempty"`
	Check     bool      `json:"check,omitempty"`
}

// Answer is what a call says on standard output.
type Answer struct {
	Text     string   `json:"text,omitempty"`
	Warnings []string `json:"warnings,omitempty"` // for the log
	// Exit is the exit status of verify_network_rules, whose numbers mean
	// something.
	Exit int `json:"exit,omitempty"`
}

// Compiled when first needed: the command only passes values on, and is started
// anew for each call.
var (
	vmName    = form(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	vmID      = form(`^-?[0-9]{1,19}$`)
	signature = form(`^[A-Za-z0-9_]{1,128}$`)
)

func form(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// needs names the options without which a command means nothing.
func (c Command) needs(call Call) error {
	missing := func(field string, is bool) error {
		if is {
			return &core.FieldError{Path: field, Reason: "missing; " + string(c) + " needs it"}
		}
		return nil
	}
	checks := map[Command][]error{
		DefaultNetworkRules: {missing("vmname", call.VM == ""), missing("vmmac", call.MAC == core.MAC{}), missing("brname", call.Bridge == "" && call.Separator != SeparatorXenServer)},
		AddNetworkRules:     {missing("vmname", call.VM == ""), missing("vmid", call.VMID == ""), missing("sig", call.Signature == "")},
		SecondaryIP:         {missing("vmname", call.VM == ""), missing("vmmac", call.MAC == core.MAC{}), missing("nicsecips", len(call.Secondary) == 0)},
		DestroyRules:        {missing("vmname", call.VM == "")},
		DefaultSystemVM:     {missing("vmname", call.VM == "")},
		VerifyRules:         {missing("vmname", call.VM == ""), missing("vmip", !call.IP.IsValid()), missing("vmmac", call.MAC == core.MAC{})},
	}
	for _, err := range checks[c] {
		if err != nil {
			return err
		}
	}
	return nil
}

// check is what every call must pass, whoever made it.
func (c Call) check() error {
	if !slices.Contains(Commands, c.Command) && c.Command != Adopt && c.Command != Release {
		return &core.FieldError{Path: "command", Value: clip(strconv.Quote(string(c.Command))), Reason: "unknown"}
	}
	for _, f := range []struct {
		name, value string
		form        func() *regexp.Regexp
		reason      string
	}{
		{"vmname", c.VM, vmName, "not an instance name; use letters, digits and . _ -"},
		{"vmid", c.VMID, vmID, "not a number"},
		{"sig", c.Signature, signature, "not a signature"},
	} {
		if f.value != "" && !f.form().MatchString(f.value) {
			return &core.FieldError{Path: f.name, Value: clip(strconv.Quote(f.value)), Reason: f.reason}
		}
	}
	for _, f := range [][2]string{{"vif", c.Device}, {"brname", c.Bridge}, {"localbrname", c.LocalBridge}} {
		if f[1] == "" {
			continue
		}
		if p, err := core.ParsePattern(f[1]); err != nil || strings.HasSuffix(string(p), "*") {
			return &core.FieldError{Path: f[0], Value: clip(strconv.Quote(f[1])), Reason: "not an interface name"}
		}
	}
	if c.IP.IsValid() && !c.IP.Is4() {
		return &core.FieldError{Path: "vmip", Value: c.IP.String(), Reason: "not an IPv4 address"}
	}
	if c.IP6.IsValid() && (!c.IP6.Is6() || c.IP6.Zone() != "") {
		return &core.FieldError{Path: "vmip6", Value: c.IP6.String(), Reason: "not an IPv6 address"}
	}
	return c.Command.needs(c)
}

// ParseSecondary reads --nicsecips: addresses, each followed by ;. "0;" and
// nothing at all mean none.
func ParseSecondary(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.SplitSeq(s, ";") {
		if text = strings.TrimSpace(text); text == "" || text == "0" {
			continue
		}
		p, err := parseCIDR(text)
		if err != nil {
			return nil, &core.FieldError{Path: "nicsecips", Value: clip(text), Reason: "not an IP address"}
		}
		if !p.IsSingleIP() && p.Addr().Is4() {
			return nil, &core.FieldError{Path: "nicsecips", Value: clip(text), Reason: "not one IPv4 address"}
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// ParseAction reads --action.
func ParseAction(s string) (remove bool, err error) {
	switch s {
	case "-A":
		return false, nil
	case "-D":
		return true, nil
	}
	return false, &core.FieldError{Path: "action", Value: clip(s), Reason: "use -A or -D"}
}

var systemName = regexp.MustCompile(`^[rsvl]-\d+-`)

// IsSystemVM says whether an instance name is that of a virtual router, a
// storage VM or a console proxy.
func IsSystemVM(name string) bool { return systemName.MatchString(name) }

func isUserVM(name string) bool { return strings.HasPrefix(name, "i-") }

// idOf is the VM's id in its name, i-<account>-<id>-<suffix>.
func idOf(name string) string {
	if f := strings.Split(name, "-"); len(f) >= 3 && vmID().MatchString(f[2]) {
		return f[2]
	}
	return "-1"
}

// RuleLog is what the server knows a VM's rules by.
type RuleLog struct {
	VM, VMID  string
	IP        string // of the call; may be empty
	Domain    string // id of the domain; empty = not known
	Signature string
	Sequence  int64
}

const (
	initialSignature = "_initial_"
	noSequence       = -1
	noDomain         = "None" // as Python prints it
)

func (l RuleLog) String() string {
	domain := l.Domain
	if domain == "" {
		domain = noDomain
	}
	return fmt.Sprintf("%s,%s,%s,%s,%s,%d", l.VM, l.VMID, l.IP, domain, l.Signature, l.Sequence)
}

// ParseRuleLog reads a line of six fields.
func ParseRuleLog(s string) (l RuleLog, err error) {
	f := strings.Split(strings.TrimSpace(s), ",")
	if len(f) != 6 {
		return l, fmt.Errorf("%d fields, not 6: %w", len(f), core.ErrInvalid)
	}
	l = RuleLog{VM: f[0], VMID: f[1], IP: f[2], Domain: f[3], Signature: f[4]}
	if l.Domain == noDomain {
		l.Domain = ""
	}
	if l.Sequence, err = strconv.ParseInt(f[5], 10, 64); err != nil {
		return l, fmt.Errorf("sequence number %q: %w", clip(f[5]), core.ErrInvalid)
	}
	return l, nil
}
