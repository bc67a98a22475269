package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Pairs shows further addresses: secondary ones, pairs, prefixes, virtual MACs.
func Pairs() []Scenario {
	virtual := core.MAC{0, 0, 0x5e, 0, 1, 1}
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		secondary := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.50"), core.IPv6: netip.MustParseAddr("fd00::50")}[e.family]
		vip := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("10.0.0.100"), core.IPv6: netip.MustParseAddr("fd00::100")}[e.family]
		within := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("172.16.5.5"), core.IPv6: netip.MustParseAddr("fd77::5")}[e.family]
		w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil))
		b := &w.VMs[1].NICs[0]
		b.Addresses = append(b.Addresses, secondary)
		b.Pairs = []core.AddressPair{
			{Prefix: netip.PrefixFrom(vip, vip.BitLen()), MAC: virtual},
			{Prefix: prefixes("172.16.0.0/12", "fd77::/16")[map[core.Family]int{core.IPv4: 0, core.IPv6: 1}[e.family]]},
		}
		from := func(mac core.MAC, src netip.Addr) policy.Path {
			return policy.Path{SrcMAC: mac, DstMAC: macU, Src: src, Dst: e.u}
		}
		to := func(mac core.MAC, dst netip.Addr) policy.Path {
			return policy.Path{SrcMAC: macU, DstMAC: mac, Src: e.u, Dst: dst}
		}
		steps := []Step{
			{Name: "secondary", From: "vnet1", To: "uplink", Frame: from(macB, secondary).UDP(1, 2), Want: true},
			{Name: "to secondary", From: "uplink", To: "vnet1", Frame: to(macB, secondary).UDP(1, 53), Want: true},
			{Name: "virtual", From: "vnet1", To: "uplink", Frame: from(virtual, vip).UDP(2, 2), Want: true},
			{Name: "to virtual", From: "uplink", To: "vnet1", Frame: to(virtual, vip).UDP(2, 53), Want: true},
			{Name: "virtual address, own mac", From: "vnet1", To: "uplink", Frame: from(macB, vip).UDP(3, 2), Reason: core.ReasonIPSpoof},
			{Name: "own address, virtual mac", From: "vnet1", To: "uplink", Frame: from(virtual, e.b).UDP(4, 2), Reason: core.ReasonIPSpoof},
			{Name: "in the prefix", From: "vnet1", To: "uplink", Frame: from(macB, within).UDP(5, 2), Want: true},
			{Name: "to the prefix", From: "uplink", To: "vnet1", Frame: to(macB, within).UDP(5, 53), Want: true},
			{Name: "to the prefix by no rule", From: "uplink", To: "vnet1", Frame: to(macB, within).UDP(5, 54), Reason: core.ReasonIngressRules},
			{Name: "a has none of it", From: "vnet0", To: "uplink", Frame: from(macA, within).UDP(6, 2), Reason: core.ReasonIPSpoof},
			{Name: "answer to the prefix", From: "uplink", To: "vnet1", Frame: to(macB, within).UDP(2, 5), Want: true, Reason: core.ReasonEstablished},
		}
		if e.family == core.IPv4 {
			steps = append(steps,
				Step{Name: "arp of the virtual address", From: "vnet1", To: "uplink", Frame: policy.GratuitousARP(virtual, vip), Want: true},
				Step{Name: "arp of it with the own mac", From: "vnet1", To: "uplink", Frame: policy.GratuitousARP(macB, vip), Reason: core.ReasonARPSpoof},
				Step{Name: "arp in the prefix", From: "vnet1", To: "uplink", Frame: policy.ARPRequest(macB, within, u4), Want: true},
				Step{Name: "probe of the virtual address", From: "vnet1", To: "uplink", Frame: policy.ARPProbe(virtual, vip), Want: true},
				Step{Name: "probe of it with the own mac", From: "vnet1", To: "uplink", Frame: policy.ARPProbe(macB, vip), Reason: core.ReasonARPSpoof},
				Step{Name: "probe of the own address with the virtual mac", From: "vnet1", To: "uplink", Frame: policy.ARPProbe(virtual, e.b), Reason: core.ReasonARPSpoof},
				Step{Name: "probe in the prefix", From: "vnet1", To: "uplink", Frame: policy.ARPProbe(macB, within), Want: true})
		} else {
			steps = append(steps,
				Step{Name: "na of the virtual address", From: "vnet1", To: "uplink", Frame: from(virtual, vip).Advertisement(vip), Want: true},
				Step{Name: "na in the prefix", From: "vnet1", To: "uplink", Frame: from(macB, e.b).Advertisement(within), Want: true},
				Step{Name: "na of a neighbour's", From: "vnet1", To: "uplink", Frame: from(macB, e.b).Advertisement(a6), Reason: core.ReasonNDSpoof})
		}
		out = append(out, Scenario{Name: "pairs/" + n, Rows: []string{"sender 8", "sender 9", "sender 10", "sender 11", "sender 17", "receiver 7"}, World: w, Steps: steps})
	}
	return out
}

// HostTraffic shows the host's own traffic and VM to host.
func HostTraffic() []Scenario {
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		w := pair(allow(core.Ingress, core.AnyProtocol, nil, nil))
		w.Bridges = map[string][]netip.Prefix{"br0": prefixes("10.0.0.254/24", "fd00::fe/64")}
		out = append(out, Scenario{
			Name: "vm to host/" + n, Rows: []string{"sender 10", "sender 11", "sender 25", "receiver 1"}, World: w,
			Steps: []Step{
				{Name: "own", From: "vnet0", To: "host", Frame: toHost(e, 1, 2), Want: true, Reason: core.ReasonDefault},
				{Name: "spoofed", From: "vnet0", To: "host", Frame: spoofed(toHost(e, 2, 2), e.b), Reason: core.ReasonIPSpoof},
				{Name: "from outside", From: "uplink", To: "host", Frame: fromOutside(e, toHost(e, 3, 2)), Want: true},
			},
		})
	}
	return out
}

func spoofed(f policy.Frame, src netip.Addr) policy.Frame {
	ip := *f.IP
	ip.Src = src
	f.IP = &ip
	return f
}

func fromOutside(e ends, f policy.Frame) policy.Frame {
	f = spoofed(f, e.u)
	f.Src = macU
	return f
}
