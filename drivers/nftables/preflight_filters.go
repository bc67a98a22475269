package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// br_netfilter shows each bridged packet to ip prerouting, forward and
// postrouting, where other software drops what it was not told of: Docker sets
// iptables' FORWARD policy to DROP, firewalld rejects at the end of its chain.
// Whether a packet of no special kind gets through is found by walking the
// rules with what is known of it: its family and its bridge.

// certainty is whether a rule applies to any packet bridged on a bridge.
type certainty uint8

const (
	never certainty = iota
	perhaps
	always
)

// step is a rule for the walk. Verdicts are nf_tables' words.
type step struct {
	applies certainty
	verdict expr.VerdictKind
	chain   string // of jump and goto
	decides bool   // it has a verdict
	text    string
}

// fate is what becomes of the packet at the end of a walk.
type fate struct {
	kind fateKind
	text string // the rule that decided
}

type fateKind uint8

const (
	undecided fateKind = iota
	passes
	drops
)

// walk follows the rules of a chain that apply for sure. Rules that may apply
// are passed over: what is asked is the fate of a packet that no rule knows.
func walk(chains map[string][]step, name string, depth int) fate {
	if depth > 16 { // NFT_JUMP_STACK_SIZE
		return fate{}
	}
	for _, s := range chains[name] {
		if s.applies != always || !s.decides {
			continue
		}
		switch s.verdict {
		case expr.VerdictAccept:
			return fate{passes, s.text}
		case expr.VerdictDrop:
			return fate{drops, s.text}
		case expr.VerdictReturn:
			return fate{}
		case expr.VerdictGoto:
			return walk(chains, s.chain, depth+1)
		case expr.VerdictJump:
			if f := walk(chains, s.chain, depth+1); f.kind != undecided {
				return f
			}
		}
	}
	return fate{}
}

// checkForeignFilters finds chains of others in which bridged packets end.
func (s *surroundings) checkForeignFilters() core.Check {
	var found []finding
	for _, b := range s.managed() {
		for _, t := range s.foreign {
			if t.Family == nft.Bridge || s.meetsIPHooks(b) {
				found = appendNew(found, s.blockedIn(t, b)...)
			}
		}
		for _, t := range s.legacy {
			if s.meetsIPHooks(b) {
				found = appendNew(found, t.blocks(b.Name)...)
			}
		}
	}
	if s.unread != nil {
		found = append(found, finding{core.StatusWarning, "iptables-legacy is in use, and what it drops cannot be read", s.unread.Error(), "apt-get install iptables (or what brings iptables-legacy), then look again"})
	}
	return conclude("foreign-filters", "no other firewall drops bridged packets", found)
}

// meetsIPHooks says whether packets bridged on b meet the ip hooks: always where
// the datapath needs them there, else when somebody has switched that on, for
// the bridge or for the whole host.
func (s *surroundings) meetsIPHooks(b links.Bridge) bool {
	return !s.native || b.NFCall.IPTables || b.NFCall.IP6Tables ||
		s.files.values["net/bridge/bridge-nf-call-iptables"] == "1" || s.files.values["net/bridge/bridge-nf-call-ip6tables"] == "1"
}

// appendNew leaves out what another bridge has brought up.
func appendNew(found []finding, more ...finding) []finding {
	for _, f := range more {
		if !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	return found
}

func (s *surroundings) blockedIn(t *nft.Table, b links.Bridge) []finding {
	var asked []core.Family
	switch t.Family {
	case nft.IPv4:
		asked = []core.Family{core.IPv4}
	case nft.IPv6:
		asked = []core.Family{core.IPv6}
	case nft.Inet, nft.Bridge:
		asked = core.Families[:]
	}
	var found []finding
	for _, name := range sortedNames(t.Chains) {
		base := t.Chains[name].Base
		if base == nil || base.Type != nft.TypeFilter {
			continue
		}
		switch base.Hook {
		case nft.Prerouting, nft.Forward, nft.Postrouting:
		default:
			continue
		}
		for _, f := range asked {
			p := bridged{family: f, bridge: b, hook: base.Hook, inBridgeTable: t.Family == nft.Bridge}
			end := walk(p.steps(t), name, 0)
			switch {
			case end.kind == passes || end.kind == undecided && base.Policy == nft.Accept:
				continue
			case end.kind == undecided:
				end.text = "policy drop"
			}
			found = append(found, finding{core.StatusError, fmt.Sprintf("chain %s of table %s drops bridged packets", name, t.TableID),
				fmt.Sprintf("table %s chain %s (%s): %s", t.TableID, name, hookWord(base.Hook), end.text), letThrough(t, name, base.Hook, b.Name)})
			break
		}
	}
	return found
}

func hookWord(h nft.Hook) string {
	return map[nft.Hook]string{nft.Prerouting: "prerouting", nft.Forward: "forward", nft.Postrouting: "postrouting"}[h]
}

// letThrough is the command that lets a bridge's packets through a chain. The
// names of iptables' and ebtables' own tables and chains are taken for theirs.
func letThrough(t *nft.Table, chain string, hook nft.Hook, bridge string) string {
	command := map[nft.Family]string{nft.IPv4: "iptables", nft.IPv6: "ip6tables", nft.Bridge: "ebtables"}[t.Family]
	builtIn := slices.Contains([]string{"PREROUTING", "FORWARD", "POSTROUTING"}, chain) && command != ""
	switch {
	case builtIn && t.Family == nft.Bridge:
		return fmt.Sprintf("ebtables -t %s -I %s -j ACCEPT", t.Name, chain)
	case builtIn && hook == nft.Forward:
		return command + " -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT"
	case builtIn && hook == nft.Prerouting:
		return fmt.Sprintf("%s -t %s -I %s -i %s -j ACCEPT", command, t.Name, chain, bridge)
	case builtIn:
		return fmt.Sprintf("%s -t %s -I %s -o %s -j ACCEPT", command, t.Name, chain, bridge)
	case t.Name == "firewalld":
		// A rule of somebody else's in its table is lost when it reloads.
		return fmt.Sprintf("zone=$(firewall-cmd --get-zone-of-interface=%[1]s || firewall-cmd --get-default-zone); "+
			"firewall-cmd --permanent --zone=$zone --add-interface=%[1]s; firewall-cmd --permanent --zone=$zone --add-forward; firewall-cmd --reload", bridge)
	case t.Family == nft.Bridge:
		return fmt.Sprintf("nft insert rule %s %s accept", t.TableID, chain)
	}
	// A bridged packet has its bridge for input and for output device.
	match := ""
	if hook != nft.Postrouting {
		match += fmt.Sprintf(` iifname "%s"`, bridge)
	}
	if hook != nft.Prerouting {
		match += fmt.Sprintf(` oifname "%s"`, bridge)
	}
	return fmt.Sprintf("nft 'insert rule %s %s%s accept'", t.TableID, chain, match)
}

// bridged is what is known of a packet on its way over a bridge.
type bridged struct {
	family core.Family
	bridge links.Bridge
	hook   nft.Hook
	// inBridgeTable: the devices are ports there, and which ones is not known.
	inBridgeTable bool
}

func (p bridged) steps(t *nft.Table) map[string][]step {
	chains := map[string][]step{}
	for name, c := range t.Chains {
		for _, r := range c.Rules {
			st := p.step(r.Exprs)
			st.text = t.RuleText(r)
			chains[name] = append(chains[name], st)
		}
	}
	return chains
}

// step judges a rule's expressions one by one.
func (p bridged) step(exprs []expr.Any) step {
	s := step{applies: always}
	registers := map[uint32]*expr.Meta{}
	for _, e := range exprs {
		match := always
		switch e := e.(type) {
		case *expr.Meta:
			if !e.SourceRegister {
				registers[e.Register] = e
			}
		case *expr.Cmp:
			match = perhaps
			if m := registers[e.Register]; m != nil {
				match = p.compare(m.Key, e)
			}
		case *expr.Verdict:
			s.decides, s.verdict, s.chain = true, e.Kind, e.Chain
		case *expr.Reject:
			s.decides, s.verdict = true, expr.VerdictDrop
		case *expr.Counter, *expr.Log, *expr.Immediate, *expr.Objref, *expr.Notrack:
		case *expr.Ct:
			if !e.SourceRegister {
				delete(registers, e.Register)
			}
		case *expr.Payload:
			delete(registers, e.DestRegister)
		default:
			if x, ok := nft.AsExtension(e); ok {
				match = p.extension(x, &s)
				break
			}
			match = perhaps
		}
		s.applies = min(s.applies, match)
	}
	return s
}

// extension judges a match or a target of iptables.
func (p bridged) extension(x nft.Extension, s *step) certainty {
	switch {
	case x.Target:
		switch x.Name {
		case "REJECT", "DROP":
			s.decides, s.verdict = true, expr.VerdictDrop
		case "NFQUEUE":
			s.decides, s.verdict = true, expr.VerdictAccept // a program decides; no more is known
		}
		return always
	case x.Name == "comment":
		return always
	case x.Name == "physdev" && p.hook != nft.Prerouting && isBridgedOnly(x.Info):
		return always
	}
	return perhaps
}

// struct xt_physdev_info: the port a packet came in by, its mask, the port it
// goes out by, its mask, and which of all that is asked or inverted.
const (
	physdevOut    = 32
	physdevInvert = 64
	physdevAsks   = 65
	// XT_PHYSDEV_OP_*
	physdevIsBridged = 4
	physdevOps       = 31
)

func isBridgedOnly(info []byte) bool {
	return len(info) > physdevAsks && info[physdevAsks]&physdevOps == physdevIsBridged && info[physdevInvert]&physdevIsBridged == 0
}

func (p bridged) compare(key expr.MetaKey, c *expr.Cmp) certainty {
	var equal bool
	switch key {
	case expr.MetaKeyNFPROTO:
		number := map[core.Family]byte{core.IPv4: 2, core.IPv6: 10}[p.family]
		equal = len(c.Data) == 1 && c.Data[0] == number
	case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME, expr.MetaKeyIIF, expr.MetaKeyOIF:
		in := key == expr.MetaKeyIIFNAME || key == expr.MetaKeyIIF
		if p.inBridgeTable || in && p.hook == nft.Postrouting || !in && p.hook == nft.Prerouting {
			return perhaps
		}
		equal = p.isBridge(key, c.Data)
	default:
		return perhaps
	}
	switch {
	case c.Op == expr.CmpOpEq && equal, c.Op == expr.CmpOpNeq && !equal:
		return always
	case c.Op == expr.CmpOpEq, c.Op == expr.CmpOpNeq:
		return never
	}
	return perhaps
}

func (p bridged) isBridge(key expr.MetaKey, data []byte) bool {
	if key == expr.MetaKeyIIF || key == expr.MetaKeyOIF {
		return len(data) == 4 && int(binary.NativeEndian.Uint32(data)) == p.bridge.Index
	}
	var name [16]byte
	copy(name[:], p.bridge.Name)
	return bytes.HasPrefix(name[:], data) // a name's NUL ends it, a pattern has none
}

// checkPortRules finds rules of others about single VM ports: two owners of one
// port cannot both be right. libvirt's nwfilter is the usual one.
func (s *surroundings) checkPortRules() core.Check {
	var found []finding
	note := func(table, chain, port, text, show string) {
		f := finding{core.StatusError, fmt.Sprintf("%s has rules about VM port %s", table, port),
			fmt.Sprintf("%s chain %s: %s", table, chain, text), "find out which software writes them, and take VM ports out of its hands: " + show}
		if strings.HasPrefix(chain, "libvirt-") || strings.Contains(text, "libvirt-") || strings.Contains(text, "FI-"+port) || strings.Contains(text, "FO-"+port) {
			f.what = "libvirt's nwfilter guards VM port " + port
			f.by = "virsh edit DOMAIN: take <filterref> out of the interface, then start the VM again"
		}
		if !slices.ContainsFunc(found, func(o finding) bool { return o.what == f.what }) {
			found = append(found, f)
		}
	}
	for _, t := range s.foreign {
		for _, name := range sortedNames(t.Chains) {
			for _, r := range t.Chains[name].Rules {
				for _, port := range devicesOf(r.Exprs) {
					if s.isVMPort(port) {
						note("table "+t.TableID.String(), name, port, t.RuleText(r), "nft list table "+t.TableID.String())
					}
				}
			}
		}
	}
	for _, t := range s.legacy {
		for _, r := range t.rules {
			for _, port := range r.devices() {
				if s.isVMPort(port) {
					note(t.title(), r.chain, port, r.text, fmt.Sprintf("%s -t %s -S", t.command(), t.name))
				}
			}
		}
	}
	return conclude("vm-port-rules", "no other software has rules about VM ports", found)
}

// devicesOf lists the interface names that a rule compares with.
func devicesOf(exprs []expr.Any) []string {
	var out []string
	add := func(b []byte) {
		if name, _, _ := bytes.Cut(b, []byte{0}); len(name) > 0 {
			out = append(out, string(name))
		}
	}
	names := map[uint32]bool{}
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			names[e.Register] = !e.SourceRegister && (e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME)
		case *expr.Payload:
			names[e.DestRegister] = false
		case *expr.Cmp:
			if names[e.Register] {
				add(e.Data)
			}
		default:
			if x, ok := nft.AsExtension(e); ok && x.Name == "physdev" && len(x.Info) > physdevAsks {
				add(x.Info[:16])
				add(x.Info[physdevOut : physdevOut+16])
			}
		}
	}
	return out
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
