package core

import (
	"fmt"
	"slices"
	"strings"
)

// Feature names one thing that a backend may or may not be able to do. Every
// field or value of a Ruleset that can change a verdict belongs to one.
type Feature string

const (
	FeatureIPv4         Feature = "ipv4"
	FeatureIPv6         Feature = "ipv6"
	FeatureEgress       Feature = "egress"        // egress rules
	FeaturePorts        Feature = "ports"         // tcp, udp, sctp with port ranges
	FeatureICMP         Feature = "icmp"          // ICMP and ICMPv6 by type and code
	FeatureProtocols    Feature = "protocols"     // any other protocol by number
	FeatureRemoteGroups Feature = "remote-groups" // peers by group membership
	FeatureAntiSpoof    Feature = "anti-spoof"    // source MAC, IP, ARP and ND checks
	FeatureNoAntiSpoof  Feature = "anti-spoof-off"
	FeaturePairs        Feature = "allowed-pairs"
	FeatureMultiNIC     Feature = "multi-nic"
	FeatureSystemVM     Feature = "system-vm"
	FeatureMulticast    Feature = "multicast-by-rules"
	FeatureCountOnly    Feature = "count-only"
	FeatureFailClosed   Feature = "fail-closed-ports"
	FeatureFlows        Feature = "flows" // list and revoke tracked flows
	FeatureZones        Feature = "zones" // equal addresses on two bridges never share a flow
	// FeatureFlowEnds: a flow that went astray is judged at its receiver's port,
	// and is known by its NICs where its addresses do not tell whose it is
	// (docs/semantics.md, "Flows").
	FeatureFlowEnds Feature = "flow-ends"
	FeatureCounters Feature = "counters"
	FeatureEvents   Feature = "events"
	// FeatureSegments is all that private VLANs can do.
	FeatureSegments Feature = "segments"
)

// RequiredFeatures lists what a backend must be able to do to enforce r.
func (r Ruleset) RequiredFeatures() []Feature {
	need := map[Feature]bool{}
	if r.Options.CountOnly {
		need[FeatureCountOnly] = true
	}
	if r.Options.Multicast == MulticastByRules {
		need[FeatureMulticast] = true
	}
	if len(r.Options.VMPorts) > 0 || len(r.Options.Uplinks) > 0 {
		need[FeatureFailClosed] = true
	}
	// An entry's family is not needed for the entry's sake: it says nothing to a
	// NIC that has no address of the family, of which nothing passes in it.
	for _, g := range r.Groups {
		for _, e := range g.Entries {
			if e.Direction == Egress {
				need[FeatureEgress] = true
			}
			if e.Peer.Group != "" {
				need[FeatureRemoteGroups] = true
			}
			switch {
			case e.Protocol == AnyProtocol:
			case e.Protocol.HasPorts():
				need[FeaturePorts] = true
			case e.Protocol.IsICMP():
				need[FeatureICMP] = true
			default:
				need[FeatureProtocols] = true
			}
		}
	}
	perVM := map[VMKey]int{}
	for k, n := range r.NICs {
		perVM[k.VM]++
		if perVM[k.VM] > 1 {
			need[FeatureMultiNIC] = true
		}
		for _, f := range n.families() {
			need[map[Family]Feature{IPv4: FeatureIPv4, IPv6: FeatureIPv6}[f]] = true
		}
		if len(n.Pairs) > 0 {
			need[FeaturePairs] = true
		}
		switch {
		case n.Kind == SystemVM:
			need[FeatureSystemVM] = true
		case n.SpoofingAllowed:
			need[FeatureNoAntiSpoof] = true
		default:
			need[FeatureAntiSpoof] = true
		}
		if n.EgressDeny4 || n.EgressDeny6 {
			need[FeatureEgress] = true
		}
	}
	out := make([]Feature, 0, len(need))
	for f := range need {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}

// families are those in which something of the NIC can pass its rules.
func (n NICPolicy) families() (out []Family) {
	if n.SpoofingAllowed {
		return Families[:]
	}
	for _, a := range n.Addresses {
		out = append(out, FamilyOf(a))
	}
	for _, p := range n.Pairs {
		out = append(out, FamilyOf(p.Prefix.Addr()))
	}
	return out
}

// CheckFeatures refuses a Ruleset that needs what have lacks, by name.
func CheckFeatures(backend string, have []Feature, r Ruleset) error {
	var lack []string
	for _, f := range r.RequiredFeatures() {
		if !slices.Contains(have, f) {
			lack = append(lack, string(f))
		}
	}
	if len(lack) > 0 {
		return fmt.Errorf("backend %s lacks %s, which this policy needs; choose another driver or take the rules out: %w", backend, strings.Join(lack, ", "), ErrUnsupported)
	}
	return nil
}
