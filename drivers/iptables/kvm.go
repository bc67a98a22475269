package iptables

import (
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// layout is the shape that operators of a hypervisor know: chains and rules that
// stand behind ours, where CloudStack's own scripts look for them. They never see
// a packet that our chains have judged. Should those be flushed, they still deny.
type layout interface {
	// addBridge makes a bridge's chains, the first of which leads to ours.
	addBridge(filter *xtables.Table, f core.Family, b bridge, nics []nicView)
	// addDefaults makes a NIC's chain of default rules.
	addDefaults(filter *xtables.Table, f core.Family, nics []nicView)
	// frameRows ends a NIC's chain in ebtables nat POSTROUTING.
	frameRows(v nicView) []xtables.Rule
	addFrameChains(nat *xtables.Table, v nicView)
}

// kvm is the layout of security_group.py.
type kvm struct{}

func (kvm) addBridge(filter *xtables.Table, f core.Family, b bridge, nics []nicView) {
	chain := bridgeChain(b.name)
	in, out := chain+"-IN", chain+"-OUT"
	is := func(o string) options { return module("physdev", xtables.Opt(o), bridged()) }
	filter.Hook("FORWARD",
		rule(opt("-o", b.name), module("physdev", bridged()), jump(chain)),
		rule(opt("-i", b.name), module("physdev", bridged()), jump(chain)))
	rows := []xtables.Rule{
		mark(),
		rule(jump(chainBridged)),
		rule(module("state", xtables.Opt("--state", "RELATED,ESTABLISHED")), accept()),
		rule(is("--physdev-is-in"), jump(in)),
		rule(is("--physdev-is-out"), jump(out)),
	}
	for _, uplink := range b.uplinks {
		rows = append(rows, rule(toPort(uplink), accept()))
	}
	filter.Set(chain, nil, rows...)
	filter.Set(in, nil, mark())
	filter.Set(out, nil, mark())
	for _, v := range nics {
		for _, device := range v.policy.Devices {
			filter.Add(in, rule(module("physdev", xtables.Opt("--physdev-in", device), bridged()), jump(v.names.def())))
			filter.Add(out, rule(toPort(device), jump(v.names.def())))
		}
	}
}

func (kvm) addDefaults(filter *xtables.Table, f core.Family, nics []nicView) {
	for _, v := range nics {
		if v.policy.Kind == core.SystemVM {
			v.set(filter, v.names.def(), mark(), rule(accept()))
			continue
		}
		rows := []xtables.Rule{mark(), rule(module("state", xtables.Opt("--state", "RELATED,ESTABLISHED")), accept())}
		for _, device := range v.policy.Devices {
			from := module("physdev", xtables.Opt("--physdev-in", device), bridged())
			to := toPort(device)
			set := v.names.set(f)
			if f == core.IPv4 {
				rows = append(rows,
					rule(udpFirst(from, "--sport", "68", "--dport", "67"), accept()),
					rule(udpFirst(to, "--sport", "67", "--dport", "68"), accept()),
					rule(udpFirst(from, "--sport", "67"), drop()))
			}
			rows = append(rows,
				rule(from, notInSet(set, "src"), drop()),
				rule(to, notInSet(set, "dst"), drop()))
			for _, p := range []core.Protocol{core.ProtocolUDP, core.ProtocolTCP} {
				rows = append(rows, rule(protocol(p), from, inSet(set, "src"), module(p.String(), xtables.Opt("--dport", "53")), giveBack()))
			}
			rows = append(rows,
				rule(from, inSet(set, "src"), jump(v.names.egress())),
				rule(to, jump(v.names.ingress())))
		}
		v.set(filter, v.names.def(), rows...)
	}
}

// udpFirst has the order in which iptables-save prints CloudStack's rule.
func udpFirst(port options, opts ...string) options {
	m := options{xtables.Opt("-m", "udp")}
	for i := 0; i < len(opts); i += 2 {
		m = append(m, xtables.Opt(opts[i], opts[i+1]))
	}
	return join(protocol(core.ProtocolUDP), port, m)
}

func (kvm) frameRows(v nicView) []xtables.Rule {
	return []xtables.Rule{
		rule(frame(frameARP), opt("--arp-op", "2"), jump(v.names.frame(partOutDst))),
		rule(frame(frameARP), jump(v.names.frame(partOutARP))),
		rule(frame(frameARP), opt("--arp-op", "1"), accept()),
		rule(frame(frameARP), opt("--arp-op", "2"), accept()),
		rule(frame(frameARP), drop()),
	}
}

func (kvm) addFrameChains(nat *xtables.Table, v nicView) {
	var ips []xtables.Rule
	for _, p := range prefixes(identities(v.policy, core.IPv4)) {
		ips = append(ips, rule(frame(frameARP), arpTarget(p), giveBack()))
	}
	var macs []xtables.Rule
	for _, m := range macsOf(v.policy) {
		macs = append(macs, rule(frame(frameARP), opt("--arp-op", "2"), opt("--arp-mac-dst", m.String()), giveBack()))
	}
	v.set(nat, v.names.frame(partOutDst), append(macs, rule(frame(frameARP), opt("--arp-op", "2"), drop()))...)
	v.set(nat, v.names.frame(partOutARP), append(ips, rule(drop()))...)
}

func arpTarget(p netip.Prefix) options { return framePrefix("--arp-ip-dst", p) }
