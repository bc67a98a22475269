package iptables_test

import (
	"strings"
	"testing"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
)

// The rules that CloudStack's verify_network_rules looks for stand as it spells
// them, in its order.
func TestCloudStackFindsItsRules(t *testing.T) {
	s := newSite(t)
	b := s.open(iptables.Driver(), core.Settings{"layout": "kvm", "variant": "nft"})
	labtest.Check(t, b.Sync(t.Context(), compile(t, two(3)).Ruleset))

	inOrder(t, s.run("iptables-nft-save -t filter"),
		"-A FORWARD -o cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0",
		"-A FORWARD -i cloudbr0 -m physdev --physdev-is-bridged -j BF-cloudbr0",
		"-A BF-cloudbr0 -m state --state RELATED,ESTABLISHED -j ACCEPT",
		"-A BF-cloudbr0 -m physdev --physdev-is-in --physdev-is-bridged -j BF-cloudbr0-IN",
		"-A BF-cloudbr0 -m physdev --physdev-is-out --physdev-is-bridged -j BF-cloudbr0-OUT",
		"-A BF-cloudbr0 -m physdev --physdev-out eth0 --physdev-is-bridged -j ACCEPT",
		"-A BF-cloudbr0-IN -m physdev --physdev-in vnet0 --physdev-is-bridged -j i-2-7-def",
		"-A BF-cloudbr0-OUT -m physdev --physdev-out vnet0 --physdev-is-bridged -j i-2-7-def",
		"-A i-2-7-def -m state --state RELATED,ESTABLISHED -j ACCEPT",
		"-A i-2-7-def -p udp -m physdev --physdev-in vnet0 --physdev-is-bridged -m udp --sport 68 --dport 67 -j ACCEPT",
		"-A i-2-7-def -p udp -m physdev --physdev-out vnet0 --physdev-is-bridged -m udp --sport 67 --dport 68 -j ACCEPT",
		"-A i-2-7-def -p udp -m physdev --physdev-in vnet0 --physdev-is-bridged -m udp --sport 67 -j DROP",
		"-A i-2-7-def -m physdev --physdev-in vnet0 --physdev-is-bridged -m set ! --match-set i-2-7-VM src -j DROP",
		"-A i-2-7-def -m physdev --physdev-out vnet0 --physdev-is-bridged -m set ! --match-set i-2-7-VM dst -j DROP",
		"-A i-2-7-def -p udp -m physdev --physdev-in vnet0 --physdev-is-bridged -m set --match-set i-2-7-VM src -m udp --dport 53 -j RETURN",
		"-A i-2-7-def -p tcp -m physdev --physdev-in vnet0 --physdev-is-bridged -m set --match-set i-2-7-VM src -m tcp --dport 53 -j RETURN",
		"-A i-2-7-def -m physdev --physdev-in vnet0 --physdev-is-bridged -m set --match-set i-2-7-VM src -j i-2-7-VM-eg",
		"-A i-2-7-def -m physdev --physdev-out vnet0 --physdev-is-bridged -j i-2-7-VM",
	)
	mac := "02:00:00:00:00:0a"
	inOrder(t, s.run("ebtables-nft-save"),
		"-A PREROUTING -i vnet0 -j i-2-7-VM-in",
		"-A POSTROUTING -o vnet0 -j i-2-7-VM-out",
		"-A i-2-7-VM-in -j i-2-7-VM-in-src",
		"-A i-2-7-VM-in -p ARP -j i-2-7-VM-in-ips",
		"-A i-2-7-VM-in -p ARP --arp-op Request -j ACCEPT",
		"-A i-2-7-VM-in -p ARP --arp-op Reply -j ACCEPT",
		"-A i-2-7-VM-in -p ARP -j DROP",
		"-A i-2-7-VM-in-ips -p ARP -s "+mac+" --arp-ip-src 10.0.0.10 --arp-mac-src "+mac+" -j RETURN",
		"-A i-2-7-VM-in-ips -j DROP",
		"-A i-2-7-VM-in-src -s "+mac+" -j RETURN",
		"-A i-2-7-VM-in-src -j DROP",
		"-A i-2-7-VM-out -p ARP --arp-op Reply -j i-2-7-VM-out-dst",
		"-A i-2-7-VM-out -p ARP -j i-2-7-VM-out-ips",
		"-A i-2-7-VM-out -p ARP --arp-op Request -j ACCEPT",
		"-A i-2-7-VM-out -p ARP --arp-op Reply -j ACCEPT",
		"-A i-2-7-VM-out -p ARP -j DROP",
		"-A i-2-7-VM-out-dst -p ARP --arp-op Reply --arp-mac-dst "+mac+" -j RETURN",
		"-A i-2-7-VM-out-dst -p ARP --arp-op Reply -j DROP",
		"-A i-2-7-VM-out-ips -p ARP --arp-ip-dst 10.0.0.10 -j RETURN",
		"-A i-2-7-VM-out-ips -j DROP",
	)
	if set := s.run("ipset list i-2-7-VM"); !strings.Contains(set, "Type: hash:ip") || !strings.Contains(set, "\n10.0.0.10\n") {
		t.Error(set)
	}
}

// inOrder: each chain's rules are there in their order.
func inOrder(t *testing.T, saved string, rules ...string) {
	t.Helper()
	at := map[string]int{}
	lines := strings.Split(saved, "\n")
	for _, want := range rules {
		chain := strings.Fields(want)[1]
		found := -1
		for i := at[chain]; i < len(lines); i++ {
			if lines[i] == want {
				found = i
				break
			}
		}
		if found < 0 {
			t.Errorf("no rule, or not in its place: %s", want)
			continue
		}
		at[chain] = found + 1
	}
}
