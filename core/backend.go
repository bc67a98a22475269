package core

import (
	"context"
	"net/netip"
)

// Settings are a driver's or an adapter's own settings from the config file:
// scalars, lists and maps as YAML gives them. Info.Settings is their schema.
type Settings map[string]any

// Info describes a driver or an adapter before it is opened.
type Info struct {
	Name     string
	Version  string
	Settings []SettingInfo
	Features []Feature
}

// SettingInfo is one row of a settings schema.
type SettingInfo struct {
	Name     string
	Type     string // string, bool, int, duration, strings
	Default  string // as a user would write it; empty = none
	Choices  []string
	Required bool
	Help     string // one line
}

// BackendDriver makes backends. Open binds one to an enforcement point; it
// changes nothing there. An unknown or malformed setting is a FieldError.
type BackendDriver interface {
	Info() Info
	Open(ctx context.Context, s Settings) (SecurityGroupBackend, error)
}

// SecurityGroupBackend programs one enforcement point. The caller serialises
// Sync, Apply, RevokeFlows and Teardown; the others may run beside them.
type SecurityGroupBackend interface {
	// Info is the driver's, with the features that this point really has.
	Info() Info
	// Preflight looks at the point and changes nothing.
	Preflight(ctx context.Context) ([]Check, error)
	// Sync makes the point hold exactly r, whatever it holds now. What both
	// the old and the new ruleset allow is never interrupted, and no moment
	// allows more than both. On error the former state is still in force; an
	// *ObjectError names what was refused.
	Sync(ctx context.Context, r Ruleset) error
	// Apply is Sync by difference. ErrConflict when d.From is not in force.
	Apply(ctx context.Context, d Delta) error
	// Observe reads back what is enforced now.
	Observe(ctx context.Context) (Observation, error)
	// Counters reads packets and bytes per NIC, direction and reason.
	Counters(ctx context.Context) ([]Counter, error)
	// Teardown removes everything this driver ever made at the point, and
	// nothing else. It opens every port: call it last.
	Teardown(ctx context.Context) error
	// Close lets go of handles. What is enforced stays.
	Close() error
}

// FlowBackend is a SecurityGroupBackend with FeatureFlows.
type FlowBackend interface {
	// Flows lists the tracked flows that touch managed bridges.
	Flows(ctx context.Context) ([]Flow, error)
	// RevokeFlows marks the first list revoked, so that neither end's next
	// packet passes, and gives the second list back. Flows that are gone by
	// now are no error. It reports how many entries it changed.
	RevokeFlows(ctx context.Context, revoke, restore []Flow) (int, error)
}

// EventBackend is a SecurityGroupBackend with FeatureEvents.
type EventBackend interface {
	// Events reports changes at the point that this backend did not make,
	// until ctx ends, then closes the channel.
	Events(ctx context.Context) (<-chan Event, error)
}

// Event is a foreign change, or one of the point's own that needs attention.
type Event struct {
	Kind   EventKind
	Object string // what changed, in the driver's words
	By     string // who did it, where the system tells: name[pid]
}

// EventKind classifies an Event.
type EventKind uint8

const (
	// EventDrift: enforced state was changed by somebody else.
	EventDrift EventKind = iota + 1
	// EventRepaired: the driver has put a prerequisite back (a bridge switch).
	EventRepaired
	// EventLost: events were missed; Observe to be sure.
	EventLost
	// EventPorts: ports of managed bridges came or went.
	EventPorts
)

func (k EventKind) String() string {
	return [...]string{"", "drift", "repaired", "lost", "ports"}[k]
}

// Status of a Check.
type Status uint8

const (
	StatusOK Status = iota
	StatusWarning
	// StatusTransient fails now but may pass later without anybody's help.
	StatusTransient
	// StatusError fails until somebody mends it.
	StatusError
)

func (s Status) String() string {
	return [...]string{"ok", "warning", "waiting", "error"}[s]
}

// MarshalText makes a Status a word in JSON and YAML.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Check is one line of doctor.
type Check struct {
	Name     string // short and stable: br-netfilter
	Status   Status
	Summary  string // one line: what is so
	Evidence string // what was seen: a file's content, a rule, an error
	Fix      string // the exact command or setting that mends it; empty when OK
}

// Observation is what a point enforces, compared with what the backend was
// last told (or, after a restart, with the fingerprint kept at the point).
type Observation struct {
	Fingerprint Fingerprint // kept at the point; zero = nothing of ours there
	// Drift lists every difference. Empty and Fingerprint as wanted: in sync.
	Drift []Drift
}

// Drift is one difference between what should be and what is.
type Drift struct {
	Object     string // in the driver's words: chain bridge ringwall/ingress
	Difference string // missing, unexpected, changed: with both sides
	NIC        NICKey // when it concerns one NIC
}

// Reason says why a packet passed or not. Backends count by it, and the
// evaluator gives it.
type Reason string

const (
	ReasonEstablished  Reason = "established"
	ReasonRelated      Reason = "related"
	ReasonRule         Reason = "rule"          // an entry allowed it
	ReasonAlways       Reason = "always"        // DHCP client, DNS, ND, MLD, ARP
	ReasonDefault      Reason = "default"       // egress with no egress rules
	ReasonSystem       Reason = "system"        // system VM
	ReasonHost         Reason = "host"          // the host's own traffic
	ReasonUplink       Reason = "uplink"        // neither end is a VM here
	ReasonClosedPort   Reason = "closed-port"   // a VM-like port without policy
	ReasonEtherType    Reason = "ethertype"     // neither ARP, IPv4 nor IPv6
	ReasonVLAN         Reason = "vlan"          // 802.1Q or 802.1ad tag
	ReasonLinkLocal    Reason = "link-local"    // to 01:80:c2:00:00:0X
	ReasonMACSpoof     Reason = "mac-spoof"     // source MAC is not the NIC's
	ReasonIPSpoof      Reason = "ip-spoof"      // source address is not the NIC's
	ReasonARPSpoof     Reason = "arp-spoof"     // ARP sender is not the NIC
	ReasonNDSpoof      Reason = "nd-spoof"      // ND speaks for another
	ReasonRAGuard      Reason = "ra-guard"      // RA or redirect from a VM
	ReasonDHCPGuard    Reason = "dhcp-guard"    // DHCP server, or client in disguise
	ReasonDestination  Reason = "destination"   // not addressed to this NIC
	ReasonMulticast    Reason = "multicast"     // multicast: drop
	ReasonRevoked      Reason = "revoked"       // the flow was revoked
	ReasonInvalid      Reason = "invalid"       // conntrack: invalid
	ReasonNotOwner     Reason = "related-alien" // an error for somebody else's flow
	ReasonIngressRules Reason = "ingress-rules" // no ingress rule allows it
	ReasonEgressRules  Reason = "egress-rules"  // no egress rule allows it
	ReasonUnfiltered   Reason = "unfiltered"    // the bridge's netfilter switch is off
	// ReasonPassed counts all that passed, where a driver does not tell by which
	// rule so as not to slow packets down.
	ReasonPassed Reason = "passed"
)

// Counter is what one NIC's traffic came to for one reason. Packets counted
// for a reason that allows are those of that reason's kind only where the
// driver can tell without slowing the packet path; see the driver's page.
type Counter struct {
	NIC       NICKey
	Device    string // for a closed port, which has no NIC
	Direction Direction
	Reason    Reason
	Packets   uint64
	Bytes     uint64
}

// Flow is a tracked connection, described by its first packet.
type Flow struct {
	Bridge   string // empty = the host's own zone: traffic to, from and through the host
	Protocol Protocol
	Src, Dst netip.Addr // as the first packet had them
	// SrcPort, DstPort of tcp, udp and sctp; for ICMP SrcPort is the
	// identifier and DstPort type<<8|code.
	SrcPort, DstPort uint16
	Revoked          bool
	// HostSrc: the host itself opened the flow.
	HostSrc bool
	// From and To are the NICs at its ends where the backend knows better than
	// by address (anti-spoofing off, shared pairs).
	From, To NICKey
}
