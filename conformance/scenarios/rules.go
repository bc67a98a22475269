package scenarios

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Rules shows ingress and egress rules on new flows.
func Rules() []Scenario {
	var out []Scenario
	for _, e := range families() {
		out = append(out,
			Scenario{
				Name: "default/" + e.family.String(), Rows: []string{"sender 15", "sender 25", "receiver 10", "receiver 17", "Ports 1"}, World: pair(),
				Steps: []Step{
					{Name: "out", From: "vnet0", To: "uplink", Frame: e.au.SYN(1000, 80), Want: true, Reason: core.ReasonDefault},
					{Name: "in", From: "uplink", To: "vnet0", Frame: e.ua.SYN(1001, 80), Reason: core.ReasonIngressRules},
					{Name: "between", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1002, 80), Reason: core.ReasonIngressRules},
					{Name: "reply", From: "uplink", To: "vnet0", Frame: e.ua.TCP(80, 1000, policy.SYN|policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "on", From: "vnet0", To: "uplink", Frame: e.au.TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				Name: "ports/" + e.family.String(), Rows: []string{"receiver 16"},
				World: pair(allow(core.Ingress, core.ProtocolTCP, ports(80, 90), nil), allow(core.Ingress, core.ProtocolUDP, ports(53, 53), cidrs("10.0.0.1/32", "fd00::1/128"))),
				Steps: []Step{
					{Name: "first", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1000, 80), Want: true},
					{Name: "last", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1001, 90), Want: true},
					{Name: "below", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1002, 79)},
					{Name: "above", From: "vnet0", To: "vnet1", Frame: e.ab.SYN(1003, 91)},
					{Name: "other protocol", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1004, 80)},
					{Name: "peer", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1005, 53), Want: true},
					{Name: "stranger", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1006, 53)},
				},
			},
		)
	}
	return out
}
