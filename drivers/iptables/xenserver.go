package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Chains of vmops, which all bridges of a XenServer host share.
const (
	chainBridgeFirewall = "BRIDGE-FIREWALL"
	chainBridgeDefault  = "BRIDGE-DEFAULT-FIREWALL"
)

// xenserver is the layout of vmops. What it has in arptables, of which a host has
// none where they are the nft ones, stands in ebtables, as under kvm.
type xenserver struct{ kvm }

func (xenserver) addBridge(filter *xtables.Table, f core.Family, b bridge, nics []nicView) {
	anyPort := module("physdev", bridged())
	if _, there := filter.Chains[chainBridgeFirewall]; !there {
		filter.Set(chainBridgeFirewall, nil, mark(), rule(jump(chainBridged)), rule(jump(chainBridgeDefault)))
		filter.Set(chainBridgeDefault, nil, mark(), rule(module("state", xtables.Opt("--state", "RELATED,ESTABLISHED")), accept()))
		if f == core.IPv4 {
			filter.Add(chainBridgeDefault,
				rule(udpFirst(anyPort, "--sport", "68", "--dport", "67"), accept()),
				rule(udpFirst(anyPort, "--sport", "67", "--dport", "68"), accept()))
		}
	}
	// vmops takes bridged packets of all bridges; those that are not managed are
	// nobody's business here.
	filter.Hook("FORWARD",
		rule(opt("-o", b.name), anyPort, jump(chainBridgeFirewall)),
		rule(opt("-i", b.name), anyPort, jump(chainBridgeFirewall)))
	for _, v := range nics {
		for _, device := range v.policy.Devices {
			filter.Add(chainBridgeFirewall, rule(bridgedFrom(device), jump(v.names.wholeDef())))
		}
	}
	for _, v := range nics {
		for _, device := range v.policy.Devices {
			filter.Add(chainBridgeFirewall, rule(toPort(device), jump(v.names.wholeDef())))
		}
	}
	// vmops has these in FORWARD, where only what leads to our chains is ours.
	for _, uplink := range b.uplinks {
		filter.Add(chainBridgeFirewall, rule(toPort(uplink), accept()))
	}
	filter.Add(chainBridgeFirewall, rule(opt("-o", b.name), anyPort, drop()))
}

func (xenserver) addDefaults(filter *xtables.Table, f core.Family, nics []nicView) {
	for _, v := range nics {
		rows := []xtables.Rule{mark()}
		for _, device := range v.policy.Devices {
			from, to := bridgedFrom(device), toPort(device)
			if v.policy.Kind == core.SystemVM {
				rows = append(rows, rule(from, giveBack()))
				continue
			}
			set := v.names.set(f)
			rows = append(rows,
				rule(protocol(core.ProtocolUDP), from, inSet(set, "src"), module("udp", xtables.Opt("--dport", "53")), giveBack()),
				rule(from, notInSet(set, "src"), drop()),
				rule(to, notInSet(set, "dst"), drop()),
				rule(from, inSet(set, "src"), jump(v.names.egress())),
				rule(to, jump(v.names.ingress())))
		}
		if v.policy.Kind == core.SystemVM {
			rows = append(rows, rule(accept()))
		}
		v.set(filter, v.names.wholeDef(), rows...)
	}
}

func bridgedFrom(device string) options {
	return module("physdev", xtables.Opt("--physdev-in", device), bridged())
}
