package stock

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

type plugin struct {
	*State
	call
	python3 bool
}

var functions = map[string]func(*plugin) (string, error){
	"can_bridge_firewall":            func(*plugin) (string, error) { return fmt.Sprint(os.Getenv(envOVS) == ""), nil },
	"default_network_rules":          (*plugin).defaults,
	"default_network_rules_systemvm": (*plugin).system,
	"network_rules":                  (*plugin).rules,
	"network_rules_vmSecondaryIp":    (*plugin).secondary,
	"destroy_network_rules_for_vm":   (*plugin).destroy,
	"get_rule_logs_for_vms":          (*plugin).logs,
	"cleanup_rules":                  (*plugin).cleanup,
}

// domid asks XAPI; "" when the VM does not run.
func (p *plugin) domid(name string) (string, error) {
	var refs []string
	if err := p.ask("VM.get_by_name_label", &refs, name); err != nil || len(refs) == 0 {
		return "", err
	}
	var id string
	err := p.ask("VM.get_domid", &id, refs[0])
	if id == "-1" {
		id = ""
	}
	return id, err
}

// secIPs splits as the plugin does: an empty text is an IndexError.
func secIPs(s string) ([]string, error) {
	list := strings.Split(s, ";")
	list = list[:len(list)-1]
	if len(list) == 0 {
		return nil, failure{"<type 'exceptions.IndexError'>", "list index out of range"}
	}
	if list[0] == "0" {
		return nil, nil
	}
	return list, nil
}

func looksSystem(name string) bool {
	return slices.ContainsFunc([]string{"r-", "s-", "v-", "l-"}, func(p string) bool { return strings.HasPrefix(name, p) })
}

func (p *plugin) defaults() (string, error) {
	var v [5]string
	for i, name := range []string{"vmName", "vmIP", "vmMAC", "vmID", "secIps"} {
		var err error
		if v[i], err = p.arg(name); err != nil {
			return "", err
		}
	}
	domid, err := p.domid(v[0])
	if err != nil || domid == "" {
		return "false", err
	}
	list, err := secIPs(v[4])
	if err != nil {
		return "", err
	}
	vm := &VM{Device: "vif" + domid + ".0", Addresses: append([]string{v[1]}, list...), ARP: append([]string{v[1]}, list...),
		Log: []string{v[0], v[3], v[1], domid, "_initial_", "-1", v[2]}}
	p.VMs[v[0]] = vm
	p.Guards = append(p.Guards, [2]string{vm.Device, v[2]})
	return "true", nil
}

func (p *plugin) system() (string, error) {
	name, err := p.arg("vmName")
	if err != nil {
		return "", err
	}
	domid, err := p.domid(name)
	if err != nil || domid == "" {
		return "false", err
	}
	p.VMs[name] = &VM{System: true, Device: "vif" + domid + ".0", Log: []string{name, "-1", "_ignore_", domid, "_initial_", "-1", "ff:ff:ff:ff:ff:ff"}}
	return "true", nil
}

func (p *plugin) rules() (string, error) {
	var v [6]string
	for i, name := range []string{"vmName", "vmIP", "vmID", "signature", "seqno", "rules"} {
		var err error
		if v[i], err = p.arg(name); err != nil {
			return "", err
		}
	}
	name, seqno := v[0], v[4]
	if looksSystem(name) {
		return "true", nil
	}
	domid, err := p.domid(name)
	if err != nil || domid == "" {
		return "false", err
	}
	vm := p.VMs[name]
	if vm == nil || vm.Log[1] != v[2] || vm.Log[2] != v[1] || vm.Log[3] != domid {
		if out, err := p.defaults(); err != nil || out != "true" {
			return out, err
		}
		vm = p.VMs[name]
	} else {
		have, _ := strconv.Atoi(vm.Log[5])
		now, _ := strconv.Atoi(seqno)
		switch {
		case now < have, now == have && v[3] == vm.Log[4]:
			return "true", nil
		case now > have && v[3] == vm.Log[4]:
			vm.Log[5] = seqno
			return "true", nil
		}
	}
	text := v[5]
	if strings.EqualFold(p.args["deflated"], "true") {
		if p.python3 {
			// What it inflates is bytes, and it splits them with text (R24).
			return "", failure{"<class 'TypeError'>", "a bytes-like object is required, not 'str'"}
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", failure{"<class 'binascii.Error'>", err.Error()}
		}
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			return "", failure{"<class 'zlib.error'>", err.Error()}
		}
		if b, err = io.ReadAll(z); err != nil {
			return "", failure{"<class 'zlib.error'>", err.Error()}
		}
		text = string(b)
	}
	vm.Ingress, vm.Egress, vm.EgressDrop = nil, nil, false // the flush comes first
	egress := false
	for _, line := range strings.Split(text, " ") {
		parts := strings.Split(line, ";")
		if len(parts) != 4 {
			continue
		}
		egress = egress || strings.HasPrefix(line, "E:")
		if err := p.rule(name, vm, parts); err != nil {
			return "", err
		}
	}
	vm.EgressDrop = egress
	vm.Log[4], vm.Log[5] = v[3], seqno
	return "true", nil
}

// rule makes one rule and its set, faults and all.
func (p *plugin) rule(name string, vm *VM, parts []string) error {
	direction, protocol, _ := strings.Cut(parts[0], ":")
	if _, err := strconv.Atoi(protocol); err == nil {
		return nothing // iptables refuses -m <number>; chains are flushed already (R17)
	}
	r := Rule{Protocol: protocol}
	r.Start, _ = strconv.Atoi(parts[1])
	r.End, _ = strconv.Atoi(parts[2])
	cidrs := strings.Split(parts[3], ",")
	cidrs = cidrs[:len(cidrs)-1] // NEXT
	chain := &vm.Ingress
	if direction == "E" {
		chain = &vm.Egress
	}
	any := slices.Index(cidrs, "0.0.0.0/0")
	if any >= 0 {
		cidrs = slices.Delete(cidrs, any, any+1)
		if protocol != "all" { // of which it makes none (R18)
			*chain = append(*chain, r)
		}
	}
	if len(cidrs) == 0 {
		return nil
	}
	r.Set = setName(name, direction, r)
	temp := strings.NewReplacer("-", "", "_", "").Replace(r.Set)
	now := time.Now().Unix()
	if p.Temporary[temp] == now {
		return nothing // the temporary set of the same second is there (R22)
	}
	p.Temporary[temp] = now
	p.Sets[r.Set] = cidrs
	for _, c := range cidrs {
		if x, err := netip.ParsePrefix(c); err != nil || x.Addr().Is6() {
			p.Sets[r.Set] = nil // one that ipset refuses empties the set (R19)
		}
	}
	*chain = append(*chain, r)
	return nil
}

// setName cuts long names (R21).
func setName(name, direction string, r Rule) string {
	if len(name) > 14 {
		name = name[:13]
	}
	if direction == "E" {
		name += "-e"
	}
	if r.Start == -1 {
		return name + r.Protocol[:1] + "_any"
	}
	return name + r.Protocol[:1] + strconv.Itoa(r.Start) + "_" + strconv.Itoa(r.End)
}

func (p *plugin) secondary() (string, error) {
	name, err := p.arg("vmName")
	if err != nil {
		return "", err
	}
	vm := p.VMs[name]
	if vm == nil {
		return "false", nil
	}
	a := p.args["vmSecIp"]
	drop := func(list []string) []string { return slices.DeleteFunc(list, func(s string) bool { return s == a }) }
	vm.Addresses, vm.ARP = drop(vm.Addresses), drop(vm.ARP)
	if p.args["action"] == "-A" {
		vm.Addresses, vm.ARP = append(vm.Addresses, a), append(vm.ARP, a)
	}
	return "true", nil
}

func (p *plugin) destroy() (string, error) {
	name, err := p.arg("vmName")
	if err != nil {
		return "", err
	}
	delete(p.VMs, name)
	for set := range p.Sets { // by the whole name, so the sets of long ones stay (R21)
		if strings.HasPrefix(set, name) {
			delete(p.Sets, set)
		}
	}
	return "true", nil
}

func (p *plugin) logs() (string, error) {
	var out []string
	for name, vm := range p.VMs {
		domid, err := p.domid(name)
		if err != nil {
			return " ", nil
		}
		if domid == "" || vm.System || !strings.HasPrefix(name, "i-") {
			continue
		}
		if domid != vm.Log[3] { // it has started anew: rewired, but for the ARP of secondary addresses (R23)
			vm.Device, vm.ARP = "vif"+domid+".0", vm.ARP[:1]
			vm.Log[3], vm.Log[5] = domid, "-1"
			p.Guards = append(p.Guards, [2]string{vm.Device, vm.Log[6]})
		}
		out = append(out, strings.Join(vm.Log[:6], ","))
	}
	slices.Sort(out)
	return strings.Join(out, ";"), nil
}

func (p *plugin) cleanup() (string, error) {
	n := 0
	for name := range p.VMs {
		if domid, err := p.domid(name); err != nil {
			return "-1", nil
		} else if domid == "" {
			delete(p.VMs, name)
			n++
		}
	}
	return strconv.Itoa(n), nil
}
