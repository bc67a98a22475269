package api

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/source/manifest"
)

func world(t *testing.T) (core.Ruleset, []core.Group) {
	t.Helper()
	m, err := manifest.Parse([]byte(`
groups:
- {name: web, rules: [{direction: ingress, protocol: tcp, ports: [80]}]}
- {name: db, rules: [{direction: ingress, protocol: tcp, ports: [5432], from: {groups: [web]}}]}
vms:
- {name: web1, nics: [{mac: 02:00:00:00:00:01, bridge: br0, device: tap1, addresses: [10.0.0.1, "fd00::1"], groups: [web]}]}
- {name: db1, nics: [{mac: 02:00:00:00:00:02, bridge: br0, device: tap2, addresses: [10.0.0.2], groups: [db]}]}
- {name: far, nics: [{mac: 02:00:00:00:00:03, bridge: br1, device: tap3, addresses: [10.1.0.3], groups: [db]}]}
- name: two
  nics:
  - {mac: 02:00:00:00:00:04, bridge: br0, device: tap4, addresses: [10.0.0.4]}
  - {mac: 02:00:00:00:00:05, bridge: br0, device: tap5, addresses: [10.0.0.5], allowed_pairs: [{address: 10.0.0.99}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	rs, err := policy.Compile(policy.Input{Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"tap*"}}, Groups: m.Groups, VMs: m.VMs})
	if err != nil {
		t.Fatal(err)
	}
	return rs, m.Groups
}

func TestExplain(t *testing.T) {
	rs, groups := world(t)
	vlan, unreachable := uint16(7), uint8(3)
	for name, c := range map[string]struct {
		x      ExplainRequest
		reason core.Reason
		pass   bool
		legs   int
	}{
		"web to db":         {ExplainRequest{From: "web1", To: "db1", Protocol: "tcp", DstPort: 5432}, core.ReasonRule, true, 1},
		"wrong port":        {ExplainRequest{From: "web1", To: "db1", Protocol: "tcp", DstPort: 22}, core.ReasonIngressRules, false, 1},
		"by address":        {ExplainRequest{From: "10.0.0.1", To: "10.0.0.2", Protocol: "tcp", DstPort: 5432}, core.ReasonRule, true, 1},
		"by mac":            {ExplainRequest{From: "02:00:00:00:00:01", To: "db1/02:00:00:00:00:02", Protocol: "tcp", DstPort: 5432}, core.ReasonRule, true, 1},
		"by pair":           {ExplainRequest{From: "10.0.0.99", To: "web1", Protocol: "tcp", DstPort: 80}, core.ReasonRule, true, 1},
		"ping":              {ExplainRequest{From: "db1", To: "web1"}, core.ReasonIngressRules, false, 1},
		"from outside":      {ExplainRequest{From: "203.0.113.9", To: "web1", Protocol: "tcp", DstPort: 80}, core.ReasonRule, true, 1},
		"uplink, v6":        {ExplainRequest{From: "uplink", To: "web1", Protocol: "tcp", DstPort: 80, IPv6: true}, core.ReasonRule, true, 1},
		"to outside":        {ExplainRequest{From: "web1", To: "uplink/203.0.113.9", Protocol: "udp", DstPort: 53}, core.ReasonDefault, true, 1},
		"host":              {ExplainRequest{From: "host", To: "db1"}, core.ReasonHost, true, 1},
		"closed":            {ExplainRequest{From: "closed", To: "db1"}, core.ReasonClosedPort, false, 1},
		"routed, first leg": {ExplainRequest{From: "web1", To: "far", Protocol: "tcp", DstPort: 5432}, core.ReasonRule, true, 2},
		"routed, dropped":   {ExplainRequest{From: "web1", To: "far", Protocol: "tcp", DstPort: 22}, core.ReasonIngressRules, false, 2},
		"spoofed address":   {ExplainRequest{From: "db1", To: "web1", Src: netip.MustParseAddr("10.0.0.66"), Protocol: "tcp", DstPort: 80}, core.ReasonIPSpoof, false, 1},
		"spoofed mac":       {ExplainRequest{From: "db1", To: "web1", SrcMAC: "02:00:00:00:00:66", Protocol: "tcp", DstPort: 80}, core.ReasonMACSpoof, false, 1},
		"vlan":              {ExplainRequest{From: "db1", To: "web1", VLAN: &vlan}, core.ReasonVLAN, false, 1},
		"revoked":           {ExplainRequest{From: "uplink", To: "web1", Protocol: "tcp", DstPort: 80, State: "revoked"}, core.ReasonRevoked, false, 1},
		"established":       {ExplainRequest{From: "uplink", To: "db1", Protocol: "tcp", DstPort: 1, State: "established"}, core.ReasonEstablished, true, 1},
		"icmp type":         {ExplainRequest{From: "uplink", To: "web1", Protocol: "icmp", ICMPType: &unreachable, State: "invalid"}, core.ReasonInvalid, false, 1},
		"other protocol":    {ExplainRequest{From: "uplink", To: "web1", Protocol: "47"}, core.ReasonIngressRules, false, 1},
		"arp":               {ExplainRequest{From: "web1", To: "db1", Frame: "arp-request"}, core.ReasonAlways, true, 1},
		"arp for another":   {ExplainRequest{From: "web1", To: "db1", Frame: "arp-reply", Src: netip.MustParseAddr("10.0.0.66")}, core.ReasonARPSpoof, false, 1},
		"rogue dhcp":        {ExplainRequest{From: "web1", To: "db1", Frame: "dhcp-offer"}, core.ReasonDHCPGuard, false, 1},
		"dhcp client":       {ExplainRequest{From: "web1", To: "uplink", Frame: "dhcp-discover"}, core.ReasonAlways, true, 1},
		"rogue ra":          {ExplainRequest{From: "web1", To: "uplink", Frame: "router-advertisement"}, core.ReasonRAGuard, false, 1},
		"ra from uplink":    {ExplainRequest{From: "uplink", To: "web1", Frame: "router-advertisement"}, core.ReasonAlways, true, 1},
		"nd for another":    {ExplainRequest{From: "web1", To: "uplink", Frame: "neighbour-advertisement", Src: netip.MustParseAddr("fd00::66")}, core.ReasonIPSpoof, false, 1},
		"lldp":              {ExplainRequest{From: "web1", To: "uplink", Frame: "lldp"}, core.ReasonLinkLocal, false, 1},
		"ethertype":         {ExplainRequest{From: "web1", To: "uplink", Frame: "0x88a2"}, core.ReasonEtherType, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Explain(rs, groups, c.x)
			if err != nil {
				t.Fatal(err)
			}
			if got.Allowed != c.pass || got.Reason != string(c.reason) || len(got.Legs) != c.legs {
				t.Errorf("got %v (%s), %d legs, want %v (%s), %d\n%+v", got.Allowed, got.Reason, len(got.Legs), c.pass, c.reason, c.legs, got)
			}
		})
	}
}

func TestExplainEveryFrame(t *testing.T) {
	rs, groups := world(t)
	for _, kind := range FrameKinds() {
		got, err := Explain(rs, groups, ExplainRequest{From: "web1", To: "db1", Frame: kind})
		if err != nil || len(got.Legs) != 1 || len(got.Legs[0].Steps) == 0 {
			t.Errorf("%s: %+v, %v", kind, got, err)
		}
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	rs, groups := world(t)
	got, err := Explain(rs, groups, ExplainRequest{From: "web1", To: "db1", Protocol: "tcp", DstPort: 5432})
	if err != nil {
		t.Fatal(err)
	}
	last := got.Legs[0].Steps[len(got.Legs[0].Steps)-1]
	if !last.Decides || !strings.Contains(last.Text, "group db") || !strings.Contains(last.Text, "rule 1") {
		t.Errorf("got %+v", last)
	}
}

func TestExplainErrors(t *testing.T) {
	rs, groups := world(t)
	for want, x := range map[string]ExplainRequest{
		"from: missing":                {To: "db1"},
		"to: nobody: no NIC":           {From: "db1", To: "nobody"},
		"from: two: several NICs":      {From: "two", To: "db1"},
		"to: db1: the same NIC":        {From: "db1", To: "db1"},
		"state: odd: use new":          {From: "web1", To: "db1", State: "odd"},
		"protocol: missing":            {From: "web1", To: "db1", DstPort: 80},
		"protocol: tpc: use":           {From: "web1", To: "db1", Protocol: "tpc"},
		"protocol: any: use":           {From: "web1", To: "db1", Protocol: "any"},
		"dport: missing":               {From: "web1", To: "db1", Protocol: "tcp"},
		"dport: 80: icmp has no ports": {From: "web1", To: "db1", Protocol: "icmp", DstPort: 80},
		"frame: carrier: use":          {From: "web1", To: "db1", Frame: "carrier"},
		"frame: 0xzz: not an Ether":    {From: "web1", To: "db1", Frame: "0xzz"},
		"to: db1: no family":           {From: "web1", To: "db1", IPv6: true},
		"src_mac: x: not a MAC":        {From: "web1", To: "db1", SrcMAC: "x"},
		"to: uplink/x: after uplink/":  {From: "web1", To: "uplink/x"},
	} {
		if _, err := Explain(rs, groups, x); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
