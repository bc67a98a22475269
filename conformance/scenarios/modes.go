package scenarios

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// Modes shows what options and the names of devices change.
func Modes() []Scenario {
	var out []Scenario
	for _, e := range families() {
		n := e.family.String()
		foreign := map[core.Family]netip.Addr{core.IPv4: netip.MustParseAddr("192.0.2.77"), core.IPv6: netip.MustParseAddr("2001:db8::77")}[e.family]
		open := allow(core.Ingress, core.AnyProtocol, nil, nil)
		out = append(out,
			Scenario{
				Name: "count only/" + n, Rows: []string{"Order of judgement 1"}, Needs: []core.Feature{core.FeatureCountOnly},
				World: with(withClosed(), func(w *World) {
					w.Options.CountOnly = true
					w.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)}
				}),
				Steps: []Step{
					{Name: "a vm spoofs", From: "vnet0", To: "uplink", Frame: spoofed(e.au.UDP(1, 2), foreign), Want: true, Reason: core.ReasonIPSpoof},
					{Name: "a foreign mac", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 3).From(macC), Want: true, Reason: core.ReasonMACSpoof},
					{Name: "a tag", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 4).Tagged(5), Want: true, Reason: core.ReasonVLAN},
					{Name: "an ethertype", From: "vnet0", To: "uplink", Frame: policy.Other(macA, macU, 0x88b5), Want: true, Reason: core.ReasonEtherType},
					{Name: "a reserved group", From: "vnet0", To: "uplink", Frame: policy.Other(macA, core.MAC{1, 0x80, 0xc2, 0, 0, 0}, 0x88b5), Want: true, Reason: core.ReasonLinkLocal},
					{Name: "a closed port sends", From: "vnet7", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 5), Want: true, Reason: core.ReasonClosedPort},
					{Name: "a closed port is sent to", From: "uplink", To: "vnet7", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.c}.UDP(1, 6), Want: true, Reason: core.ReasonClosedPort},
					{Name: "no rule", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1, 81), Want: true, Reason: core.ReasonIngressRules},
					{Name: "a rule", From: "uplink", To: "vnet1", Frame: e.ub.SYN(2, 80), Want: true, Reason: core.ReasonRule},
					{Name: "a dhcp server", From: "vnet0", To: "uplink", Frame: dhcpServer(e.au, e.family), Want: true, Reason: core.ReasonDHCPGuard},
					{Name: "another's address", From: "uplink", To: "vnet1", Frame: policy.Path{SrcMAC: macU, DstMAC: macB, Src: e.u, Dst: e.c}.UDP(1, 7), Want: true, Reason: core.ReasonDestination},
					{Name: "an answer to nothing", From: "uplink", To: "vnet1", Frame: e.ub.EchoReply(3), Want: true, Reason: core.ReasonInvalid},
					{Name: "in earnest", Change: func(w *World) { w.Options.CountOnly = false }},
					{Name: "no rule, in earnest", From: "uplink", To: "vnet1", Frame: e.ub.SYN(3, 81), Reason: core.ReasonIngressRules},
					{Name: "a reserved group, in earnest", From: "vnet0", To: "uplink", Frame: policy.Other(macA, core.MAC{1, 0x80, 0xc2, 0, 0, 0}, 0x88b5), Reason: core.ReasonLinkLocal},
					{Name: "what passed is no flow now", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1, 81)},
				},
			},
			Scenario{
				Name: "netfilter switched off/" + n, Rows: []string{"sender 13", "receiver 8"},
				World: with(pair(open), func(w *World) {
					w.Bridges = map[string][]netip.Prefix{"br0": prefixes("10.0.0.254/24", "fd00::fe/64"), "br1": nil}
				}),
				Steps: []Step{
					{Name: "on", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 2), Want: true},
					{Name: "another program switches it off", Netfilter: &Switch{"br0", false}},
					{Name: "out", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 2), Reason: core.ReasonUnfiltered},
					{Name: "in", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 2), Reason: core.ReasonUnfiltered},
					{Name: "between", From: "vnet0", To: "vnet1", Frame: e.ab.UDP(1, 3), Reason: core.ReasonUnfiltered},
					{Name: "of a flow that was", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(2, 1), Reason: core.ReasonUnfiltered},
					{Name: "to the host", From: "vnet0", To: "host", Frame: toHost(e, 4, 5), Reason: core.ReasonUnfiltered},
					{Name: "the host's own", From: "host", To: "vnet0", Frame: fromHost(e, 5, 6), Want: true, Reason: core.ReasonHost},
					{Name: "arp", From: "vnet0", To: "vnet1", Frame: policy.ARPRequest(macA, a4, b4), Want: true},
					{Name: "the agent starts", Netfilter: &Switch{"br0", true}},
					{Name: "out again", From: "vnet0", To: "uplink", Frame: e.au.UDP(1, 2), Want: true},
					{Name: "in again", From: "uplink", To: "vnet1", Frame: e.ub.UDP(1, 2), Want: true},
					{Name: "the flow lives", From: "vnet1", To: "vnet0", Frame: e.ba.UDP(2, 1), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				Name: "host-wide switches on/" + n, Rows: []string{"Ports 2"},
				World: with(withUnmanaged(), func(w *World) { w.HostWide = true }),
				Steps: []Step{
					{Name: "managed", From: "uplink", To: "vnet0", Frame: e.ua.UDP(1, 2), Reason: core.ReasonIngressRules},
					{Name: "managed, out", From: "vnet0", To: "uplink", Frame: e.au.UDP(3, 4), Want: true},
					{Name: "answer", From: "uplink", To: "vnet0", Frame: e.ua.UDP(4, 3), Want: true, Reason: core.ReasonEstablished},
					{Name: "unmanaged", From: "vnet20", To: "vnet21", Frame: e.ab.UDP(1, 2), Want: true},
					{Name: "unmanaged, by what would be invalid", From: "vnet20", To: "vnet21", Frame: e.ab.EchoReply(9), Want: true},
				},
			},
			Scenario{
				Name: "any name is a vm's but uplinks'/" + n, Rows: []string{"sender 2", "receiver 2", "Ports closed", "Ports uplink"}, World: namedAnyhow(),
				Steps: []Step{
					{Name: "out", From: "p0", To: "uplink", Frame: e.au.UDP(1, 2), Want: true},
					{Name: "in by rule", From: "uplink", To: "any", Frame: e.ub.UDP(1, 53), Want: true},
					{Name: "in by no rule", From: "uplink", To: "any", Frame: e.ub.UDP(1, 54), Reason: core.ReasonIngressRules},
					{Name: "between", From: "p0", To: "any", Frame: e.ab.UDP(2, 53), Want: true},
					{Name: "spoofed", From: "p0", To: "uplink", Frame: spoofed(e.au.UDP(3, 2), e.b), Reason: core.ReasonIPSpoof},
					{Name: "whatever is not listed is closed", From: "veth0", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Reason: core.ReasonClosedPort},
					{Name: "both ways", From: "uplink", To: "veth0", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.c}.UDP(1, 2), Reason: core.ReasonClosedPort},
					{Name: "to the other uplink", From: "uplink", To: "bond0", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.c}.UDP(1, 3).Tagged(4), Want: true, Reason: core.ReasonUplink},
				},
			},
			Scenario{
				Name: "a nic on a device of another name/" + n, Rows: []string{"Ports nic", "Ports uplink"}, World: oddName(),
				Steps: []Step{
					{Name: "out", From: "guest-a", To: "uplink", Frame: e.au.UDP(1, 2), Want: true},
					{Name: "spoofed", From: "guest-a", To: "uplink", Frame: spoofed(e.au.UDP(1, 3), e.b), Reason: core.ReasonIPSpoof},
					{Name: "tagged", From: "guest-a", To: "uplink", Frame: e.au.UDP(1, 4).Tagged(1), Reason: core.ReasonVLAN},
					{Name: "reserved group", From: "guest-a", To: "uplink", Frame: policy.Other(macA, core.MAC{1, 0x80, 0xc2, 0, 0, 0}, 0x88b5), Reason: core.ReasonLinkLocal},
					{Name: "in", From: "uplink", To: "guest-a", Frame: e.ua.UDP(1, 5), Reason: core.ReasonIngressRules},
					{Name: "between", From: "guest-a", To: "vnet1", Frame: e.ab.UDP(1, 53), Want: true},
					{Name: "a port of no pattern and no nic is an uplink", From: "guest-b", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2).Tagged(3), Want: true, Reason: core.ReasonUplink},
					{Name: "the nic goes", Change: func(w *World) { w.VMs = w.VMs[1:] }},
					{Name: "then its port is one too", From: "guest-a", To: "uplink", Frame: spoofed(e.au.UDP(2, 3), e.b), Want: true, Reason: core.ReasonUplink},
				},
			},
			Scenario{
				Name: "vif and tap of one nic/" + n, Rows: []string{"Ports nic"}, World: vifAndTap(),
				Steps: []Step{
					{Name: "in, at the vif", From: "uplink", To: "vif1.0", Frame: e.ua.UDP(1, 53), Want: true},
					{Name: "in, at the tap", From: "uplink", To: "tap1.0", Frame: e.ua.UDP(2, 53), Want: true},
					{Name: "in, by no rule", From: "uplink", To: "tap1.0", Frame: e.ua.UDP(2, 54), Reason: core.ReasonIngressRules},
					{Name: "out by the vif", From: "vif1.0", To: "uplink", Frame: e.au.UDP(3, 4), Want: true},
					{Name: "the answer", From: "uplink", To: "vif1.0", Frame: e.ua.UDP(4, 3), Want: true, Reason: core.ReasonEstablished},
					{Name: "out by the tap", From: "tap1.0", To: "uplink", Frame: e.au.UDP(3, 4), Want: true, Reason: core.ReasonEstablished},
					{Name: "the answer, there", From: "uplink", To: "tap1.0", Frame: e.ua.UDP(4, 3), Want: true, Reason: core.ReasonEstablished},
					{Name: "spoofed by the vif", From: "vif1.0", To: "uplink", Frame: spoofed(e.au.UDP(5, 6), foreign), Reason: core.ReasonIPSpoof},
					{Name: "spoofed by the tap", From: "tap1.0", To: "uplink", Frame: spoofed(e.au.UDP(5, 6), foreign), Reason: core.ReasonIPSpoof},
					{Name: "the tap goes", Change: func(w *World) { w.VMs[0].NICs[0].Binding.Devices = []string{"vif1.0"} }},
					{Name: "then it is closed", From: "tap1.0", To: "uplink", Frame: e.au.UDP(3, 4), Reason: core.ReasonClosedPort},
					{Name: "and the vif is not", From: "vif1.0", To: "uplink", Frame: e.au.UDP(3, 4), Want: true, Reason: core.ReasonEstablished},
				},
			},
			Scenario{
				Name: "a port that comes to a policy/" + n, Rows: []string{"Ports closed", "Ports nic"}, World: withClosed(),
				Steps: []Step{
					{Name: "closed", From: "vnet7", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Reason: core.ReasonClosedPort},
					{Name: "its policy arrives", Change: func(w *World) { w.VMs = append(w.VMs, vm("c", nic(macC, "vnet7", []string{"ga"}, c4, c6))) }},
					{Name: "out", From: "vnet7", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Want: true},
					{Name: "in by no rule", From: "uplink", To: "vnet7", Frame: policy.Path{SrcMAC: macU, DstMAC: macC, Src: e.u, Dst: e.c}.UDP(3, 2), Reason: core.ReasonIngressRules},
					{Name: "the vm goes", Change: func(w *World) { w.VMs = w.VMs[:2] }},
					{Name: "out", From: "vnet7", To: "uplink", Frame: policy.Path{SrcMAC: macC, DstMAC: macU, Src: e.c, Dst: e.u}.UDP(1, 2), Reason: core.ReasonClosedPort},
				},
			},
			Scenario{
				Name: "the agent restarts/" + n, Rows: []string{"Flows 1"}, World: pair(allow(core.Ingress, core.ProtocolTCP, ports(80, 80), nil)),
				Steps: []Step{
					{Name: "syn", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 80), Want: true},
					{Name: "synack", From: "vnet1", To: "uplink", Frame: e.bu.TCP(80, 1000, policy.SYN|policy.ACK), Want: true},
					{Name: "restart", Restart: true},
					{Name: "ack", From: "uplink", To: "vnet1", Frame: e.ub.TCP(1000, 80, policy.ACK), Want: true, Reason: core.ReasonEstablished},
					{Name: "no other", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1000, 81), Reason: core.ReasonIngressRules},
					{Name: "a change by difference", Change: func(w *World) { w.Groups[1].Rules = nil }},
					{Name: "closed", From: "uplink", To: "vnet1", Frame: e.ub.SYN(1001, 80), Reason: core.ReasonIngressRules},
				},
			},
		)
	}
	return out
}

// fromHost is a packet of the host's own to a.
func fromHost(e ends, src, dst uint16) policy.Frame {
	h := host4
	if e.family == core.IPv6 {
		h = host6
	}
	return policy.Path{SrcMAC: Router(0), DstMAC: macA, Src: h, Dst: e.a}.UDP(src, dst)
}

// namedAnyhow is a host whose taps may have any name.
func namedAnyhow() World {
	w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil))
	w.Options.VMPorts, w.Options.Uplinks = nil, []core.Pattern{"eth*", "bond0"}
	w.VMs[0].NICs[0].Binding.Devices = []string{"p0"}
	w.VMs[1].NICs[0].Binding.Devices = []string{"any"}
	w.Devices = map[string][]string{"br0": {"veth0", "bond0"}}
	return w
}

// oddName has a on a device that no pattern takes for a VM's.
func oddName() World {
	w := pair(allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil))
	w.VMs[0].NICs[0].Binding.Devices = []string{"guest-a"}
	w.Devices = map[string][]string{"br0": {"guest-b"}}
	return w
}

// vifAndTap has a on a Xen guest's two devices.
func vifAndTap() World {
	w := pair()
	w.Options.VMPorts = append(w.Options.VMPorts, "tap*")
	w.Groups[0].Rules = []core.Rule{allow(core.Ingress, core.ProtocolUDP, ports(53, 53), nil)}
	w.VMs[0].NICs[0].Binding.Devices = []string{"tap1.0", "vif1.0"}
	return w
}
