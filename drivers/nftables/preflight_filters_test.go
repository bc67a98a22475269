package nftables

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

// Foreign rules that drop bridged packets. Each fix must mend it.
func TestPreflightForeignFilters(t *testing.T) {
	for _, c := range []struct{ name, rules, seen, fix string }{
		{"Docker's policy", "iptables-nft -P FORWARD DROP", "policy drop", "iptables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT"},
		{"ip6tables", "ip6tables-nft -P FORWARD DROP", "policy drop", "ip6tables -I FORWARD"},
		{"iptables-legacy", "iptables-legacy -P FORWARD DROP", "-P FORWARD DROP", "iptables-legacy -t filter -I FORWARD"},
		{"a chain of iptables-legacy", "iptables-legacy -N X; iptables-legacy -A X -m comment --comment 'no thanks' -j REJECT; iptables-legacy -A FORWARD -i br+ -g X", "no thanks", "iptables-legacy -t filter -I FORWARD"},
		{"a reject at the end", "iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -j REJECT", "REJECT", "iptables -I FORWARD"},
		{"another table", "nft 'add table inet f; add chain inet f fw {type filter hook forward priority 0; policy drop;}; add rule inet f fw ct state established accept'", "policy drop", `nft 'insert rule inet f fw iifname "br0" oifname "br0" accept'`},
		{"a chain of a chain", "nft 'add table inet f; add chain inet f fw {type filter hook forward priority 10;}; add chain inet f x; add rule inet f x iifname \"br*\" meta nfproto ipv6 drop; add rule inet f fw jump x'", "nfproto", "nft 'insert rule inet f fw"},
		{"before routing", "nft 'add table ip f; add chain ip f pre {type filter hook prerouting priority -300; policy drop;}'", "prerouting", `nft 'insert rule ip f pre iifname "br0" accept'`},
		{"ebtables", "ebtables-nft -P FORWARD DROP", "policy drop", "ebtables -t filter -I FORWARD -j ACCEPT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.sync()
			p.run(c.rules)
			got := p.expect("foreign-filters", core.StatusError)
			contains(t, "the evidence", got.Evidence, c.seen)
			contains(t, "the fix", got.Fix, c.fix)
			p.run(got.Fix)
			p.expectHealth()
		})
	}
}

// What the walk takes for granted about bridged packets, on packets: they end in
// a chain that is objected to, and get through after the fix.
func TestPreflightFiltersOnPackets(t *testing.T) {
	for name, rules := range map[string]string{
		"iptables":    "iptables-nft -P FORWARD DROP",
		"legacy":      "iptables-legacy -P FORWARD DROP",
		"forward":     "nft 'add table inet f; add chain inet f fw {type filter hook forward priority 0; policy drop;}'",
		"prerouting":  "nft 'add table ip f; add chain ip f pre {type filter hook prerouting priority 0; policy drop;}'",
		"postrouting": "nft 'add table ip f; add chain ip f post {type filter hook postrouting priority 0; policy drop;}'",
		"ebtables":    "ebtables-nft -A FORWARD -j DROP",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			labtest.Check(t, s.backend.Sync(t.Context(), s.compile(t)))
			watch := labtest.Observe(t, s.a.Port(0), s.b.Port(0))
			port := uint16(1000)
			arrives := func() bool {
				port++
				f := lab.FlowBetween(s.a.Port(0), s.b.Port(0), core.IPv4)
				return labtest.Send(t, watch, lab.Probe{Name: "a>b", From: s.a.Port(0), Frame: f.SYN(port, 80)})[0].At(s.b.Port(0))
			}
			p := &patient{t, s.host, s.backend, systemFiles()}
			p.files.enabled = "" // whatever this machine runs
			p.expectHealth()
			if !arrives() {
				t.Fatal("nothing arrives on a healthy host")
			}
			p.run(rules)
			fix := p.expect("foreign-filters", core.StatusError).Fix
			if arrives() {
				t.Error("a packet got through")
			}
			p.run(fix)
			p.expectHealth()
			if !arrives() {
				t.Errorf("%s does not let packets through", fix)
			}
		})
	}
}

// Rules of others that have nothing to say about bridged packets.
func TestPreflightHarmlessFilters(t *testing.T) {
	for name, rules := range map[string]string{
		"our own way out":      "iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
		"legacy, by bridge":    "iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -i br0 -o br0 -j ACCEPT",
		"other devices":        "iptables-nft -A FORWARD -i docker0 -j DROP; iptables-nft -A FORWARD ! -i br0 -j DROP; iptables-legacy -A FORWARD ! -i br0 -j DROP",
		"conditions":           "iptables-nft -A FORWARD -m conntrack --ctstate INVALID -j DROP; nft 'add table inet f; add chain inet f fw {type filter hook forward priority 0;}; add rule inet f fw tcp dport 25 drop'",
		"input and output":     "iptables-nft -P INPUT DROP; nft 'add table inet f; add chain inet f in {type filter hook input priority 0; policy drop;}'",
		"returns":              "iptables-nft -N X; iptables-nft -A X -j RETURN; iptables-nft -A X -j DROP; iptables-nft -A FORWARD -j X",
		"targets that go on":   "iptables-nft -t mangle -A FORWARD -j MARK --set-xmark 0x1/0xf; iptables-legacy -t mangle -A FORWARD -j MARK --set-xmark 0x1/0xf",
		"the index of another": "nft 'add table inet f; add chain inet f fw {type filter hook forward priority 0;}; add rule inet f fw iif lo drop'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.sync()
			p.run(rules)
			p.expectHealth()
		})
	}
}
