package nftables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
)

// legacyTable is a table of the old iptables, which nf_tables does not show.
type legacyTable struct {
	family core.Family
	name   string
	policy map[string]string // of the built-in chains
	rules  []legacyRule
}

// legacyRule is a rule as iptables-save writes it.
type legacyRule struct {
	chain string
	words []string // after "-A CHAIN"
	text  string
}

func (t legacyTable) command() string {
	if t.family == core.IPv6 {
		return "ip6tables-legacy"
	}
	return "iptables-legacy"
}

func (t legacyTable) title() string { return t.command() + " table " + t.name }

// listLegacy reads the tables that are in use in the thread's namespace. Asking
// for one that is not would make it; the kernel tells by a file which there are.
func listLegacy(f files) ([]legacyTable, error) {
	var out []legacyTable
	for family, file := range map[core.Family]string{core.IPv4: "ip_tables_names", core.IPv6: "ip6_tables_names"} {
		b, err := os.ReadFile(filepath.Join(f.net, file))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Fields(string(b)) {
			t, err := readLegacy(family, name)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b legacyTable) int { return strings.Compare(a.title(), b.title()) })
	return out, nil
}

func readLegacy(family core.Family, name string) (legacyTable, error) {
	t := legacyTable{family: family, name: name, policy: map[string]string{}}
	protocol := iptables.ProtocolIPv4
	if family == core.IPv6 {
		protocol = iptables.ProtocolIPv6
	}
	ipt, err := iptables.New(iptables.IPFamily(protocol), iptables.Path(t.command()))
	if err != nil {
		return t, fmt.Errorf("read %s: %w", t.title(), err)
	}
	chains, err := ipt.ListChains(name)
	if err != nil {
		return t, fmt.Errorf("read %s: %w", t.title(), err)
	}
	for _, c := range chains {
		lines, err := ipt.List(name, c)
		if err != nil {
			return t, fmt.Errorf("read %s: %w", t.title(), err)
		}
		for _, line := range lines {
			words := strings.Fields(line)
			switch {
			case len(words) == 3 && words[0] == "-P":
				t.policy[words[1]] = words[2]
			case len(words) > 2 && words[0] == "-A":
				t.rules = append(t.rules, legacyRule{words[1], words[2:], line})
			}
		}
	}
	return t, nil
}

// blocks walks the FORWARD chains, as for nf_tables.
func (t legacyTable) blocks(bridge string) []finding {
	const chain = "FORWARD"
	policy, ok := t.policy[chain]
	if !ok {
		return nil
	}
	chains := map[string][]step{}
	for _, r := range t.rules {
		chains[r.chain] = append(chains[r.chain], r.step(bridge))
	}
	end := walk(chains, chain, 0)
	switch {
	case end.kind == passes || end.kind == undecided && policy == "ACCEPT":
		return nil
	case end.kind == undecided:
		end.text = "-P FORWARD " + policy
	}
	return []finding{{core.StatusError, fmt.Sprintf("chain %s of %s drops bridged packets", chain, t.title()), end.text,
		fmt.Sprintf("%s -t %s -I %s -m physdev --physdev-is-bridged -j ACCEPT", t.command(), t.name, chain)}}
}

// step reads what the walk needs of a rule's words.
func (r legacyRule) step(bridge string) step {
	s := step{applies: always, text: r.text}
	inverted := false
	for i := 0; i < len(r.words); i++ {
		arg := ""
		if i+1 < len(r.words) {
			arg = r.words[i+1]
		}
		match := always
		switch w := r.words[i]; w {
		case "!":
			inverted = true
			continue
		case "-i", "-o":
			prefix, wild := strings.CutSuffix(arg, "+")
			is := bridge == arg || wild && strings.HasPrefix(bridge, prefix)
			if is == inverted {
				match = never
			}
			i++
		case "-m":
			i++ // the options say what is asked
		case "--comment":
			i = endOfQuoted(r.words, i+1)
		case "--physdev-is-bridged":
			if inverted {
				match = never
			}
		case "-j", "-g":
			s.target(w, arg)
			i = len(r.words) // what follows are the target's options
		default:
			match = perhaps
		}
		s.applies, inverted = min(s.applies, match), false
	}
	return s
}

func (s *step) target(how, name string) {
	s.decides = true
	switch name {
	case "ACCEPT", "NFQUEUE":
		s.verdict = expr.VerdictAccept
	case "DROP", "REJECT":
		s.verdict = expr.VerdictDrop
	case "RETURN":
		s.verdict = expr.VerdictReturn
	case "MARK", "CONNMARK", "LOG", "NFLOG", "CT", "TRACE", "TEE", "TCPMSS", "CLASSIFY", "SET", "DSCP", "CHECKSUM":
		s.decides = false // goes on with the next rule
	default:
		s.verdict, s.chain = expr.VerdictJump, name
		if how == "-g" {
			s.verdict = expr.VerdictGoto
		}
	}
}

// endOfQuoted is the index of the last word of a quoted text.
func endOfQuoted(words []string, i int) int {
	if i >= len(words) || !strings.HasPrefix(words[i], `"`) {
		return i
	}
	for j := i; j < len(words); j++ {
		if strings.HasSuffix(words[j], `"`) && (j > i || len(words[j]) > 1) {
			return j
		}
	}
	return len(words) - 1
}

func (r legacyRule) devices() []string {
	var out []string
	for i, w := range r.words {
		switch w {
		case "-i", "-o", "--physdev-in", "--physdev-out":
			if i+1 < len(r.words) {
				out = append(out, strings.TrimSuffix(r.words[i+1], "+"))
			}
		}
	}
	return out
}

// marks lists the bits of marks that the rule reads and writes.
func (r legacyRule) marks() (u markUse) {
	target, connmark := "", slices.Contains(r.words, "connmark")
	nf, ct := ^uint32(0), ^uint32(0)
	for i, w := range r.words {
		arg := ""
		if i+1 < len(r.words) {
			arg = r.words[i+1]
		}
		value, mask := markArgument(arg)
		switch w {
		case "-j":
			target = arg
		case "--mark":
			if connmark {
				u.ct.reads |= mask
			} else {
				u.packet.reads |= mask
			}
		case "--set-xmark", "--set-mark":
			if target == "CONNMARK" {
				u.ct.writes |= value | mask
			} else {
				u.packet.writes |= value | mask
			}
		case "--nfmask":
			nf = value
		case "--ctmask":
			ct = value
		}
	}
	switch {
	case slices.Contains(r.words, "--save-mark"):
		u.ct.writes |= nf | ct
	case slices.Contains(r.words, "--restore-mark"):
		u.packet.writes |= nf | ct
	}
	return u
}

// markArgument reads VALUE or VALUE/MASK.
func markArgument(s string) (value, mask uint32) {
	v, m, masked := strings.Cut(s, "/")
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil {
		return 0, 0
	}
	if mask = ^uint32(0); masked {
		if k, err := strconv.ParseUint(m, 0, 32); err == nil {
			mask = uint32(k)
		}
	}
	return uint32(n), mask
}
