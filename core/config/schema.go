package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/internal/nearest"
)

// Type is what a key's value looks like.
type Type string

const (
	TypeString   Type = "string"
	TypeBool     Type = "bool"
	TypeID       Type = "name or number"
	TypeStrings  Type = "list of strings"
	TypePatterns Type = "list of names or prefixes with *"
	TypeSums     Type = "list of SHA-256 sums"
	TypeSettings Type = "map" // the schema is the driver's or adapter's own
)

// Key is one row of the schema.
type Key struct {
	Name    string // levels joined by dots; * stands for a name of the user's
	Type    Type
	Default any // nil = none
	Choices []string
	Help    string
}

// Schema lists every key that `defaults`, a cluster and a host may set.
func Schema() []Key {
	return []Key{
		{"state", TypeString, "/var/lib/ringwall", nil, "folder that holds desired state"},
		{"mode", TypeString, string(ModeAgent), []string{string(ModeAgent), string(ModeStandalone)}, "who enforces: ringwalld, or each command in process"},
		{"socket.path", TypeString, "/run/ringwall/ringwall.sock", nil, "where the agent listens"},
		{"socket.owner", TypeID, "root", nil, "user that may use the socket besides root"},
		{"socket.group", TypeID, "", nil, "group that may use the socket; empty = none"},
		{"log.level", TypeString, "info", []string{"debug", "info", "warn", "error"}, "least severe line that the agent logs"},
		{"log.format", TypeString, "text", []string{"text", "json"}, "form of the agent's log lines"},
		{"hypervisor.adapter", TypeString, NoAdapter, nil, "where VMs come from; none = what manifests say about devices counts"},
		{"hypervisor.run", TypeString, string(RunPlugin), []string{string(RunPlugin), string(RunInProcess)}, "where the adapter runs"},
		{"hypervisor.settings", TypeSettings, nil, nil, "the adapter's own settings"},
		{"backend.driver", TypeString, "nftables", nil, "what enforces"},
		{"backend.run", TypeString, string(RunInProcess), []string{string(RunInProcess), string(RunPlugin)}, "where the driver runs"},
		{"backend.settings", TypeSettings, nil, nil, "the driver's own settings"},
		{"bridges", TypePatterns, []string{}, nil, "bridges under management"},
		{"unmanaged", TypePatterns, []string{}, nil, "exceptions from bridges"},
		{"vm_ports", TypePatterns, []string{"vnet*", "tap*", "vif*"}, nil, "ports of managed bridges that are taken for VMs', and closed without a policy"},
		{"uplinks", TypePatterns, []string{}, nil, "when set, every other port of a managed bridge is taken for a VM's"},
		{"egress_default", TypeString, core.EgressUntilRules.String(), []string{core.EgressUntilRules.String(), core.EgressExplicit.String()}, "what leaves a NIC: everything until a group holds an egress rule of that family, or only what a rule allows"},
		{"always_allow", TypeStrings, []string{}, []string{AllowDNS}, "what passes without a rule: dns is 53/udp and 53/tcp out"},
		{"multicast", TypeString, core.MulticastByRules.String(), []string{core.MulticastByRules.String(), core.MulticastDrop.String()}, "how multicast and broadcast reach a NIC"},
		{"enforce", TypeBool, true, nil, "false counts what would be dropped and passes everything"},
		{"cloudstack.enabled", TypeBool, false, nil, "answer CloudStack's agent; always_allow is then [dns] and multicast is drop, where nothing else is said"},
		{"cloudstack.before_rules", TypeString, BeforeHold, []string{BeforeHold, BeforeAllow}, "what leaves a VM between its start and its first rules: ARP, ND, DHCP and DNS, or everything"},
		{"cloudstack.files", TypeString, "/var/run/cloud", nil, "folder of the rule logs that CloudStack's own script keeps"},
		{"cloudstack.lock", TypeString, "/var/lock/cloudstack_security_group.lock", nil, "lock of CloudStack's own script"},
		{"cloudstack.script", TypeString, "/usr/share/cloudstack-common/scripts/vm/network/security_group.py", nil, "where CloudStack's agent looks for its script"},
		{"cloudstack.command", TypeString, "/usr/lib/ringwall/security_group", nil, "what is put in the script's place"},
		{"cloudstack.log", TypeString, "/var/log/cloudstack/agent/security_group.log", nil, "where each call is logged, if the folder is there"},
		{"plugins.*.path", TypeString, nil, nil, "the plugin's binary; left out = " + PluginDir + "/ringwall-plugin-NAME"},
		{"plugins.*.sha256", TypeSums, nil, nil, "sums that the binary may have; several for a rolling upgrade"},
		{"plugins.*.allow_unpinned", TypeBool, false, nil, "run the plugin without a sum"},
	}
}

// check reports every key of m that the schema does not know, and every value
// that is not of its key's form. at is where m stands in the file.
func check(at string, m map[string]any, extra ...Key) error {
	c := checker{schema: append(extra, Schema()...)}
	c.level(at, "", m)
	return errors.Join(c.errs...)
}

type checker struct {
	schema []Key
	errs   []error
}

func (c *checker) fail(path, value, reason string) {
	c.errs = append(c.errs, &core.FieldError{Path: path, Value: value, Reason: reason})
}

// level checks the mapping m whose schema names begin with prefix.
func (c *checker) level(at, prefix string, m map[string]any) {
	below := c.below(prefix)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		path := join(at, name)
		next := name
		if slices.Equal(below, []string{"*"}) {
			next = "*"
		}
		if !slices.Contains(below, next) {
			c.fail(path, "", nearest.UnknownKey(name, below))
			continue
		}
		next = join(prefix, next)
		if i := slices.IndexFunc(c.schema, func(k Key) bool { return k.Name == next }); i >= 0 {
			c.leaf(path, c.schema[i], m[name])
			continue
		}
		sub, ok := m[name].(map[string]any)
		if !ok {
			c.fail(path, show(m[name]), "not a mapping; its keys are "+strings.Join(c.below(next), ", "))
			continue
		}
		c.level(path, next, sub)
	}
}

// below lists the names that may follow prefix, in schema order.
func (c *checker) below(prefix string) (out []string) {
	if prefix != "" {
		prefix += "."
	}
	for _, k := range c.schema {
		if rest, ok := strings.CutPrefix(k.Name, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

func (c *checker) leaf(path string, k Key, v any) {
	switch k.Type {
	case TypeString:
		s, ok := v.(string)
		switch {
		case !ok:
			c.fail(path, show(v), "not a string; put it in quotes")
		case k.Choices != nil:
			c.choice(path, s, k.Choices)
		}
	case TypeID:
		if !isString(v) && !isInt(v) {
			c.fail(path, show(v), "not a name or a number")
		}
	case TypeBool:
		if _, ok := v.(bool); !ok {
			c.fail(path, show(v), "not true or false")
		}
	case TypeSettings:
		if _, ok := v.(map[string]any); !ok {
			c.fail(path, show(v), "not a mapping")
		}
	case TypeStrings, TypePatterns, TypeSums:
		list, ok := v.([]any)
		if !ok {
			c.fail(path, show(v), "not a list; write [a, b]")
			return
		}
		for i, item := range list {
			c.item(path+"["+strconv.Itoa(i)+"]", k, item)
		}
	}
}

func (c *checker) item(path string, k Key, v any) {
	s, ok := v.(string)
	if !ok {
		c.fail(path, show(v), "not a string; put it in quotes")
		return
	}
	switch {
	case k.Type == TypePatterns:
		if _, err := core.ParsePattern(s); err != nil {
			c.fail(path, s, strings.TrimSuffix(err.Error(), ": "+core.ErrInvalid.Error()))
		}
	case k.Type == TypeSums:
		if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
			c.fail(path, s, "not a SHA-256 sum; use 64 hexadecimal digits, as sha256sum prints them")
		}
	case k.Choices != nil:
		c.choice(path, s, k.Choices)
	}
}

func (c *checker) choice(path, s string, choices []string) {
	if !slices.Contains(choices, s) {
		c.fail(path, s, notOneOf(s, choices))
	}
}

func notOneOf(s string, choices []string) string {
	if len(choices) == 0 {
		return "unknown; there are none here"
	}
	reason := "unknown; use " + strings.Join(choices, " or ")
	if n := nearest.Key(s, choices); n != "" {
		reason = "unknown; did you mean " + n + "? There are " + strings.Join(choices, ", ")
	}
	return reason
}

// show is a value as an error prints it.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case map[string]any, map[any]any:
		return "a mapping"
	case []any:
		return "a list"
	default:
		return strings.ReplaceAll(fmt.Sprint(v), "\n", " ")
	}
}

func isString(v any) bool { _, ok := v.(string); return ok }

func isInt(v any) bool { _, ok := v.(int); return ok }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
