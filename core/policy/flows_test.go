package policy_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func TestEvaluateFlow(t *testing.T) {
	tcp := func(bridge string, src, dst netip.Addr, port uint16) core.Flow {
		return core.Flow{Bridge: bridge, Protocol: core.ProtocolTCP, Src: src, Dst: dst, SrcPort: 1000, DstPort: port}
	}
	ping := func(p core.Protocol, typ uint8, src, dst netip.Addr) core.Flow {
		return core.Flow{Bridge: "br0", Protocol: p, Src: src, Dst: dst, SrcPort: 7, DstPort: uint16(typ) << 8}
	}
	echo, echo6 := uint8(8), uint8(128)
	pings := func(in *policy.Input) {
		in.Groups[0].Rules = append(in.Groups[0].Rules,
			core.Rule{Direction: core.Ingress, Protocol: core.ProtocolICMP, ICMP: &core.ICMPMatch{Type: &echo}},
			core.Rule{Direction: core.Egress, Protocol: core.ProtocolICMPv6, ICMP: &core.ICMPMatch{Type: &echo6}})
	}
	byHost := tcp("", ip("10.0.0.1"), a4, 81)
	byHost.HostSrc = true
	labelled := tcp("br0", ip("10.7.7.7"), x4, 443)
	labelled.From = keyA
	moved := tcp("br0", a4, x4, 444)
	moved.From = core.NICKey{VM: "gone", MAC: macX}
	heard := tcp("br0", x4, ip("224.0.0.9"), 9)
	heard.To = keyA
	talk := func(in *policy.Input) {
		in.Groups[0].Rules = append(in.Groups[0].Rules, allow(core.Egress, core.ProtocolTCP, nil, port(22)))
	}
	listen := func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil, port(22))}
	}
	shared := func(in *policy.Input) { // b shares a's plain pair, and may send anything
		n := &in.VMs[1].NICs[0]
		n.Pairs = []core.AddressPair{{Prefix: netip.PrefixFrom(vip4, 32)}}
		in.Groups[1].Rules = []core.Rule{allow(core.Egress, core.AnyProtocol, nil)}
	}

	for _, c := range []struct {
		name   string
		change []func(*policy.Input)
		flow   core.Flow
		want   want
	}{
		{"out", nil, tcp("br0", a4, x4, 443), passAt(24, core.ReasonRule)},
		{"out to another port", nil, tcp("br0", a4, x4, 444), dropAt(26, core.ReasonEgressRules)},
		{"in", nil, tcp("br0", x6, a6, 80), passIn(16, core.ReasonRule)},
		{"in to another port", nil, tcp("br0", x6, a6, 81), dropIn(17, core.ReasonIngressRules)},
		{"from a pair", nil, tcp("br0", vip4, x4, 443), passAt(24, core.ReasonRule)},
		{"from a pair at its MAC", nil, tcp("br0", vrrp4, x4, 443), passAt(24, core.ReasonRule)},
		{"to a pair at its MAC", nil, tcp("br0", x4, vrrp4, 80), passIn(16, core.ReasonRule)},
		{"from a prefix pair", nil, tcp("br0", route4, x4, 443), passAt(24, core.ReasonRule)},
		{"to link-local", nil, tcp("br0", x6, macA.LinkLocal(), 80), passIn(16, core.ReasonRule)},
		{"ping", with(pings), ping(core.ProtocolICMP, 8, x4, a4), passIn(16, core.ReasonRule)},
		{"ping of another kind", with(pings), ping(core.ProtocolICMP, 13, x4, a4), dropIn(17, core.ReasonIngressRules)},
		{"ping IPv6", with(pings), ping(core.ProtocolICMPv6, 128, a6, x6), passAt(24, core.ReasonRule)},
		{"another protocol", nil, core.Flow{Bridge: "br0", Protocol: 47, Src: a4, Dst: x4}, dropAt(26, core.ReasonEgressRules)},
		{"on another bridge", nil, tcp("br1", a4, x4, 444), passIn(1, core.ReasonUplink)},
		{"between others", nil, tcp("br0", x4, ip("203.0.113.1"), 1), passIn(1, core.ReasonUplink)},
		{"to the host", nil, tcp("", a4, x4, 443), passAt(24, core.ReasonRule)},
		{"to the host's other port", nil, tcp("", a4, ip("10.0.0.1"), 22), dropAt(26, core.ReasonEgressRules)},
		{"by the host", nil, byHost, passIn(4, core.ReasonHost)},
		{"routed in", nil, tcp("", x4, a4, 81), dropIn(17, core.ReasonIngressRules)},
		{"routed between VMs, sender", with(listen), tcp("", a4, b4, 22), dropAt(26, core.ReasonEgressRules)},
		{"routed between VMs, receiver", with(talk), tcp("", a4, b4, 22), dropIn(17, core.ReasonIngressRules)},
		{"routed between VMs", with(talk, listen), tcp("", a4, b4, 22), passIn(16, core.ReasonRule)},
		{"an address that a labelled NIC no longer has", nil, labelled, dropAt(10, core.ReasonIPSpoof)},
		{"a label, anti-spoofing off", with(unchecked), labelled, passAt(24, core.ReasonRule)},
		{"a label of a NIC that went", nil, moved, dropAt(26, core.ReasonEgressRules)},
		{"an address of two: one may", with(shared), tcp("br0", vip4, x4, 444), passAt(24, core.ReasonRule)},
		{"to multicast", with(rule(allow(core.Egress, core.ProtocolTCP, cidrs("224.0.0.0/4")))), tcp("br0", a4, ip("224.0.0.9"), 1), passAt(24, core.ReasonRule)},
		{"to multicast, a listener named", with(rule(allow(core.Ingress, core.ProtocolTCP, nil, port(9)))), heard, passIn(16, core.ReasonRule)},
		{"to multicast, a listener named, dropped", with(dropGroups), heard, dropIn(15, core.ReasonMulticast)},
		{"the network's broadcast from outside", nil, tcp("br0", x4, policy.Broadcast, 1), passIn(1, core.ReasonUplink)},
		{"system VM", with(system), tcp("br0", x4, a4, 81), passIn(3, core.ReasonSystem)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(policy.EvaluateFlow(compile(t, c.change...), c.flow)); got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestStaleFlows(t *testing.T) {
	flow := func(port uint16, revoked bool) core.Flow {
		return core.Flow{Bridge: "br0", Protocol: core.ProtocolTCP, Src: a4, Dst: x4, SrcPort: 1, DstPort: port, Revoked: revoked}
	}
	revoke, restore := policy.StaleFlows(compile(t), []core.Flow{flow(443, false), flow(444, false), flow(443, true), flow(444, true)})
	if d := diff([]core.Flow{flow(444, false)}, revoke); d != "" {
		t.Error("revoke", d)
	}
	if d := diff([]core.Flow{flow(443, true)}, restore); d != "" {
		t.Error("restore", d)
	}
	if revoke, _ := policy.StaleFlows(compile(t, countOnly), []core.Flow{flow(444, false)}); len(revoke) > 0 {
		t.Error("counting only, and yet a flow is revoked")
	}
}

// many is a host with many VMs, each in a group of many CIDRs, and many flows.
func many(t testing.TB, vms, ranges, flows int) (core.Ruleset, []core.Flow) {
	addr := func(net byte, i int) netip.Addr {
		return netip.AddrFrom4([4]byte{net, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	in := policy.Input{Options: core.Options{Bridges: []core.Pattern{"br*"}}}
	peers := &core.Peers{}
	for i := range ranges {
		peers.CIDRs = append(peers.CIDRs, netip.PrefixFrom(addr(20, i*4), 30))
	}
	in.Groups = []core.Group{{Name: "g", Rules: []core.Rule{allow(core.Ingress, core.ProtocolTCP, peers, port(80))}}}
	for i := range vms {
		m := core.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		in.VMs = append(in.VMs, core.VM{Key: core.VMKey(fmt.Sprint(i)), NICs: []core.NIC{{MAC: m, Groups: []string{"g"},
			Addresses: []netip.Addr{addr(10, i)}, Binding: core.Binding{Bridge: "br0", Devices: []string{fmt.Sprint("vnet", i)}}}}})
	}
	rs, err := policy.Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	fs := make([]core.Flow, flows)
	for i := range fs {
		fs[i] = core.Flow{Bridge: "br0", Protocol: core.ProtocolTCP, Src: addr(20, i%(ranges*8)), Dst: addr(10, i%vms), SrcPort: uint16(i), DstPort: 80}
	}
	return rs, fs
}

func TestStaleFlowsAtScale(t *testing.T) {
	const ranges, flows = 5000, 100_000
	rs, fs := many(t, 1000, ranges, flows)
	start := time.Now()
	revoke, _ := policy.StaleFlows(rs, fs)
	took := time.Since(start)
	want := 0
	for i := range fs {
		if i%(ranges*8) >= ranges*4 {
			want++
		}
	}
	if len(revoke) != want {
		t.Errorf("%d flows to revoke, want %d", len(revoke), want)
	}
	t.Logf("100,000 flows by 1,000 NICs with 5,000 CIDRs: %v", took)
}
