// Package stock takes away what CloudStack's own script has made of a KVM
// host's firewall, VM by VM, once Ringwall holds the VM to its rules. It starts
// the tools that the script uses: this is done once for each VM, and on no
// other path.
package stock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Host is the firewall of the namespace that this process is in.
type Host struct{}

// limits of the stock script: it cuts names.
const (
	maxChain  = 24 // of names longer than 25
	maxSet    = 30
	maxBridge = 22 // of the VM's name in the names of ebtables chains
)

var systemChain = regexp.MustCompile(`^[rsvl]-\d+-`)

// Remove takes away all that the script has made for a VM. Where chains of a
// bridge stay, because other VMs are in them, they let the VM's devices
// through; else they go, too. left says whether any are there still. It may be
// called again.
func (Host) Remove(ctx context.Context, vm string, devices []string) (left bool, err error) {
	var errs []error
	for _, family := range []string{"iptables", "ip6tables"} {
		saved, err := run(ctx, nil, family+"-save", "-t", "filter")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		script, more := plan(string(saved), vm, devices)
		left = left || more
		if script != "" {
			_, err = run(ctx, []byte(script), family+"-restore", "-w", "--noflush")
			errs = append(errs, err)
		}
	}
	errs = append(errs, removeBridge(ctx, vm))
	for _, set := range setsOf(vm) {
		if _, err := run(ctx, nil, "ipset", "-q", "list", "-n", set); err == nil {
			_, err = run(ctx, nil, "ipset", "destroy", set)
			errs = append(errs, err)
		}
	}
	return left, errors.Join(errs...)
}

func run(ctx context.Context, stdin []byte, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

func setsOf(vm string) []string {
	if len(vm) > maxSet {
		vm = vm[:maxSet]
	}
	return []string{vm, vm + "-6"}
}

// chainsOf names the script's chains of a VM in a filter table.
func chainsOf(vm string) []string {
	if len(vm) > maxChain+1 {
		vm = vm[:maxChain]
	}
	out := []string{vm, vm + "-eg"}
	if i := strings.LastIndexByte(vm, '-'); i > 0 {
		out = append(out, vm[:i]+"-def")
	}
	return out
}

// table is what iptables-save says of the filter table.
type table struct {
	chains []string
	rules  []rule
}

type rule struct {
	chain, target, text string // text without -A
}

func parse(saved string) (t table) {
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			t.chains = append(t.chains, name)
		}
		text, ok := strings.CutPrefix(line, "-A ")
		if !ok {
			continue
		}
		r := rule{text: text}
		words := strings.Fields(text)
		r.chain = words[0]
		for i, w := range words[:len(words)-1] {
			if w == "-j" || w == "-g" {
				r.target = words[i+1]
			}
		}
		t.rules = append(t.rules, r)
	}
	return t
}

// plan is what iptables-restore has to do, in one transaction. left: chains of
// a bridge stay.
func plan(saved, vm string, devices []string) (script string, left bool) {
	t := parse(saved)
	var b strings.Builder
	gone := map[string]bool{}
	for _, c := range chainsOf(vm) {
		gone[c] = slices.Contains(t.chains, c)
	}
	var bridges []string // whose chains are there
	for _, c := range t.chains {
		if name, ok := strings.CutPrefix(c, "BF-"); ok && strings.HasSuffix(name, "-OUT") {
			bridges = append(bridges, strings.TrimSuffix(name, "-OUT"))
		}
	}
	for _, bridge := range bridges {
		others := slices.ContainsFunc(t.rules, func(r rule) bool {
			return (r.chain == "BF-"+bridge+"-IN" || r.chain == "BF-"+bridge+"-OUT") && r.target != "ACCEPT" && !gone[r.target] && !systemChain.MatchString(r.target)
		})
		if !others {
			removeFramework(t, bridge, gone)
			continue
		}
		left = true
		for _, d := range devices {
			accept := rule{chain: "BF-" + bridge + "-OUT", text: fmt.Sprintf("BF-%s-OUT -m physdev --physdev-out %s --physdev-is-bridged -j ACCEPT", bridge, d)}
			if !slices.ContainsFunc(t.rules, func(r rule) bool { return r.text == accept.text }) {
				fmt.Fprintf(&b, "-I %s\n", strings.Replace(accept.text, "OUT ", "OUT 1 ", 1))
			}
		}
	}
	stale := func(r rule) bool { // of a VM that had the device before
		return strings.HasPrefix(r.chain, "BF-") && r.target != "ACCEPT" && slices.ContainsFunc(devices, func(d string) bool {
			return strings.Contains(r.text+" ", " --physdev-in "+d+" ") || strings.Contains(r.text+" ", " --physdev-out "+d+" ")
		})
	}
	dead := func(r rule) bool {
		return stale(r) || gone[r.target] || gone[r.chain] || r.chain == "FORWARD" && slices.ContainsFunc(bridges, func(br string) bool {
			return gone["BF-"+br] && (r.text == "FORWARD -o "+br+" -j DROP" || r.text == "FORWARD -i "+br+" -j DROP")
		})
	}
	for _, r := range t.rules {
		if dead(r) {
			fmt.Fprintf(&b, "-D %s\n", r.text)
		}
	}
	for _, c := range t.chains {
		if gone[c] {
			fmt.Fprintf(&b, "-X %s\n", c)
		}
	}
	if b.Len() == 0 {
		return "", left
	}
	return "*filter\n" + b.String() + "COMMIT\n", left
}

// removeFramework marks the chains of a bridge, and those of system VMs that
// only they lead to.
func removeFramework(t table, bridge string, gone map[string]bool) {
	chains := []string{"BF-" + bridge, "BF-" + bridge + "-IN", "BF-" + bridge + "-OUT"}
	for _, c := range chains {
		gone[c] = slices.Contains(t.chains, c)
	}
	for _, r := range t.rules {
		if !slices.Contains(chains, r.chain) || !systemChain.MatchString(r.target) {
			continue
		}
		elsewhere := slices.ContainsFunc(t.rules, func(o rule) bool { return o.target == r.target && !slices.Contains(chains, o.chain) })
		gone[r.target] = gone[r.target] || !elsewhere
	}
}

// removeBridge takes away the chains of ebtables. Jumps go first.
func removeBridge(ctx context.Context, vm string) error {
	if len(vm) > maxBridge {
		vm = vm[:maxBridge]
	}
	listed, err := run(ctx, nil, "ebtables-save")
	if err != nil {
		return err
	}
	var chains, jumps []string
	nat := false
	for line := range strings.Lines(string(listed)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			nat = line == "*nat"
		case nat && strings.HasPrefix(line, ":"+vm+"-"):
			name, _, _ := strings.Cut(line[1:], " ")
			if slices.Contains([]string{"-in", "-out", "-in-ips", "-out-ips", "-in-src", "-out-dst"}, strings.TrimPrefix(name, vm)) {
				chains = append(chains, name)
			}
		case nat && (strings.HasPrefix(line, "-A PREROUTING ") || strings.HasPrefix(line, "-A POSTROUTING ")) &&
			(strings.HasSuffix(line, " -j "+vm+"-in") || strings.HasSuffix(line, " -j "+vm+"-out")):
			jumps = append(jumps, strings.TrimPrefix(line, "-A "))
		}
	}
	var errs []error
	do := func(words ...string) {
		_, err := run(ctx, nil, append([]string{"ebtables", "-t", "nat"}, words...)...)
		errs = append(errs, err)
	}
	for _, j := range jumps {
		do(append([]string{"-D"}, strings.Fields(j)...)...)
	}
	for _, c := range chains {
		do("-F", c)
	}
	for _, c := range chains {
		do("-X", c)
	}
	return errors.Join(errs...)
}
