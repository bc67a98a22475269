package iptables

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Names of our own begin so; whatever bears one is ours.
const ownPrefix = "rw-"

// Chains that stand whatever the policies are.
const (
	chainBefore  = "rw-before"  // ebtables nat PREROUTING: our bits cleared
	chainEntry   = "rw-entry"   // ebtables nat PREROUTING: ports without a NIC
	chainExit    = "rw-exit"    // ebtables nat POSTROUTING: likewise
	chainForward = "rw-forward" // ebtables filter FORWARD
	chainInput   = "rw-input"   // ebtables filter INPUT
	chainOutput  = "rw-output"  // ebtables filter OUTPUT
	chainHost    = "rw-host"    // ebtables filter OUTPUT: the host's own
	chainMine    = "rw-mine"    // ebtables: marks a chain as ours, and does nothing
	chainZones   = "rw-zones"   // raw PREROUTING
	chainBridged = "rw-bridged" // filter FORWARD, from port to port
	chainPorts   = "rw-ports"   // raw PREROUTING: what comes up at a VM port itself
	chainBegin   = "rw-begin"   // filter FORWARD, of packets that begin a flow
	chainTake    = "rw-take"    // likewise, of flows that went astray
	chainSeen    = "rw-seen"    // mangle PREROUTING
	chainSend    = "rw-send"    // the sender's rows, by port
	chainReceive = "rw-receive" // the receiver's rows, by port
)

// noteSet keeps the fingerprint of what is enforced.
const noteSet = "rw-fingerprint"

// hereSet holds the addresses of all NICs.
func hereSet(f core.Family) string {
	if f == core.IPv4 {
		return "rw-here4"
	}
	return "rw-here6"
}

func routedChain(bridge string) string { return "rw-routed-" + bridge }
func bridgeChain(bridge string) string { return "BF-" + bridge }
func okChain(slot int) string          { return "rw-ok-" + string(rune('0'+slot)) }

// names are what a NIC's objects are called: as CloudStack calls those of its
// VMs, so that its operators find them.
type names struct {
	base string // the VM's name; of further NICs, with a number
	// plain: the name is the VM's as it is.
	plain bool
}

// Limits: 28 bytes for a chain of iptables and of ebtables-nft (1.8.9 refuses
// more; ebtables-legacy takes 31), 31 for a set. The longest names made of a base
// are base-out-type and rw-base-o.
const maxBase = 19

func (n names) ingress() string { return n.base }
func (n names) egress() string  { return n.base + "-eg" }

// def is CloudStack's chain of default rules: the name without its last part.
func (n names) def() string {
	if i := strings.LastIndexByte(n.base, '-'); n.plain && i > 0 {
		return n.base[:i] + "-def"
	}
	return n.base + "-def"
}

// wholeDef is that of a XenServer host: of the whole name.
func (n names) wholeDef() string { return n.base + "-def" }

func (n names) set(f core.Family) string {
	if f == core.IPv6 {
		return n.base + "-6"
	}
	return n.base
}

// pairSet holds the IPv4 pairs that are prefixes: CloudStack's set takes
// addresses alone.
func (n names) pairSet() string { return n.base + "-net" }

// own names a chain that CloudStack has no name for.
func (n names) own(part string) string { return ownPrefix + n.base + "-" + part }

// frame names a chain of ebtables.
func (n names) frame(part string) string { return n.base + "-" + part }

// all are the names that a base takes up.
func (n names) all() []string {
	out := []string{n.ingress(), n.egress(), n.def(), n.set(core.IPv6), n.pairSet()}
	if def := n.wholeDef(); def != n.def() {
		out = append(out, def)
	}
	return out
}

// assignNames gives each NIC that is plugged in a base of its own. The order is
// that of keys and devices, so that the same policies get the same names.
func assignNames(nics []core.NICPolicy) map[core.NICKey]names {
	sorted := slices.Clone(nics)
	// The first NIC of a VM is the one whose device was made first: libvirt
	// numbers taps in that order.
	slices.SortFunc(sorted, func(a, b core.NICPolicy) int {
		return cmp.Or(cmp.Compare(a.Key.VM, b.Key.VM), compareDevices(a, b), slices.Compare(a.Key.MAC[:], b.Key.MAC[:]))
	})
	out := map[core.NICKey]names{}
	taken := map[string]bool{}
	ofVM := map[core.VMKey]int{}
	for _, n := range sorted {
		ofVM[n.Key.VM]++
		candidate := names{base: n.VM, plain: true}
		if i := ofVM[n.Key.VM]; i > 1 {
			candidate.plain = false
			candidate.base += "." + string(rune('0'+i%10))
		}
		if !usable(candidate.base) || slices.ContainsFunc(candidate.all(), func(s string) bool { return taken[s] }) {
			candidate = hashed(n)
		}
		for _, s := range candidate.all() {
			taken[s] = true
		}
		out[n.Key] = candidate
	}
	return out
}

func compareDevices(a, b core.NICPolicy) int {
	if len(a.Devices) == 0 || len(b.Devices) == 0 {
		return cmp.Compare(len(b.Devices), len(a.Devices))
	}
	x, y := a.Devices[0], b.Devices[0]
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
}

// usable says whether a VM's name can be a chain's. Names without a dash and in
// one case alone may be those of targets (MARK, arpreply).
func usable(s string) bool {
	if len(s) > maxBase || strings.HasPrefix(s, ownPrefix) || strings.HasPrefix(s, "BF-") || strings.HasPrefix(s, "BRIDGE-") || !strings.Contains(s, "-") {
		return false
	}
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return true
}

// hashed is a readable part of the VM's name and a sum of the NIC's key.
func hashed(n core.NICPolicy) names {
	clean := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, n.VM)
	return names{base: "vm-" + clean[:min(len(clean), maxBase-13)] + "-" + sum(string(n.Key.VM), n.Key.MAC.String())[:9]}
}

// sum is an unambiguous hash of its parts.
func sum(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return fmt.Sprintf("%x", h)
}
