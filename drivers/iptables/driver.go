// Package iptables enforces rulesets with iptables, ip6tables, ebtables and IP
// sets, in the shape that operators of CloudStack hosts know.
//
// Goals, in this order:
//
//  1. No moment is more open than both the old and the new ruleset: narrow.go
//     says in which order the tables change.
//  2. What one of the tables fails to see, another drops: a frame leaves by a
//     NIC's port only with the marks of all that must have judged it (marks.go).
//     A flushed table, or a bridge whose netfilter is off, closes.
//  3. Three processes for a change, whatever its size: sets go over netlink, and
//     each of the programs is started once.
//  4. Chains, sets and the order of their rules are CloudStack's (layout) where
//     its own verify command looks for them.
//
// Where what is: guard.go the ports' own chains; source.go, destination.go
// ebtables; sender.go, receiver.go iptables and ip6tables, by the rows of
// docs/semantics.md; rules.go entries to rules and sets; slots.go routed packets
// to addresses that NICs share; names.go what things are called; render.go a
// ruleset to objects; backend.go the contract; internal/xtables, internal/ipset
// the objects and how they get to the kernel.
//
// What a reviewer should ask: which hook sees the packet that a rule relies on,
// and what if it does not? Which mark says so at the port?
package iptables

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// Name is the driver's name in config.
const Name = "iptables"

// Driver makes iptables backends.
func Driver() core.BackendDriver { return driver{} }

type driver struct{}

const (
	layoutKVM       = "kvm"
	layoutXenServer = "xenserver"
	variantAuto     = "auto"
)

func (driver) Info() core.Info {
	return core.Info{
		Name: Name, Version: "1",
		Settings: []core.SettingInfo{
			{Name: "layout", Type: "string", Default: layoutKVM, Choices: []string{layoutKVM, layoutXenServer},
				Help: "whose chain and set names to use: kvm as CloudStack's security_group.py, xenserver as its vmops"},
			{Name: "variant", Type: "string", Default: variantAuto, Choices: []string{variantAuto, string(xtables.NFT), string(xtables.Legacy)},
				Help: "which iptables to use; auto takes what the command iptables is"},
			{Name: "mark_mask", Type: "string", Default: "0x00ffff00",
				Help: "bits of the packet mark that are ours, at least 13; the lowest four are left to the nftables driver"},
			{Name: "flow_mark", Type: "string", Default: "0xe0000000",
				Help: "the three bits of the conntrack mark that are ours; the highest revokes a flow"},
			{Name: "owner_mark", Type: "string", Default: "0x00ffffff",
				Help: "bits of the conntrack mark that say whose a flow is, used only where NICs have pairs or anti-spoofing off"},
		},
		// Zones are lacking: fragments are put together before the table raw can
		// set a zone, so that pieces of two bridges may meet.
		Features: []core.Feature{
			core.FeatureIPv4, core.FeatureIPv6, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP, core.FeatureProtocols,
			core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureNoAntiSpoof, core.FeaturePairs, core.FeatureMultiNIC,
			core.FeatureSystemVM, core.FeatureMulticast, core.FeatureCountOnly, core.FeatureFailClosed, core.FeatureFlows,
			core.FeatureFlowEnds, core.FeatureCounters, core.FeatureEvents,
		},
	}
}

// settings are the parsed settings.
type settings struct {
	marks   marks
	layout  layout
	variant string
}

func parseSettings(s core.Settings) (settings, error) {
	text := map[string]string{}
	choices := map[string][]string{}
	for _, known := range Driver().Info().Settings {
		text[known.Name], choices[known.Name] = known.Default, known.Choices
	}
	for k, v := range s {
		path := "backend.settings." + k
		if _, ok := text[k]; !ok {
			return settings{}, &core.FieldError{Path: path, Reason: "no such setting; iptables knows layout, variant, mark_mask, flow_mark, owner_mark"}
		}
		str, ok := v.(string)
		if n, isInt := v.(int); isInt {
			str, ok = fmt.Sprintf("%#x", n), true
		}
		if !ok {
			return settings{}, &core.FieldError{Path: path, Value: fmt.Sprint(v), Reason: "must be a string"}
		}
		if c := choices[k]; c != nil && !slices.Contains(c, str) {
			return settings{}, &core.FieldError{Path: path, Value: str, Reason: fmt.Sprintf("use one of %v", c)}
		}
		text[k] = str
	}
	mask, err := parseMask("backend.settings.mark_mask", text["mark_mask"])
	if err != nil {
		return settings{}, err
	}
	flow, err := parseMask("backend.settings.flow_mark", text["flow_mark"])
	if err != nil {
		return settings{}, err
	}
	owner, err := parseMask("backend.settings.owner_mark", text["owner_mark"])
	if err != nil {
		return settings{}, err
	}
	m, err := newMarks(mask, flow, owner)
	layouts := map[string]layout{layoutKVM: kvm{}, layoutXenServer: xenserver{}}
	return settings{marks: m, layout: layouts[text["layout"]], variant: text["variant"]}, err
}

// Open binds a backend to the network namespace of the calling thread.
func (driver) Open(ctx context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	parsed, err := parseSettings(s)
	if err != nil {
		return nil, err
	}
	return newBackend(ctx, parsed, slog.Default())
}
