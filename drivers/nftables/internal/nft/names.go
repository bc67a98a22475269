package nft

import "fmt"

func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	case ARP:
		return "arp"
	case NetDev:
		return "netdev"
	case Bridge:
		return "bridge"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

func (id TableID) String() string { return id.Family.String() + " " + id.Name }

// hookName is nft's word for a hook, which depends on the family.
func hookName(f Family, h Hook) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch f {
	case NetDev:
		names = []string{"ingress", "egress"}
	case ARP:
		names = []string{"input", "output", "forward"}
	}
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook%d", uint32(h))
}
