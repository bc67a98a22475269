package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
	"pgregory.net/rapid"
)

// step is a frame, or a change between frames, with what is expected of it.
type step struct {
	does     string
	frame    policy.Frame
	from, to policy.Port
	change   []func(*policy.Input) // a new ruleset, then a sweep
	want     core.Reason           // of a frame
	dropped  bool
	swept    int // flows that the sweep of a change marks
}

func send(does string, f policy.Frame, from, to policy.Port, want core.Reason) step {
	return step{does: does, frame: f, from: from, to: to, want: want}
}

func lose(does string, f policy.Frame, from, to policy.Port, want core.Reason) step {
	return step{does: does, frame: f, from: from, to: to, want: want, dropped: true}
}

func change(does string, swept int, change ...func(*policy.Input)) step {
	return step{does: does, swept: swept, change: append(change, func(*policy.Input) {})}
}

func run(t *testing.T, tr *policy.Tracker, steps []step) {
	t.Helper()
	for i, s := range steps {
		if s.change != nil {
			tr.SetRuleset(compile(t, s.change...))
			if n := tr.Sweep(); n != s.swept {
				t.Errorf("step %d, %s: the sweep marked %d flows, want %d", i, s.does, n, s.swept)
			}
			if n := tr.Sweep(); n != 0 {
				t.Errorf("step %d, %s: a second sweep marked %d flows more", i, s.does, n)
			}
			continue
		}
		v := tr.Step(s.frame, s.from, s.to)
		if v.Allowed == s.dropped || v.Reason != s.want {
			t.Errorf("step %d, %s: %s\n got %v\nwant %s, dropped %v", i, s.does, s.frame, v, s.want, s.dropped)
		}
	}
}

func TestTracker(t *testing.T) {
	const rule_, est, rel = core.ReasonRule, core.ReasonEstablished, core.ReasonRelated
	up := policy.Uplink
	out := toX // a to the outside: tcp 443 is allowed
	in := policy.Path{SrcMAC: macX, DstMAC: macA, Src: x4, Dst: a4}
	ab := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	noRules := func(in *policy.Input) { in.Groups[0].Rules = nil }
	udp := rule(allow(core.Egress, core.ProtocolUDP, nil, port(9)))
	ping := rule(core.Rule{Direction: core.Ingress, Protocol: core.ProtocolICMP})
	bHears := func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil, port(443))}
		in.Groups[0].Rules = append(in.Groups[0].Rules, allow(core.Egress, core.ProtocolTCP, nil, port(443)))
	}
	reply := func(f policy.TCPFlags) policy.Frame { return out.Reverse().TCP(443, 1000, f) }

	for _, c := range []struct {
		name   string
		change []func(*policy.Input)
		steps  []step
	}{
		{"TCP out and back", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			send("again, as no answer came", out.SYN(1000, 443), nicA, up, rule_),
			send("answers", reply(policy.SYN|policy.ACK), up, nicA, est),
			send("speaks", out.TCP(1000, 443, policy.ACK), nicA, up, est),
			send("a late SYN", out.SYN(1000, 443), nicA, up, est),
			lose("FIN alone", out.TCP(1000, 443, policy.FIN), nicA, up, core.ReasonInvalid),
			lose("the client answers", out.TCP(1000, 443, policy.SYN|policy.ACK), nicA, up, core.ReasonInvalid),
			lose("the server opens", reply(policy.SYN), up, nicA, core.ReasonInvalid),
			lose("another port", out.Reverse().TCP(443, 1001, policy.SYN|policy.ACK), up, nicA, core.ReasonInvalid),
			lose("a connection back", out.Reverse().SYN(443, 2000), up, nicA, core.ReasonIngressRules),
		}},
		{"TCP that the receiver refuses starts nothing", with(bHears), []step{
			lose("opens to port 80", in.SYN(1000, 81), up, nicA, core.ReasonIngressRules),
			lose("answers all the same", in.Reverse().TCP(81, 1000, policy.SYN|policy.ACK), nicA, up, core.ReasonInvalid),
			lose("answers mid-stream", in.Reverse().TCP(81, 1000, policy.ACK), nicA, up, core.ReasonEgressRules),
		}},
		{"TCP picked up mid-stream", nil, []step{
			send("in its own direction", in.TCP(1000, 80, policy.ACK), up, nicA, rule_),
			send("and back", in.Reverse().TCP(80, 1000, policy.ACK), nicA, up, est),
		}},
		{"TCP mid-stream in the wrong direction", nil, []step{
			lose("the server speaks first", in.Reverse().TCP(80, 1000, policy.ACK), nicA, up, core.ReasonEgressRules),
		}},
		{"TCP that makes no sense", nil, []step{
			lose("FIN alone", out.TCP(1000, 443, policy.FIN), nicA, up, core.ReasonInvalid),
			lose("FIN of no flow", out.TCP(1000, 443, policy.FIN|policy.ACK), nicA, up, core.ReasonInvalid),
			lose("RST of no flow", out.TCP(1000, 443, policy.RST), nicA, up, core.ReasonInvalid),
			lose("no flags", out.TCP(1000, 443, 0), nicA, up, core.ReasonInvalid),
			lose("all flags", out.TCP(1000, 443, policy.SYN|policy.FIN|policy.RST|policy.ACK), nicA, up, core.ReasonInvalid),
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			lose("goes on without an answer", out.TCP(1000, 443, policy.ACK), nicA, up, core.ReasonInvalid),
			lose("is closed without an answer", reply(policy.FIN|policy.ACK), up, nicA, core.ReasonInvalid),
		}},
		{"TCP ports used again", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			send("is refused", reply(policy.RST|policy.ACK), up, nicA, est),
			lose("the server opens: nothing was left of it", reply(policy.SYN), up, nicA, core.ReasonIngressRules),
			send("opens again", out.SYN(1000, 443), nicA, up, rule_),
			send("answers", reply(policy.SYN|policy.ACK), up, nicA, est),
			send("ends", out.TCP(1000, 443, policy.FIN|policy.ACK), nicA, up, est),
			send("ends too", reply(policy.FIN|policy.ACK), up, nicA, est),
			send("a last word", out.TCP(1000, 443, policy.ACK), nicA, up, est),
			lose("the server opens, as it now may", reply(policy.SYN), up, nicA, core.ReasonIngressRules),
			send("opens a third time", out.SYN(1000, 443), nicA, up, rule_),
		}},
		{"UDP", with(udp), []step{
			lose("from outside", out.Reverse().UDP(9, 1000), up, nicA, core.ReasonIngressRules),
			send("out", out.UDP(1000, 9), nicA, up, rule_),
			send("back", out.Reverse().UDP(9, 1000), up, nicA, est),
			lose("back to a group MAC", out.Reverse().UDP(9, 1000).To(core.BroadcastMAC), up, nicA, core.ReasonIngressRules),
			send("out again", out.UDP(1000, 9), nicA, up, est),
		}},
		{"between two VMs", with(bHears), []step{
			send("opens", ab.SYN(1, 443), nicA, nicB, rule_),
			send("answers", ab.Reverse().TCP(443, 1, policy.SYN|policy.ACK), nicB, nicA, est),
			lose("opens back", ab.Reverse().SYN(1, 80), nicB, nicA, core.ReasonEgressRules),
		}},
		{"ping", with(ping), []step{
			lose("a reply to nothing", in.Reverse().EchoReply(1), nicA, up, core.ReasonInvalid),
			send("in", in.Echo(1), up, nicA, rule_),
			send("back", in.Reverse().EchoReply(1), nicA, up, est),
			lose("another id", in.Reverse().EchoReply(2), nicA, up, core.ReasonInvalid),
			lose("out", in.Reverse().Echo(1), nicA, up, core.ReasonEgressRules),
		}},
		{"ping IPv6", with(rule(core.Rule{Direction: core.Egress, Protocol: core.ProtocolICMPv6})), []step{
			lose("a reply to nothing", to6.EchoReply(1), nicA, up, core.ReasonInvalid),
			send("out", to6.Echo(1), nicA, up, rule_),
			send("back", to6.Reverse().EchoReply(1), up, nicA, est),
			send("an error about it", to6.Reverse().Unreachable(to6.Echo(1)), up, nicA, rel),
			lose("a message nobody knows", to6.Packet(policy.ICMPv6{Type: 200}), nicA, up, core.ReasonInvalid),
			lose("an error about nothing", to6.Packet(policy.ICMPv6{Type: 127}), nicA, up, core.ReasonInvalid),
			lose("IPv4's ICMP in IPv6", to6.Packet(policy.ICMP{Type: 8}), nicA, up, core.ReasonInvalid),
		}},
		{"other protocols", with(rule(allow(core.Egress, core.AnyProtocol, nil))), []step{
			send("SCTP", out.SCTP(1, 2), nicA, up, rule_),
			send("SCTP back", out.Reverse().SCTP(2, 1), up, nicA, est),
			lose("SCTP to another port", out.Reverse().SCTP(2, 3), up, nicA, core.ReasonIngressRules),
			send("GRE", out.Raw(47), nicA, up, rule_),
			send("GRE back", out.Reverse().Raw(47), up, nicA, est),
			lose("ESP is another flow", out.Reverse().Raw(50), up, nicA, core.ReasonIngressRules),
			lose("TCP cut off in its header", out.Raw(core.ProtocolTCP), nicA, up, core.ReasonInvalid),
			lose("ICMP cut off", out.Raw(core.ProtocolICMP), nicA, up, core.ReasonInvalid),
			lose("nothing at all", out.Packet(nil), nicA, up, core.ReasonInvalid),
		}},
		{"errors", with(udp), []step{
			lose("about nothing", in.Unreachable(out.UDP(1000, 9)), up, nicA, core.ReasonInvalid),
			send("out", out.UDP(1000, 9), nicA, up, rule_),
			send("unreachable", in.Unreachable(out.UDP(1000, 9)), up, nicA, rel),
			send("from a router", policy.Path{SrcMAC: macX, DstMAC: macA, Src: ip("203.0.113.1"), Dst: a4}.TooBig(out.UDP(1000, 9)), up, nicA, rel),
			lose("about another port", in.Unreachable(out.UDP(1001, 9)), up, nicA, core.ReasonInvalid),
			lose("to another than the sender it quotes", in.Unreachable(out.Reverse().UDP(9, 1000)), up, nicA, core.ReasonInvalid),
			lose("a stranger's, for a flow of a", policy.Path{SrcMAC: macB, DstMAC: macA, Src: b4, Dst: a4}.TooBig(out.UDP(1000, 9)), nicB, nicA, core.ReasonNotOwner),
			lose("a stranger's, to the outside", policy.Path{SrcMAC: macB, DstMAC: macX, Src: b4, Dst: x4}.TooBig(out.Reverse().UDP(9, 1000)), nicB, up, core.ReasonNotOwner),
			send("the owner's own", out.TooBig(out.Reverse().UDP(9, 1000)), nicA, up, rel),
		}},
		{"ND and RA are untracked, redirects invalid", nil, []step{
			send("solicits", policy.Solicitation(macA, a6, x6), nicA, up, core.ReasonAlways),
			send("advertises", to6.Reverse().Advertisement(x6), up, nicA, core.ReasonAlways),
			send("RA", policy.RouterAdvertisement(macX, macX.LinkLocal()), up, nicA, core.ReasonAlways),
			send("MLD", policy.MLDReport(macA, macA.LinkLocal()), nicA, up, core.ReasonAlways),
			lose("redirect", to6.Reverse().Redirect(b6), up, nicA, core.ReasonInvalid),
		}},
		{"a rule goes: both ends are cut, and given back", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			send("answers", reply(policy.SYN|policy.ACK), up, nicA, est),
			change("the rule goes", 1, noRules),
			lose("speaks", out.TCP(1000, 443, policy.ACK), nicA, up, core.ReasonRevoked),
			lose("is spoken to", reply(policy.ACK), up, nicA, core.ReasonRevoked),
			lose("an error about it", in.TooBig(out.TCP(1000, 443, policy.ACK)), up, nicA, core.ReasonRevoked),
			change("it comes back", 1),
			send("is spoken to", reply(policy.ACK), up, nicA, est),
			send("speaks", out.TCP(1000, 443, policy.ACK), nicA, up, est),
		}},
		{"another rule goes: nothing is cut", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			send("answers", reply(policy.SYN|policy.ACK), up, nicA, est),
			change("ingress goes", 0, func(in *policy.Input) { in.Groups[0].Rules = in.Groups[0].Rules[1:] }),
			send("speaks", out.TCP(1000, 443, policy.ACK), nicA, up, est),
		}},
		{"an address goes", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			send("answers", reply(policy.SYN|policy.ACK), up, nicA, est),
			change("the address goes", 1, homeless(core.IPv4)),
			lose("speaks", out.TCP(1000, 443, policy.ACK), nicA, up, core.ReasonIPSpoof),
			lose("is spoken to", reply(policy.ACK), up, nicA, core.ReasonDestination),
		}},
		{"a member goes", with(remote), []step{
			send("opens", ab.Reverse().SYN(1000, 22), nicB, nicA, rule_),
			send("answers", ab.TCP(22, 1000, policy.SYN|policy.ACK), nicA, nicB, est),
			change("b leaves the group", 1, remote, func(in *policy.Input) { in.VMs[1].NICs[0].Groups = []string{"talk"} }),
			lose("speaks", ab.Reverse().TCP(1000, 22, policy.ACK), nicB, nicA, core.ReasonRevoked),
			lose("answers", ab.TCP(22, 1000, policy.ACK), nicA, nicB, core.ReasonRevoked),
		}},
		{"a VM migrates away: the flow goes on through the uplink", with(bHears), []step{
			send("opens", ab.SYN(1, 443), nicA, nicB, rule_),
			send("answers", ab.Reverse().TCP(443, 1, policy.SYN|policy.ACK), nicB, nicA, est),
			change("a goes", 0, bHears, func(in *policy.Input) { in.VMs[0].NICs[0].Binding.Point = "elsewhere" }),
			send("speaks", ab.TCP(1, 443, policy.ACK), up, nicB, est),
			send("answers", ab.Reverse().TCP(443, 1, policy.ACK), nicB, up, est),
		}},
		{"counted only: nothing is revoked", nil, []step{
			send("opens", out.SYN(1000, 443), nicA, up, rule_),
			change("the rule goes, enforcement too", 0, noRules, countOnly),
			send("speaks", out.TCP(1000, 443, policy.SYN), nicA, up, core.ReasonEgressRules),
		}},
	} {
		t.Run(c.name, func(t *testing.T) { run(t, policy.NewTracker(compile(t, c.change...)), c.steps) })
	}
}

// remote lets members of group "friends" reach a's port 22, and b is one.
func remote(in *policy.Input) {
	in.Groups = append(in.Groups, core.Group{Name: "friends"},
		core.Group{Name: "talk", Rules: []core.Rule{allow(core.Egress, core.AnyProtocol, nil)}})
	in.Groups[0].Rules = append(in.Groups[0].Rules, allow(core.Ingress, core.ProtocolTCP, &core.Peers{Groups: []string{"friends"}}, port(22)))
	in.VMs[1].NICs[0].Groups = []string{"friends", "talk"}
}

func TestTrackerZones(t *testing.T) {
	// c on another bridge has a's address; its group is open.
	rs := compile(t, func(in *policy.Input) {
		in.Groups = append(in.Groups, core.Group{Name: "open", Rules: []core.Rule{allow(core.Ingress, core.AnyProtocol, nil), allow(core.Egress, core.AnyProtocol, nil)}})
		c := in.VMs[0]
		c.Key = "c"
		c.NICs = []core.NIC{c.NICs[0]}
		c.NICs[0].Groups = []string{"open"}
		c.NICs[0].Binding = core.Binding{Bridge: "br1", Devices: []string{"vnet9"}}
		in.VMs = append(in.VMs, c)
	})
	nicC := policy.AtNIC(core.NICKey{VM: "c", MAC: macA})
	tr := policy.NewTracker(rs)
	answer := toX.Reverse().TCP(22, 1000, policy.SYN|policy.ACK)
	run(t, tr, []step{
		send("c opens", toX.SYN(1000, 22), nicC, policy.Uplink, core.ReasonRule),
		lose("the answer on the other bridge", answer, policy.Uplink, nicA, core.ReasonInvalid),
		lose("routed", answer, policy.Routed, nicC, core.ReasonInvalid),
		send("the answer on its own", answer, policy.Uplink, nicC, core.ReasonEstablished),
	})
	if f := tr.Flows()[0]; f.Bridge != "br1" || f.From != nicC.NIC || f.To != (core.NICKey{}) {
		t.Errorf("the flow is %+v", f)
	}
}

func TestTrackerFlows(t *testing.T) {
	rs := compile(t, rule(allow(core.Egress, core.ProtocolTCP, nil)), func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil)}
	})
	ab := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	tr := policy.NewTracker(rs)
	run(t, tr, []step{
		send("to b", ab.SYN(1, 22), nicA, nicB, core.ReasonRule),
		send("out", toX.SYN(2, 22), nicA, policy.Uplink, core.ReasonRule),
		send("in", toX.Reverse().SYN(3, 80), policy.Uplink, nicA, core.ReasonRule),
		send("out is refused", toX.Reverse().TCP(22, 2, policy.RST|policy.ACK), policy.Uplink, nicA, core.ReasonEstablished),
		send("out again", toX.SYN(2, 22), nicA, policy.Uplink, core.ReasonRule),
	})
	flow := func(src, dst netip.Addr, from, to uint16, fromNIC, toNIC core.NICKey) core.Flow {
		return core.Flow{Bridge: "br0", Protocol: core.ProtocolTCP, Src: src, Dst: dst, SrcPort: from, DstPort: to, From: fromNIC, To: toNIC}
	}
	none := core.NICKey{}
	want := []core.Flow{flow(a4, b4, 1, 22, keyA, keyB), flow(a4, x4, 2, 22, keyA, none), flow(x4, a4, 3, 80, none, keyA)}
	if d := diff(want, tr.Flows()); d != "" {
		t.Error(d)
	}
	unknown := flow(x4, a4, 4, 80, none, keyA)
	for _, c := range []struct {
		does            string
		revoke, restore []core.Flow
		want            int
	}{
		{"revokes two, one unknown", []core.Flow{want[0], unknown, want[1]}, nil, 2},
		{"revokes them again", want[:2], nil, 0},
		{"gives one back, and another that lives", nil, []core.Flow{want[0], want[2], unknown}, 1},
	} {
		if got := tr.Revoke(c.revoke, c.restore); got != c.want {
			t.Errorf("%s: changed %d, want %d", c.does, got, c.want)
		}
	}
	for i, revoked := range []bool{false, true, false} {
		if tr.Flows()[i].Revoked != revoked {
			t.Errorf("flow %d is revoked: %v", i, !revoked)
		}
	}
}

// A frame that the bridge floods is one packet: its flow belongs to the first
// port that takes it, and its answer comes from there or nowhere.
func TestTrackerFloods(t *testing.T) {
	rs := compile(t, rule(allow(core.Egress, core.ProtocolUDP, nil, port(9))), func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolUDP, nil, port(9))}
	})
	ab := policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4}
	tr := policy.NewTracker(rs)
	refused := tr.StepAll([]policy.Frame{ab.UDP(1, 9)}, nicA, policy.Closed)
	if refused[0].Allowed || len(tr.Flows()) != 0 {
		t.Errorf("nobody takes it: %v, flows %v", refused, tr.Flows())
	}
	vs := tr.StepAll([]policy.Frame{ab.UDP(1, 9)}, nicA, policy.Closed, nicB, policy.Uplink)
	for i, allowed := range []bool{false, true, true} {
		if vs[i].Allowed != allowed {
			t.Errorf("port %d: %v", i, vs[i])
		}
	}
	if fs := tr.Flows(); len(fs) != 1 || fs[0].To != keyB {
		t.Errorf("flows %+v, want one of b's", fs)
	}
	tr.StepAll([]policy.Frame{policy.Multicast(macA, a4, policy.Broadcast).UDP(1, 9)}, nicA, nicB)
	if fs := tr.Flows(); len(fs) != 2 || fs[1].To != (core.NICKey{}) {
		t.Errorf("flows %+v, want nobody's for the broadcast", fs)
	}
}

// From an address and port to themselves both directions are one.
func TestTrackerFlowToItself(t *testing.T) {
	self := policy.Path{SrcMAC: macX, DstMAC: macA, Src: x4, Dst: a4}
	self.Src = a4
	tr := policy.NewTracker(compile(t, rule(allow(core.Ingress, core.ProtocolUDP, nil, port(9)))))
	run(t, tr, []step{
		send("opens", self.UDP(9, 9), policy.Uplink, nicA, core.ReasonRule),
		send("is its own answer", self.UDP(9, 9), policy.Uplink, nicA, core.ReasonEstablished),
	})
}

func TestTrackerHostZone(t *testing.T) {
	rs := compile(t, rule(allow(core.Egress, core.ProtocolTCP, nil, port(22))))
	toHost := policy.Path{SrcMAC: macA, DstMAC: macX, Src: a4, Dst: ip("10.0.0.1")}
	tr := policy.NewTracker(rs)
	run(t, tr, []step{
		send("a to the host", toHost.SYN(1000, 22), nicA, policy.Host, core.ReasonRule),
		send("the host answers", toHost.Reverse().TCP(22, 1000, policy.SYN|policy.ACK), policy.Host, nicA, core.ReasonHost),
		send("a goes on", toHost.TCP(1000, 22, policy.ACK), nicA, policy.Host, core.ReasonEstablished),
		send("the host opens", toHost.Reverse().SYN(1000, 81), policy.Host, nicA, core.ReasonHost),
		send("a answers", toHost.TCP(81, 1000, policy.SYN|policy.ACK), nicA, policy.Host, core.ReasonEstablished),
	})
	if fs := tr.Flows(); len(fs) != 2 || fs[0].Bridge != "" || fs[0].HostSrc == fs[1].HostSrc {
		t.Errorf("flows %+v", fs)
	}
}

func TestTrackerRouted(t *testing.T) {
	rs := compile(t, rule(allow(core.Egress, core.ProtocolTCP, nil)), func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{allow(core.Ingress, core.ProtocolTCP, nil, port(22))}
	})
	tr := policy.NewTracker(rs)
	gw := core.MAC{0x02, 0, 0, 0, 0, 0xfe}
	hop := func(p policy.Path) (in, out policy.Path) {
		in, out = p, p
		in.DstMAC, out.SrcMAC = gw, gw
		return in, out
	}
	forth, forthOut := hop(policy.Path{SrcMAC: macA, DstMAC: macB, Src: a4, Dst: b4})
	back, backOut := hop(policy.Path{SrcMAC: macB, DstMAC: macA, Src: b4, Dst: a4})
	expect := func(does string, v policy.Verdict, want want) {
		t.Helper()
		if got := verdictOf(v); got != want {
			t.Errorf("%s: got %+v, want %+v", does, got, want)
		}
	}
	expect("a to b's closed port", tr.StepRouted(forth.SYN(1, 23), forthOut.SYN(1, 23), nicA, nicB), dropIn(17, core.ReasonIngressRules))
	answer := policy.SYN | policy.ACK
	expect("b answers what it never got", tr.StepRouted(back.TCP(23, 1, answer), backOut.TCP(23, 1, answer), nicB, nicA), dropAt(14, core.ReasonInvalid))
	expect("a to b", tr.StepRouted(forth.SYN(1, 22), forthOut.SYN(1, 22), nicA, nicB), passIn(16, core.ReasonRule))
	expect("b answers", tr.StepRouted(back.TCP(22, 1, answer), backOut.TCP(22, 1, answer), nicB, nicA), passIn(10, core.ReasonEstablished))
	far, farOut := hop(toX)
	expect("a to the outside", tr.StepRouted(far.SYN(1, 9), farOut.SYN(1, 9), nicA, policy.Uplink), passAt(24, core.ReasonRule))
	if n := tr.Sweep(); n != 0 {
		t.Errorf("a sweep of what is allowed revoked %d", n)
	}
	tr.SetRuleset(compile(t, rule(allow(core.Egress, core.ProtocolTCP, nil))))
	if n := tr.Sweep(); n != 1 {
		t.Errorf("revoked %d flows, want the one to b", n)
	}
	expect("b goes on", tr.StepRouted(back.TCP(22, 1, policy.ACK), backOut.TCP(22, 1, policy.ACK), nicB, nicA), dropAt(14, core.ReasonRevoked))
}

func TestTrackerFragments(t *testing.T) {
	tr := policy.NewTracker(compile(t, rule(allow(core.Egress, core.ProtocolUDP, nil, port(9)))))
	f := toX.UDP(1000, 9)
	if v := tr.StepDatagram(f.Fragments(1, 8, 24)[:2], nicA, policy.Uplink); v.Allowed || len(tr.Flows()) != 0 {
		t.Errorf("an incomplete datagram: %v, flows %v", v, tr.Flows())
	}
	if v := tr.StepDatagram(f.Fragments(2, 8, 24), nicA, policy.Uplink); !v.Allowed {
		t.Errorf("a whole one: %v", v)
	}
	if v := tr.StepDatagram(toX.Reverse().UDP(9, 1000).Fragments(3, 8, 24), policy.Uplink, nicA); v.Reason != core.ReasonEstablished {
		t.Errorf("its answer: %v", v)
	}
}

func TestTrackerNetfilterOff(t *testing.T) {
	tr := policy.NewTracker(compile(t))
	run(t, tr, []step{send("opens", toX.SYN(1000, 443), nicA, policy.Uplink, core.ReasonRule)})
	tr.SetNetfilter("br0", false)
	run(t, tr, []step{
		lose("off", toX.TCP(1000, 443, policy.SYN), nicA, policy.Uplink, core.ReasonUnfiltered),
		lose("back", toX.Reverse().TCP(443, 1000, policy.SYN|policy.ACK), policy.Uplink, nicA, core.ReasonUnfiltered),
		send("ARP", policy.ARPRequest(macA, a4, x4), nicA, policy.Uplink, core.ReasonAlways),
	})
	tr.SetNetfilter("br0", true)
	run(t, tr, []step{send("back", toX.Reverse().TCP(443, 1000, policy.SYN|policy.ACK), policy.Uplink, nicA, core.ReasonEstablished)})
}

// What the tracker let in under a ruleset, the sweep does not cut under it; and
// what the sweep cut, nothing brings through but a rule that allows it again.
func TestSweepAgreesWithSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		tr := policy.NewTracker(w.Ruleset)
		for _, e := range policytest.Sequences(w, 30).Draw(t, "events") {
			if e.World != nil {
				w = *e.World
				tr.SetRuleset(w.Ruleset)
				tr.Sweep()
				continue
			}
			p := *e.Passage
			if !atHome(w, p) {
				continue
			}
			v := tr.Step(p.Frame, p.From, p.To)
			if n := tr.Sweep(); n != 0 {
				t.Fatalf("%v: %v; the sweep after it marked %d flows: %+v", p.Frame, v, n, tr.Flows())
			}
			if v.Allowed && v.Receiver.Reason == core.ReasonEstablished && v.Sender.Reason == core.ReasonEstablished {
				first := policy.EvaluateFlow(w.Ruleset, flowOf(tr, p.Frame))
				if !first.Allowed {
					t.Fatalf("%v: passes as established, but its first packet: %v", p.Frame, first)
				}
			}
		}
	})
}

// atHome: no end of a packet has the address of a NIC that is elsewhere. Such a
// flow looks like that NIC's, and is judged as its.
func atHome(w policytest.World, p policytest.Passage) bool {
	if p.Frame.Family() == 0 {
		return true
	}
	for k, n := range w.Ruleset.NICs {
		for _, end := range []struct {
			port policy.Port
			addr netip.Addr
		}{{p.From, p.Frame.IP.Src}, {p.To, p.Frame.IP.Dst}} {
			claims := slices.Contains(n.Addresses, end.addr) || end.addr == k.MAC.LinkLocal() ||
				slices.ContainsFunc(n.Pairs, func(p core.AddressPair) bool {
					return p.Prefix.Contains(end.addr) || p.MAC.LinkLocal() == end.addr
				})
			if claims && end.port != policy.AtNIC(k) {
				return false
			}
		}
	}
	return true
}

// flowOf finds the flow of a packet by its addresses and protocol.
func flowOf(tr *policy.Tracker, f policy.Frame) core.Flow {
	p := f.IP
	var found core.Flow
	for _, fl := range tr.Flows() {
		if fl.Protocol == p.Transport.Protocol() && (fl.Src == p.Src && fl.Dst == p.Dst || fl.Src == p.Dst && fl.Dst == p.Src) && !fl.Revoked {
			found = fl
		}
	}
	return found
}
