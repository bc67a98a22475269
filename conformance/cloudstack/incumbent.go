package cloudstack

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// VM is a machine with one NIC, as the incumbent is told of it.
type VM struct {
	Name    string
	ID      int
	MAC     core.MAC
	IP, IP6 netip.Addr
	Device  string
}

func (v VM) ingress() string { return v.Name }
func (v VM) egress() string  { return v.Name + "-eg" }
func (v VM) defaults() string {
	return v.Name[:strings.LastIndexByte(v.Name, '-')] + "-def"
}
func (v VM) set4() string { return v.Name }
func (v VM) set6() string { return v.Name + "-6" }

// Incumbent programs a host one process at a time. Call it on a thread in the
// host's network namespace.
type Incumbent struct {
	Bridge, Uplink string
	Files          string // folder of the rule logs
	// Execs is how many processes were started.
	Execs int
	err   error
}

// try runs a program and says whether it succeeded.
func (s *Incumbent) try(argv ...string) bool {
	s.Execs++
	return exec.Command(argv[0], argv[1:]...).Run() == nil
}

// do runs a program that has to succeed.
func (s *Incumbent) do(argv ...string) {
	s.Execs++
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil && s.err == nil {
		s.err = fmt.Errorf("%q: %w: %s", argv, err, out)
	}
}

// rule is one line of iptables or ip6tables: words apart by spaces.
func (s *Incumbent) rule(program, format string, args ...any) {
	s.do(append([]string{program, "-w"}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

func (s *Incumbent) chain(suffix string) string { return "BF-" + s.Bridge + suffix }

var families = []string{"iptables", "ip6tables"}

// framework makes the chains of the bridge, where they are missing.
func (s *Incumbent) framework() {
	s.try("modprobe", "br_netfilter")
	for _, f := range []string{"arptables", "iptables", "ip6tables"} {
		s.do("sysctl", "-qw", "net.bridge.bridge-nf-call-"+f+"=1")
	}
	for _, f := range families {
		if s.try(f, "-w", "-nL", s.chain("")) && s.try(f, "-w", "-nL", s.chain("-IN")) && s.try(f, "-w", "-nL", s.chain("-OUT")) {
			continue
		}
		for _, suffix := range []string{"", "-OUT", "-IN"} {
			s.rule(f, "-N %s", s.chain(suffix))
		}
		s.rule(f, "-I FORWARD -i %s -j DROP", s.Bridge)
		s.rule(f, "-I FORWARD -o %s -j DROP", s.Bridge)
		s.rule(f, "-I FORWARD -i %s -m physdev --physdev-is-bridged -j %s", s.Bridge, s.chain(""))
		s.rule(f, "-I FORWARD -o %s -m physdev --physdev-is-bridged -j %s", s.Bridge, s.chain(""))
		s.rule(f, "-A %s -m state --state RELATED,ESTABLISHED -j ACCEPT", s.chain(""))
		s.rule(f, "-A %s -m physdev --physdev-is-bridged --physdev-is-in -j %s", s.chain(""), s.chain("-IN"))
		s.rule(f, "-A %s -m physdev --physdev-is-bridged --physdev-is-out -j %s", s.chain(""), s.chain("-OUT"))
		s.rule(f, "-A %s -m physdev --physdev-is-bridged --physdev-out %s -j ACCEPT", s.chain(""), s.Uplink)
	}
}

// Default is default_network_rules for the first NIC.
func (s *Incumbent) Default(v VM) error {
	s.framework()
	s.Destroy(v)
	s.do("ipset", "-N", v.set4(), "iphash")
	s.do("ipset", "-A", v.set4(), v.IP.String())
	s.do("ipset", "create", v.set6(), "hash:net", "family", "inet6")
	for _, a := range []netip.Addr{v.MAC.LinkLocal(), v.IP6} {
		s.do("ipset", "add", v.set6(), a.String())
	}
	for _, f := range families {
		for _, c := range []string{v.ingress(), v.egress(), v.defaults()} {
			s.rule(f, "-N %s", c)
		}
		for _, way := range [][2]string{{"-IN", "in"}, {"-OUT", "out"}} {
			s.rule(f, "-A %s -m physdev --physdev-is-bridged --physdev-%s %s -j %s", s.chain(way[0]), way[1], v.Device, v.defaults())
		}
	}
	s.default4(v)
	s.default6(v)
	s.ebtables(v)
	for _, f := range families {
		s.rule(f, "-A %s -j DROP", v.ingress())
	}
	s.log(v, "_initial_", -1)
	return s.failed()
}

func (s *Incumbent) failed() error {
	err := s.err
	s.err = nil
	return err
}

func (s *Incumbent) log(v VM, signature string, seq int) {
	if s.Files == "" {
		return
	}
	line := fmt.Sprintf("%s,%d,%s,None,%s,%d\n", v.Name, v.ID, v.IP, signature, seq)
	err := os.MkdirAll(s.Files, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Files, v.Name+".log"), []byte(line), 0o644)
	}
	if err != nil && s.err == nil {
		s.err = err
	}
}

func (s *Incumbent) default4(v VM) {
	set := "-m set --match-set " + v.set4()
	for _, r := range []string{
		"-m state --state RELATED,ESTABLISHED -j ACCEPT",
		"-m physdev --physdev-is-bridged --physdev-in DEV -p udp --dport 67 --sport 68 -j ACCEPT",
		"-m physdev --physdev-is-bridged --physdev-out DEV -p udp --dport 68 --sport 67 -j ACCEPT",
		"-m physdev --physdev-is-bridged --physdev-in DEV -p udp --sport 67 -j DROP",
		"-m physdev --physdev-is-bridged --physdev-in DEV " + strings.Replace(set, "-m set", "-m set !", 1) + " src -j DROP",
		"-m physdev --physdev-is-bridged --physdev-out DEV " + strings.Replace(set, "-m set", "-m set !", 1) + " dst -j DROP",
		"-m physdev --physdev-is-bridged --physdev-in DEV " + set + " src -p udp --dport 53 -j RETURN",
		"-m physdev --physdev-is-bridged --physdev-in DEV " + set + " src -p tcp --dport 53 -j RETURN",
		"-m physdev --physdev-is-bridged --physdev-in DEV " + set + " src -j " + v.egress(),
		"-m physdev --physdev-is-bridged --physdev-out DEV -j " + v.ingress(),
	} {
		s.rule("iptables", "-A %s %s", v.defaults(), strings.ReplaceAll(r, "DEV", v.Device))
	}
}

func (s *Incumbent) default6(v VM) {
	in, out := "-m physdev --physdev-is-bridged --physdev-in "+v.Device, "-m physdev --physdev-is-bridged --physdev-out "+v.Device
	own := " -m set --match-set " + v.set6() + " src"
	rules := []string{
		"-m state --state RELATED,ESTABLISHED -j ACCEPT",
		out + " --src fe80::/64 --dst ff02::1 -p icmpv6 --icmpv6-type router-advertisement -m hl --hl-eq 255 -j ACCEPT",
		in + " --dst ff02::2 -p icmpv6 --icmpv6-type router-solicitation -m hl --hl-eq 255 -j RETURN",
		in + " -p icmpv6 --icmpv6-type router-advertisement -j DROP",
		in + " -p icmpv6 --icmpv6-type neighbour-solicitation -m hl --hl-eq 255 -j RETURN",
		out + " -p icmpv6 --icmpv6-type neighbour-solicitation -m hl --hl-eq 255 -j ACCEPT",
		in + own + " -p icmpv6 --icmpv6-type neighbour-advertisement -m hl --hl-eq 255 -j RETURN",
		out + " -p icmpv6 --icmpv6-type neighbour-advertisement -m hl --hl-eq 255 -j ACCEPT",
	}
	for _, t := range []string{"packet-too-big", "destination-unreachable", "time-exceeded", "parameter-problem"} {
		rules = append(rules, in+own+" -p icmpv6 --icmpv6-type "+t+" -j RETURN", out+" -p icmpv6 --icmpv6-type "+t+" -j ACCEPT")
	}
	rules = append(rules,
		in+" --dst ff02::16 -p icmpv6 -j RETURN",
		in+" -p udp --sport 546 --src "+v.MAC.LinkLocal().String()+" --dst ff02::1:2 -j RETURN",
		out+" -p udp --dport 546 --src fe80::/64 --dst "+v.MAC.LinkLocal().String()+" -j ACCEPT",
		in+" -p udp --sport 547 ! --dst fe80::/64 -j DROP",
		in+own+" -p udp --dport 53 -j RETURN", in+own+" -p tcp --dport 53 -j RETURN",
		in+" -m set ! --match-set "+v.set6()+" src -j DROP",
		in+own+" -j "+v.egress(),
		out+" -j "+v.ingress())
	for _, r := range rules {
		s.rule("ip6tables", "-A %s %s", v.defaults(), r)
	}
}

// ebtables makes the chains that check MAC and ARP.
func (s *Incumbent) ebtables(v VM) {
	eb := func(format string, args ...any) {
		s.do(append([]string{"ebtables", "-t", "nat"}, strings.Fields(fmt.Sprintf(format, args...))...)...)
	}
	n, m := v.Name, v.MAC
	for _, c := range v.bridgeChains() {
		eb("-N %s -P RETURN", c)
	}
	eb("-A PREROUTING -i %s -j %s-in", v.Device, n)
	eb("-A POSTROUTING -o %s -j %s-out", v.Device, n)
	eb("-A %s-in-src -s %s -j RETURN", n, m)
	eb("-A %s-in-src -j DROP", n)
	eb("-A %s-in-ips -p ARP -s %s --arp-mac-src %s --arp-ip-src %s -j RETURN", n, m, m, v.IP)
	eb("-A %s-in-ips -j DROP", n)
	eb("-A %s-in -j %s-in-src", n, n)
	eb("-A %s-in -p ARP -j %s-in-ips", n, n)
	eb("-A %s-out-dst -p ARP --arp-op Reply --arp-mac-dst %s -j RETURN", n, m)
	eb("-A %s-out-dst -p ARP --arp-op Reply -j DROP", n)
	eb("-A %s-out-ips -p ARP --arp-ip-dst %s -j RETURN", n, v.IP)
	eb("-A %s-out-ips -j DROP", n)
	eb("-A %s-out -p ARP --arp-op Reply -j %s-out-dst", n, n)
	eb("-A %s-out -p ARP -j %s-out-ips", n, n)
	for _, way := range []string{"in", "out"} {
		eb("-A %s-%s -p ARP --arp-op Request -j ACCEPT", n, way)
		eb("-A %s-%s -p ARP --arp-op Reply -j ACCEPT", n, way)
		eb("-A %s-%s -p ARP -j DROP", n, way)
	}
}

func (v VM) bridgeChains() (out []string) {
	for _, suffix := range []string{"-in", "-out", "-in-ips", "-out-ips", "-in-src", "-out-dst"} {
		out = append(out, v.Name+suffix)
	}
	return out
}

// Add is add_network_rules.
func (s *Incumbent) Add(v VM, seq int, rules string) error {
	for _, f := range families {
		s.rule(f, "-F %s", v.ingress())
		s.rule(f, "-F %s", v.egress())
	}
	tail := map[string]string{"iptables": "RETURN", "ip6tables": "RETURN"}
	for text := range strings.SplitSeq(rules, "NEXT;") {
		part := strings.SplitN(text, ";", 4)
		if len(part) < 4 {
			continue
		}
		dir, proto, _ := strings.Cut(part[0], ":")
		for cidr := range strings.SplitSeq(part[3], ",") {
			if cidr == "" {
				continue
			}
			f := "iptables"
			if strings.Contains(cidr, ":") {
				f = "ip6tables"
			}
			chain, end, verdict := v.ingress(), "-s", "ACCEPT"
			if dir == "E" {
				chain, end, verdict = v.egress(), "-d", "RETURN"
				tail[f] = "DROP"
			}
			match := ""
			switch proto {
			case "tcp", "udp":
				match = fmt.Sprintf("-p %s --dport %s:%s", proto, part[1], part[2])
			case "icmp":
				match = "-p icmp"
			}
			s.rule(f, "-I %s %s -m state --state NEW %s %s -j %s", chain, match, end, cidr, verdict)
		}
	}
	for _, f := range families {
		s.rule(f, "-A %s -j %s", v.egress(), tail[f])
		s.rule(f, "-A %s -j DROP", v.ingress())
	}
	s.log(v, fmt.Sprintf("%032x", seq), seq)
	return s.failed()
}

// Destroy is destroy_network_rules_for_vm. What is not there is no failure.
func (s *Incumbent) Destroy(v VM) {
	for _, f := range families {
		for _, way := range [][2]string{{"-IN", "in"}, {"-OUT", "out"}} {
			s.try(f, "-w", "-D", s.chain(way[0]), "-m", "physdev", "--physdev-is-bridged", "--physdev-"+way[1], v.Device, "-j", v.defaults())
		}
	}
	s.try("ebtables", "-t", "nat", "-D", "PREROUTING", "-i", v.Device, "-j", v.Name+"-in")
	s.try("ebtables", "-t", "nat", "-D", "POSTROUTING", "-o", v.Device, "-j", v.Name+"-out")
	for _, c := range v.bridgeChains() {
		s.try("ebtables", "-t", "nat", "-F", c)
	}
	for _, c := range v.bridgeChains() {
		s.try("ebtables", "-t", "nat", "-X", c)
	}
	for _, f := range families {
		for _, c := range []string{v.defaults(), v.ingress(), v.egress()} {
			s.try(f, "-w", "-F", c)
			s.try(f, "-w", "-X", c)
		}
	}
	s.try("ipset", "destroy", v.set4())
	s.try("ipset", "destroy", v.set6())
}
