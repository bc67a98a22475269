package vmops_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/core"
)

// The faults of the stock plugin, by their numbers in docs/hypervisors/xenserver.md, and
// that what is asked of it keeps clear of them.

func many(n int) *core.Peers {
	p := &core.Peers{}
	for i := range n { // no pattern for zlib to find
		h := uint32(i) * 2654435761
		p.CIDRs = append(p.CIDRs, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(h >> 24), byte(h >> 16), byte(h >> 8)}), 32))
	}
	return p
}

// one is a host with one VM in a group of rules, synchronised.
func one(t *testing.T, version string, rules ...core.Rule) *fixture {
	t.Helper()
	f := site(t, siteOptions{version: version})
	f.groups = []core.Group{{Name: "g", Rules: rules}}
	f.vm("i-2-3-VM", 1, "g", "10.1.1.3").Start(f.hosts[0])
	f.sync(t)
	if s := f.state(t, 0); len(s.Failures) > 0 {
		t.Errorf("vmops failed: %v", s.Failures)
	}
	return f
}

// R17: an empty list of secondary addresses and protocols by number make it fail
// with the chains flushed.
func TestFaultR17(t *testing.T) {
	f := one(t, "", rule(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8"), port(80)))
	f.groups[0].Rules = append(f.groups[0].Rules, rule(core.Ingress, 47, cidrs("10.0.0.0/8")))
	if err := f.trySync(t, 0); !errors.Is(err, core.ErrUnsupported) {
		t.Error(err)
	}
	if s := f.state(t, 0); !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "10.2.2.2") || s.Calls["network_rules"] != 1 {
		t.Errorf("%+v", s)
	}
}

// R18: of protocol all with 0.0.0.0/0 it makes no rule.
func TestFaultR18(t *testing.T) {
	f := one(t, "", rule(core.Ingress, core.AnyProtocol, cidrs("0.0.0.0/0")), rule(core.Egress, core.AnyProtocol, cidrs("0.0.0.0/0")))
	s := f.state(t, 0)
	for _, peer := range []string{"1.2.3.4", "203.0.113.1", "127.255.255.255", "128.0.0.0"} {
		if !s.Allows("i-2-3-VM", "ingress", "tcp", 22, peer) || !s.Allows("i-2-3-VM", "egress", "icmp", 8<<8, peer) {
			t.Errorf("%s: %+v", peer, s)
		}
	}
}

// R19: one IPv6 CIDR in a list empties the whole set.
func TestFaultR19(t *testing.T) {
	f := one(t, "", rule(core.Ingress, core.ProtocolTCP, cidrs("10.0.0.0/8", "fd00::/8"), port(80)), rule(core.Ingress, core.ProtocolTCP, nil, port(81)))
	s := f.state(t, 0)
	if !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "10.2.2.2") || s.Allows("i-2-3-VM", "ingress", "tcp", 80, "11.2.2.2") || !s.Allows("i-2-3-VM", "ingress", "tcp", 81, "11.2.2.2") {
		t.Errorf("%+v", s)
	}
}

// R20: the guard of a MAC is never taken away, and would cut another MAC on the
// same device off.
func TestFaultR20(t *testing.T) {
	f := one(t, "", web.Rules...)
	vm := f.pool.Get("host", f.hosts[0].Ref, "resident_VMs").([]any)
	for _, ref := range vm {
		for _, vif := range f.pool.Get("vm", ref.(string), "VIFs").([]any) {
			f.pool.Set("vif", vif.(string), "MAC", "02:00:00:00:00:77")
		}
	}
	calls := f.state(t, 0).Calls["default_network_rules"]
	err := f.trySync(t, 0)
	if !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), "start the VM anew") {
		t.Error(err)
	}
	if s := f.state(t, 0); s.Calls["default_network_rules"] != calls {
		t.Errorf("%v", s.Calls)
	}
}

// R21: sets of names that it cuts are left behind, and two VMs can share a set.
func TestFaultR21(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web}
	vm := f.vm("i-2-3456789-VM", 1, "web", "10.1.1.3")
	vm.Start(f.hosts[0]) // fourteen: the longest that it leaves whole
	f.sync(t)
	if n := len(f.state(t, 0).SetsOf("i-2-3456789-VM")); n != 2 {
		t.Errorf("%d sets", n)
	}
	vm.Stop()
	f.sync(t)
	if s := f.state(t, 0); len(s.Sets) > 0 {
		t.Errorf("left behind: %v", s.Sets)
	}
	f.vm("i-2-34567890-VM", 1, "web", "10.1.1.3").Start(f.hosts[0])
	if err := f.trySync(t, 0); !errors.Is(err, core.ErrUnsupported) {
		t.Error(err)
	}
}

// R22: temporary sets of one second collide when their names differ in - and _
// alone, and then it fails.
func TestFaultR22(t *testing.T) {
	spans := []core.Span{{First: 1, Last: 112}, {First: 11, Last: 12}, {First: 111, Last: 2000}, {First: 1112, Last: 3000}}
	var rules []core.Rule
	for i, s := range spans {
		rules = append(rules, rule(core.Ingress, core.ProtocolTCP, cidrs(fmt.Sprintf("10.%d.0.0/16", i)), s))
	}
	f := one(t, "", rules...)
	s := f.state(t, 0)
	for i, span := range spans {
		for _, p := range []uint16{span.First, span.First + 1, span.Last} {
			if !s.Allows("i-2-3-VM", "ingress", "tcp", int(p), fmt.Sprintf("10.%d.1.1", i)) {
				t.Errorf("port %d from 10.%d.1.1", p, i)
			}
		}
		if s.Allows("i-2-3-VM", "ingress", "tcp", int(span.Last)+1, fmt.Sprintf("10.%d.1.1", i)) {
			t.Errorf("port %d from 10.%d.1.1 passes", span.Last+1, i)
		}
	}
}

// R22 as well: the same set twice in a second.
func TestFaultR22Again(t *testing.T) {
	f := one(t, "", web.Rules...)
	f.groups[0].Rules = []core.Rule{rule(core.Ingress, core.ProtocolTCP, cidrs("11.0.0.0/8"), port(80))}
	f.sync(t)
	if s := f.state(t, 0); len(s.Failures) > 0 || !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "11.2.2.2") {
		t.Errorf("%+v", s)
	}
}

// R23: a reboot loses the ARP entries of secondary addresses.
func TestFaultR23(t *testing.T) {
	f := site(t, siteOptions{})
	f.groups = []core.Group{web}
	vm := f.vm("i-2-3-VM", 1, "web", "10.1.1.3, 10.1.1.4")
	vm.Start(f.hosts[0])
	f.sync(t)
	vm.Reboot()
	o := observe(t, f.backends[0]) // which has vmops rewire it
	if len(o.Drift) != 1 || !strings.Contains(o.Drift[0].Difference, "domain 2 now") || o.Drift[0].NIC.VM != core.VMKey(vm.UUID) {
		t.Errorf("%+v", o)
	}
	f.sync(t)
	got := f.state(t, 0).VMs["i-2-3-VM"]
	if got.Device != "vif2.0" || !slices.Equal(got.ARP, []string{"10.1.1.3", "10.1.1.4"}) || got.Log[5] == "-1" {
		t.Errorf("%+v", got)
	}
	if o := observe(t, f.backends[0]); len(o.Drift) > 0 {
		t.Errorf("%+v", o)
	}
}

// R24: for XCP-ng 8.3 and XenServer 8.4 it fails on every deflated list.
func TestFaultR24(t *testing.T) {
	for _, version := range []string{"6.2.0", "7.1.0", "8.2.1", "8.3.0", "8.4.0"} {
		f := one(t, version, web.Rules...)
		if s := f.state(t, 0); !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "10.2.2.2") {
			t.Errorf("%s: %+v", version, s)
		}
	}
}

// The log of a VM that somebody else has changed is noticed and put right.
func TestForeignChange(t *testing.T) {
	f := one(t, "", web.Rules...)
	c := f.client(t)
	defer c.Close(t.Context())
	var out string
	if err := c.Call(t.Context(), "host.call_plugin", &out, f.hosts[0].Ref, "vmops", "network_rules", map[string]string{"vmName": "i-2-3-VM", "vmIP": "10.1.1.3",
		"vmMAC": "02:00:00:00:00:01", "vmID": "77", "signature": "x", "seqno": "9", "rules": "I:all;0;0;0.0.0.0/1,NEXT ", "secIps": "0;"}); err != nil || out != "true" {
		t.Fatal(out, err)
	}
	o := observe(t, f.backends[0])
	if len(o.Drift) != 1 || !strings.Contains(o.Drift[0].Object, "rule log of i-2-3-VM") {
		t.Fatalf("%+v", o)
	}
	f.sync(t)
	if s := f.state(t, 0); s.Allows("i-2-3-VM", "ingress", "tcp", 22, "8.8.8.8") || !s.Allows("i-2-3-VM", "ingress", "tcp", 80, "10.2.2.2") {
		t.Errorf("%+v", s)
	}
}

// Whatever the rules, what passes under vmops is what they say.
func TestRulesMean(t *testing.T) {
	f := site(t, siteOptions{})
	vm := f.vm("i-2-3-VM", 1, "g", "10.1.1.3")
	vm.Start(f.hosts[0])
	f.vm("i-2-4-VM", 2, "peers", "10.1.1.4").Start(f.hosts[0])
	prefix := rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.4/32", "fd00::/8", "128.0.0.0/1"})
	protocol := rapid.SampledFrom([]core.Protocol{core.AnyProtocol, core.ProtocolTCP, core.ProtocolUDP, core.ProtocolICMP})
	edge := rapid.SampledFrom([]int{0, 1, 11, 12, 52, 53, 80, 111, 112, 1112, 65535})
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		n++ // another name, other sets: those of one name take a second
		name := fmt.Sprintf("i-3-%d-VM", n)
		f.pool.Set("vm", vm.Ref, "name_label", name)
		g := core.Group{Name: "g"}
		for range rapid.IntRange(0, 4).Draw(r, "rules") {
			x := core.Rule{Direction: rapid.SampledFrom([]core.Direction{core.Ingress, core.Egress}).Draw(r, "direction"), Protocol: protocol.Draw(r, "protocol")}
			switch rapid.IntRange(0, 3).Draw(r, "peers") {
			case 0:
				x.Peers = &core.Peers{Groups: []string{"peers"}}
			case 1:
			default:
				x.Peers = cidrs(rapid.SliceOfN(prefix, 1, 3).Draw(r, "cidrs")...)
			}
			if x.Protocol.HasPorts() && rapid.Bool().Draw(r, "ports") {
				a, b := edge.Draw(r, "first"), edge.Draw(r, "last")
				x.Ports = []core.Span{{First: uint16(min(a, b)), Last: uint16(max(a, b))}}
			}
			if x.Protocol == core.ProtocolICMP && rapid.Bool().Draw(r, "type") {
				typ, code := uint8(edge.Draw(r, "icmp type")%20), uint8(0)
				x.ICMP = &core.ICMPMatch{Type: &typ, Code: &code}
			}
			g.Rules = append(g.Rules, x)
		}
		f.groups = []core.Group{g, {Name: "peers"}}
		rs := f.ruleset(t, 0)
		if err := f.backends[0].Sync(t.Context(), rs); err != nil {
			r.Fatal(err)
		}
		s := f.state(t, 0)
		for _, d := range []core.Direction{core.Ingress, core.Egress} {
			for _, p := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP, core.ProtocolICMP} {
				for _, n := range []int{0, 1, 11, 12, 13, 53, 80, 112, 113, 256, 2816, 65535} {
					for _, peer := range []string{"10.1.1.4", "10.1.2.3", "10.9.9.9", "8.8.8.8", "203.0.113.7"} {
						if got, want := s.Allows(name, d.String(), p.String(), n, peer), means(rs, g.Name, d, p, uint16(n), peer); got != want {
							r.Fatalf("%s %s %d %s: vmops says %v, the rules %v", d, p, n, peer, got, want)
						}
					}
				}
			}
		}
	})
}

// means is what the entries of a group say.
func means(rs core.Ruleset, group string, d core.Direction, p core.Protocol, n uint16, peer string) bool {
	a := netip.MustParseAddr(peer)
	if d == core.Egress {
		deny := slices.ContainsFunc(rs.Groups[group].Entries, func(e core.Entry) bool { return e.Direction == d && e.Family == core.IPv4 })
		if !deny || n == 53 && p != core.ProtocolICMP {
			return true
		}
	}
	return slices.ContainsFunc(rs.Groups[group].Entries, func(e core.Entry) bool {
		from := e.Peer.Prefix.IsValid() && e.Peer.Prefix.Contains(a) || e.Peer.Group != "" && slices.Contains(rs.Sets[e.Peer.Group].Members, a)
		return e.Direction == d && e.Family == core.IPv4 && (e.Protocol == core.AnyProtocol || e.Protocol == p && e.Span.Contains(n)) && from
	})
}
