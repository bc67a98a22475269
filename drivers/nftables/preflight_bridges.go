package nftables

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
)

func (s *surroundings) checkBridgeNetfilter() core.Check {
	const key = "net/bridge/bridge-nf-call-iptables"
	if _, ok := s.files.values[key]; ok {
		return core.Check{Name: "br-netfilter", Summary: "bridged packets can be handed to conntrack"}
	}
	if s.native {
		return core.Check{Name: "br-netfilter", Summary: "not loaded, and not needed: bridges track connections themselves"}
	}
	return core.Check{Name: "br-netfilter", Status: core.StatusError,
		Summary:  "br_netfilter is not loaded: no bridged packet would reach conntrack, and every managed port would stay closed",
		Evidence: s.files.sysctl + "/" + key + ": no such file",
		Fix:      "modprobe br_netfilter && echo br_netfilter >/etc/modules-load.d/ringwall.conf"}
}

// checkBridges names what bridges: asks for and the host does not have.
func (s *surroundings) checkBridges() core.Check {
	var names []string
	for _, b := range s.managed() {
		names = append(names, b.Name)
	}
	if !s.synced {
		return core.Check{Name: "bridges", Summary: "bridges of the host: " + orNone(names)}
	}
	var found []finding
	for _, p := range s.options.Bridges {
		if slices.ContainsFunc(slices.Collect(maps.Keys(s.links.Bridges)), p.Match) {
			continue
		}
		f := finding{core.StatusWarning, fmt.Sprintf("no bridge is called %s", p), "bridges of the host: " + orNone(slices.Sorted(maps.Keys(s.links.Bridges))),
			"correct bridges: in the config, then ringwall config reload"}
		if !strings.HasSuffix(string(p), "*") {
			f.by = fmt.Sprintf("ip link add %s up type bridge, or correct bridges: in the config, then ringwall config reload", p)
		}
		found = append(found, f)
	}
	return conclude("bridges", "managed: "+orNone(names), found)
}

// checkOpenVSwitch refuses bridges whose frames meet no bridge hook.
func (s *surroundings) checkOpenVSwitch() core.Check {
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(s.links.Bridges)) {
		if !s.links.Bridges[name].OpenVSwitch {
			continue
		}
		f := finding{core.StatusError, fmt.Sprintf("bridge %s is Open vSwitch: no rule of this driver reaches its ports", name),
			name + " is a device of kind openvswitch",
			fmt.Sprintf("move its VMs to a Linux bridge, or take it out of management: unmanaged: [%s]", name)}
		switch {
		case !s.synced:
			f.status, f.by = core.StatusWarning, "leave it out of bridges:, and know that its VMs are not filtered"
		case !s.options.ManagesBridge(name):
			continue
		}
		found = append(found, f)
	}
	return conclude("open-vswitch", "no managed bridge is Open vSwitch", found)
}

// checkSwitches looks at the bridges' own switches. The first Sync turns them
// on; from then on the driver keeps them so.
func (s *surroundings) checkSwitches() core.Check {
	if s.native {
		return core.Check{Name: "bridge-switches", Summary: "not needed: bridges track connections themselves"}
	}
	if !s.synced {
		return core.Check{Name: "bridge-switches", Summary: "netfilter is switched on for each bridge that comes under management"}
	}
	var found []finding
	for _, b := range s.managed() {
		if b.NFCall == links.AllNFCall {
			continue
		}
		found = append(found, finding{core.StatusError, fmt.Sprintf("netfilter is switched off for bridge %s: its ports pass nothing", b.Name),
			fmt.Sprintf("nf_call_iptables %t, nf_call_ip6tables %t, nf_call_arptables %t", b.NFCall.IPTables, b.NFCall.IP6Tables, b.NFCall.ARPTables),
			fmt.Sprintf("ip link set %s type bridge nf_call_iptables 1 nf_call_ip6tables 1 nf_call_arptables 1", b.Name)})
	}
	return conclude("bridge-switches", "netfilter is switched on for every managed bridge", found)
}

func (s *surroundings) checkSysctls() core.Check {
	var found []finding
	for _, c := range []struct{ name, good, why string }{
		{"net/ipv4/fwmark_reflect", "0", "an answer of the host's kernel carries the mark of what it answers, and with it what conntrack said of that"},
		{"net/ipv6/fwmark_reflect", "0", "an answer of the host's kernel carries the mark of what it answers, and with it what conntrack said of that"},
		{"net/netfilter/nf_conntrack_tcp_loose", "1", "a TCP connection that was open before (a VM migrates in, the host's connections were flushed) counts as invalid and is cut"},
		{"net/bridge/bridge-nf-filter-vlan-tagged", "0", "tagged frames between uplinks meet the ip rules of the host"},
		{"net/bridge/bridge-nf-pass-vlan-input-dev", "0", "tagged frames meet the ip rules under the name of a VLAN device, which is in no bridge's zone"},
	} {
		if v, ok := s.files.values[c.name]; ok && v != c.good {
			found = append(found, finding{core.StatusWarning, fmt.Sprintf("%s is %s: %s", sysctlName(c.name), v, c.why),
				fmt.Sprintf("%s = %s", sysctlName(c.name), v),
				fmt.Sprintf("sysctl -w %s=%s && echo '%s = %s' >>/etc/sysctl.d/ringwall.conf", sysctlName(c.name), c.good, sysctlName(c.name), c.good)})
		}
	}
	return conclude("sysctls", "the kernel's settings are as the driver needs them", found)
}

// checkConntrack warns before the table is full: from then on first packets are
// dropped on every bridge.
func (s *surroundings) checkConntrack() core.Check {
	c := core.Check{Name: "conntrack-table", Summary: "conntrack is not in use yet"}
	count, err := strconv.ParseUint(s.files.values["net/netfilter/nf_conntrack_count"], 10, 64)
	limit, err2 := strconv.ParseUint(s.files.values["net/netfilter/nf_conntrack_max"], 10, 64)
	if err != nil || err2 != nil || limit == 0 {
		return c
	}
	c.Summary = fmt.Sprintf("%d of %d connections are tracked", count, limit)
	if count*10 < limit*8 {
		return c
	}
	c.Status, c.Evidence = core.StatusWarning, fmt.Sprintf("nf_conntrack_count = %d, nf_conntrack_max = %d", count, limit)
	c.Fix = fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d && echo 'net.netfilter.nf_conntrack_max = %d' >>/etc/sysctl.d/ringwall.conf", 4*limit, 4*limit)
	if count*100 >= limit*98 {
		c.Status, c.Summary = core.StatusError, fmt.Sprintf("the connection table is full: %d of %d; first packets are dropped", count, limit)
	}
	return c
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
