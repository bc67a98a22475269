package policy_test

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// CloudStack sends flat rules: each VM has a group of its own, which all its
// NICs are in; egress is open per family until it has rules; DNS is always
// allowed and multicast never.
func TestCloudStack(t *testing.T) {
	const vmA, vmB = "cloudstack/i-2-7-VM", "cloudstack/i-2-8-VM"
	nic := func(m core.MAC, bridge, device, group string, as ...netip.Addr) core.NIC {
		return core.NIC{MAC: m, Addresses: as, Groups: []string{group}, Binding: core.Binding{Bridge: bridge, Devices: []string{device}}}
	}
	second := core.MAC{2, 0, 0, 0, 1, 0x0a}
	second4 := ip("10.1.0.10")
	build := func(t *testing.T, rulesA ...core.Rule) core.Ruleset {
		groups := []core.Group{{Name: vmA, Rules: rulesA}, {Name: vmB, Rules: []core.Rule{
			allow(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.10/32"), core.Span{First: 8000, Last: 8099}),
		}}}
		vms := []core.VM{
			{Key: "uuid-7", Name: "i-2-7-VM", NICs: []core.NIC{nic(macA, "cloudbr0", "vnet0", vmA, a4, a6), nic(second, "cloudbr1", "vnet1", vmA, second4)}},
			{Key: "uuid-8", Name: "i-2-8-VM", NICs: []core.NIC{nic(macB, "cloudbr0", "vnet2", vmB, b4)}},
			{Key: "uuid-r", Name: "r-4-VM", Kind: core.SystemVM, NICs: []core.NIC{nic(macX, "cloudbr0", "vnet3", vmB), nic(vrrpMAC, "cloud0", "vnet4", vmB)}},
		}
		if err := core.Validate(groups, vms); err == nil {
			t.Error("reserved names pass as a user's")
		}
		if err := core.Validate(groups, vms, core.AllowReserved); err != nil {
			t.Fatal(err)
		}
		rs, err := policy.Compile(policy.Input{Groups: groups, VMs: vms, Options: core.Options{
			Bridges: []core.Pattern{"cloudbr*", "cloud0"}, Unmanaged: []core.Pattern{"cloud0"}, VMPorts: []core.Pattern{"vnet*"},
			AllowDNS: true, Multicast: core.MulticastDrop}})
		if err != nil {
			t.Fatal(err)
		}
		return rs
	}
	a, b := policy.AtNIC(core.NICKey{VM: "uuid-7", MAC: macA}), policy.AtNIC(core.NICKey{VM: "uuid-8", MAC: macB})
	a2, router := policy.AtNIC(core.NICKey{VM: "uuid-7", MAC: second}), policy.AtNIC(core.NICKey{VM: "uuid-r", MAC: macX})
	toB := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	ssh := allow(core.Ingress, core.ProtocolTCP, cidrs("0.0.0.0/0"), port(22))
	web := allow(core.Egress, core.ProtocolTCP, cidrs("0.0.0.0/0"), port(443))
	from2 := policy.Path{SrcMAC: second, DstMAC: macX, Src: second4, Dst: x4}

	for _, c := range []struct {
		name  string
		rules []core.Rule
		frame policy.Frame
		from  policy.Port
		to    policy.Port
		want  want
	}{
		{"egress is open", []core.Rule{ssh}, toX.SYN(1, 25), a, policy.Uplink, passAt(25, core.ReasonDefault)},
		{"an IPv4 egress rule closes IPv4", []core.Rule{web}, toX.SYN(1, 25), a, policy.Uplink, dropAt(26, core.ReasonEgressRules)},
		{"but not IPv6", []core.Rule{web}, to6.SYN(1, 25), a, policy.Uplink, passAt(25, core.ReasonDefault)},
		{"and allows what it says", []core.Rule{web}, toX.SYN(1, 443), a, policy.Uplink, passAt(24, core.ReasonRule)},
		{"on the second NIC too", []core.Rule{web}, from2.SYN(1, 25), a2, policy.Uplink, dropAt(26, core.ReasonEgressRules)},
		{"DNS goes out all the same", []core.Rule{web}, toX.UDP(1, 53), a, policy.Uplink, passAt(23, core.ReasonAlways)},
		{"DHCP too", []core.Rule{web}, policy.DHCPDiscover(macA), a, policy.Uplink, passAt(20, core.ReasonAlways)},
		{"ingress is closed", nil, toX.Reverse().SYN(1, 22), policy.Uplink, a, dropIn(17, core.ReasonIngressRules)},
		{"ingress by rule", []core.Rule{ssh}, toX.Reverse().SYN(1, 22), policy.Uplink, a, passIn(16, core.ReasonRule)},
		{"ingress by rule on the second NIC", []core.Rule{ssh}, from2.Reverse().SYN(1, 22), policy.Uplink, a2, passIn(16, core.ReasonRule)},
		{"an IPv4 rule says nothing of IPv6", []core.Rule{ssh}, to6.Reverse().SYN(1, 22), policy.Uplink, a, dropIn(17, core.ReasonIngressRules)},
		{"between VMs, first of the range", nil, toB.SYN(1, 8000), a, b, passIn(16, core.ReasonRule)},
		{"between VMs, last", nil, toB.SYN(1, 8099), a, b, passIn(16, core.ReasonRule)},
		{"between VMs, one more", nil, toB.SYN(1, 8100), a, b, dropIn(17, core.ReasonIngressRules)},
		{"broadcast is dropped", []core.Rule{allow(core.Ingress, core.AnyProtocol, nil)}, policy.Multicast(macX, x4, policy.Broadcast).UDP(1, 1), policy.Uplink, a, dropIn(15, core.ReasonMulticast)},
		{"a DHCP answer is not", nil, policy.Multicast(macX, x4, policy.Broadcast).UDP(67, 68), router, a, passIn(11, core.ReasonAlways)},
		{"the router hears everything", nil, policy.DHCPDiscover(macA), a, router, passIn(3, core.ReasonSystem)},
		{"no IPv6 for a VM without it", nil, policy.Path{SrcMAC: macB, DstMAC: macX, Src: macB.LinkLocal(), Dst: x6}.SYN(1, 1), b, policy.Uplink, dropAt(22, core.ReasonIPSpoof)},
		{"the control network is not ours", nil, toX.SYN(1, 1), policy.AtNIC(core.NICKey{VM: "uuid-r", MAC: vrrpMAC}), policy.Uplink, dropAt(2, core.ReasonClosedPort)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(policy.Evaluate(build(t, c.rules...), c.frame, c.from, c.to, policy.StateNew)); got != c.want {
				t.Errorf("%s\n got %+v\nwant %+v", c.frame, got, c.want)
			}
		})
	}
}
