package live_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/live"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
)

var iptablesTarget = scenarios.Target{Driver: iptables.Driver()}

func TestIPTablesNoBlink(t *testing.T) { live.NoBlink(t, iptablesTarget) }

func TestIPTablesRevocation(t *testing.T) { live.Revocation(t, iptablesTarget) }

func TestIPTablesSpanningTree(t *testing.T) { live.SpanningTree(t, iptablesTarget) }

func TestIPTablesForeign(t *testing.T) {
	drift := func(name, object string, argv ...string) live.Tamper {
		return live.Tamper{Name: name, Drift: object, Event: core.EventDrift, By: argv[0][:min(len(argv[0]), 8)], Do: func() error { return run(argv...) }}
	}
	live.Foreign(t, iptablesTarget,
		drift("filter is flushed", "iptables filter chain FORWARD", "iptables", "-F"),
		drift("the senders' table is flushed", "ip6tables mangle chain rw-seen", "ip6tables", "-t", "mangle", "-F"),
		drift("ebtables is flushed", "ebtables nat chain PREROUTING", "ebtables", "-t", "nat", "-F"),
		drift("a rule before ours", "iptables filter chain FORWARD", "iptables", "-I", "FORWARD", "-j", "ACCEPT"),
		drift("a chain gains a rule", "iptables filter chain rw-bridged", "iptables", "-I", "rw-bridged", "-j", "ACCEPT"),
		drift("a port's guard is deleted", "netdev ringwall-ports chain vnet0-", "nft", "delete table netdev ringwall-ports"),
		live.Tamper{Name: "the bridge's netfilter is switched off", Event: core.EventRepaired, Do: func() error { return switchOff("br0") }},
	)
}
