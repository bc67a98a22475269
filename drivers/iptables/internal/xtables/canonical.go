package xtables

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Key is the same for two rules that say the same: order of options, spelling
// of values and modules that go without saying have no part in it.
func (r Rule) Key() string {
	parts := make([]string, 0, len(r.Options))
	for _, o := range r.Options {
		name, ok := optionNames[o.Name]
		if !ok {
			name = o.Name
		}
		if name == "-m" || name == "--mark-target" && len(o.Values) == 1 && o.Values[0] == "ACCEPT" {
			continue // ebtables-nft prints the default target, the legacy one does not
		}
		var b strings.Builder
		if o.Not {
			b.WriteString("! ")
		}
		b.WriteString(name)
		for _, v := range o.Values {
			b.WriteByte(' ')
			b.WriteString(canonicalValue(name, v))
		}
		parts = append(parts, b.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x00")
}

// optionNames are the options that have several.
var optionNames = map[string]string{
	"--in-interface": "-i", "--out-interface": "-o", "--protocol": "-p", "--source": "-s", "--destination": "-d",
	"--jump": "-j", "--goto": "-g", "--ip-source": "--ip-src", "--ip-destination": "--ip-dst", "--ip-protocol": "--ip-proto",
	"--ip6-source": "--ip6-src", "--ip6-destination": "--ip6-dst", "--ip6-protocol": "--ip6-proto",
	"--ip-source-port": "--ip-sport", "--ip-destination-port": "--ip-dport", "--arp-opcode": "--arp-op",
}

func canonicalValue(option, v string) string {
	switch option {
	case "--comment", "-i", "-o", "-j", "-g", "--physdev-in", "--physdev-out", "--match-set":
		return v
	case "-p":
		if t, ok := etherTypes[strings.ToUpper(v)]; ok {
			return t
		}
		return protocolNumber(v)
	case "--ip-proto", "--ip6-proto":
		return protocolNumber(v)
	case "--arp-op":
		if n, ok := arpOps[v]; ok {
			return n
		}
	case "--ip6-icmp-type":
		if n, ok := icmp6Names[v]; ok {
			return n
		}
	case "--ctstate", "--state":
		states := strings.Split(v, ",")
		slices.Sort(states)
		return strings.Join(states, ",")
	case "--among-dst", "--among-src":
		macs := strings.Split(v, ",")
		for i, m := range macs {
			macs[i] = canonicalAtom(m)
		}
		slices.Sort(macs)
		return strings.Join(slices.DeleteFunc(macs, func(m string) bool { return m == "" }), ",")
	}
	switch v {
	case "Broadcast":
		return "ff:ff:ff:ff:ff:ff"
	case "Multicast":
		return "01:00:00:00:00:00/01:00:00:00:00:00"
	case "BGA":
		return "01:80:c2:00:00:00"
	}
	if addr, mask, ok := strings.Cut(v, "/"); ok {
		return canonicalMasked(addr, mask)
	}
	return canonicalAtom(v)
}

func canonicalMasked(addr, mask string) string {
	if m := canonicalAtom(mask); m != "0xffffffff" && m != "ff:ff:ff:ff:ff:ff" {
		if a, err := netip.ParseAddr(addr); err == nil && mask == strconv.Itoa(a.BitLen()) || mask == "255.255.255.255" {
			return canonicalAtom(addr)
		}
		return canonicalAtom(addr) + "/" + m
	}
	return canonicalAtom(addr)
}

// canonicalAtom spells numbers, MACs and addresses in one way.
func canonicalAtom(v string) string {
	if strings.Count(v, ":") == 5 && !strings.Contains(v, "::") {
		octets := strings.Split(v, ":")
		for i, o := range octets {
			if len(o) == 1 {
				octets[i] = "0" + o
			}
		}
		if m, err := net.ParseMAC(strings.Join(octets, ":")); err == nil {
			return m.String()
		}
	}
	if hex, ok := strings.CutPrefix(v, "0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 64); err == nil {
			return "0x" + strconv.FormatUint(n, 16)
		}
	}
	if a, err := netip.ParseAddr(v); err == nil {
		return a.String()
	}
	return v
}

var etherTypes = map[string]string{
	"IPV4": "0x800", "ARP": "0x806", "RARP": "0x8035", "IPV6": "0x86dd", "802_1Q": "0x8100", "S-TAG": "0x88a8",
	"0X800": "0x800", "0X0800": "0x800", "0X806": "0x806", "0X0806": "0x806", "0X8035": "0x8035", "0X86DD": "0x86dd",
	"0X8100": "0x8100", "0X88A8": "0x88a8", "802_1AD": "0x88a8",
}

var arpOps = map[string]string{"Request": "1", "Reply": "2", "Request_Reverse": "3", "Reply_Reverse": "4"}

var icmp6Names = map[string]string{
	"router-solicitation": "133/0:255", "router-advertisement": "134/0:255",
	"neighbour-solicitation": "135/0:255", "neighbor-solicitation": "135/0:255",
	"neighbour-advertisement": "136/0:255", "neighbor-advertisement": "136/0:255", "redirect": "137/0:255",
	"131": "131/0:255", "135": "135/0:255", "136": "136/0:255", "143": "143/0:255",
}

// protocolNumber turns a protocol's name into its number, as the tools do: what
// they know themselves first, then /etc/protocols.
func protocolNumber(v string) string {
	if n, ok := protocolNumbers[v]; ok {
		return n
	}
	if n, ok := systemProtocols()[v]; ok {
		return n
	}
	return canonicalAtom(v)
}

var protocolNumbers = map[string]string{
	"icmp": "1", "tcp": "6", "udp": "17", "ipv6-icmp": "58", "icmpv6": "58", "esp": "50", "ah": "51", "sctp": "132",
	"udplite": "136", "ipv6-mh": "135", "mh": "135", "dccp": "33", "all": "0",
}

var systemProtocols = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	f, err := os.Open("/etc/protocols")
	if err != nil {
		return names // the tools then print numbers
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if fields := strings.Fields(line); len(fields) >= 2 {
			names[fields[0]] = fields[1]
		}
	}
	return names
})
