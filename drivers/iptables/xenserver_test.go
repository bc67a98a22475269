package iptables_test

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
)

// The chains of vmops stand as it spells them, in its order.
func TestXenServerLayout(t *testing.T) {
	s := newSite(t)
	b := s.open(iptables.Driver(), core.Settings{"layout": "xenserver", "variant": "nft"})
	labtest.Check(t, b.Sync(t.Context(), compile(t, two(3)).Ruleset))

	inOrder(t, s.run("iptables-nft-save -t filter"),
		"-A FORWARD -o cloudbr0 -m physdev --physdev-is-bridged -j BRIDGE-FIREWALL",
		"-A FORWARD -i cloudbr0 -m physdev --physdev-is-bridged -j BRIDGE-FIREWALL",
		"-A BRIDGE-FIREWALL -j BRIDGE-DEFAULT-FIREWALL",
		"-A BRIDGE-FIREWALL -m physdev --physdev-in vnet0 --physdev-is-bridged -j i-2-7-VM-def",
		"-A BRIDGE-FIREWALL -m physdev --physdev-out vnet0 --physdev-is-bridged -j i-2-7-VM-def",
		"-A BRIDGE-FIREWALL -m physdev --physdev-out eth0 --physdev-is-bridged -j ACCEPT",
		"-A BRIDGE-FIREWALL -o cloudbr0 -m physdev --physdev-is-bridged -j DROP",
		"-A BRIDGE-DEFAULT-FIREWALL -m state --state RELATED,ESTABLISHED -j ACCEPT",
		"-A BRIDGE-DEFAULT-FIREWALL -p udp -m physdev --physdev-is-bridged -m udp --sport 68 --dport 67 -j ACCEPT",
		"-A BRIDGE-DEFAULT-FIREWALL -p udp -m physdev --physdev-is-bridged -m udp --sport 67 --dport 68 -j ACCEPT",
		"-A i-2-7-VM-def -p udp -m physdev --physdev-in vnet0 --physdev-is-bridged -m set --match-set i-2-7-VM src -m udp --dport 53 -j RETURN",
		"-A i-2-7-VM-def -m physdev --physdev-in vnet0 --physdev-is-bridged -m set ! --match-set i-2-7-VM src -j DROP",
		"-A i-2-7-VM-def -m physdev --physdev-out vnet0 --physdev-is-bridged -m set ! --match-set i-2-7-VM dst -j DROP",
		"-A i-2-7-VM-def -m physdev --physdev-in vnet0 --physdev-is-bridged -m set --match-set i-2-7-VM src -j i-2-7-VM-eg",
		"-A i-2-7-VM-def -m physdev --physdev-out vnet0 --physdev-is-bridged -j i-2-7-VM",
	)
	if o, err := b.Observe(t.Context()); err != nil || len(o.Drift) > 0 {
		t.Error(o.Drift, err)
	}
}
