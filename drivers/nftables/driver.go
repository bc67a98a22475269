// Package nftables enforces rulesets with nf_tables, over netlink alone.
//
// Goals, in this order:
//
//  1. No moment is more open than both the old and the new ruleset. One
//     transaction per change; tables, base chains and maps are edited and never
//     made anew.
//  2. A packet costs the same with 1 NIC and with 4,000, with 1 rule and with
//     10,000: dispatch by map, addresses in hash sets, CIDRs in interval sets.
//     An established packet meets one look-up for its source and one for its
//     destination, no chain of rules.
//  3. A change costs what it changes: one member is one set element.
//  4. A restarted agent finds everything as it left it: names, zones and the
//     fingerprint are derived from the ruleset or kept in the kernel.
//
// Where what is: word.go what conntrack says, carried in the packet mark;
// skeleton.go hooks and base chains; labels.go whose a flow is;
// native.go the other datapath; source.go, egress.go, ingress.go the
// verdict tables of docs/semantics.md; nics.go, groups.go, profiles.go what
// policies turn into; disjoint.go CIDR x port arithmetic; topology.go bridges,
// zones and ports; render.go, enforced.go from a ruleset to objects;
// backend.go the contract; internal/nft the objects and the wire.
//
// What a reviewer should ask: which hook sees the frame that a rule relies on,
// and what if it does not? Does a set that is full, a name that is gone or a
// mark that somebody else wrote open anything?
package nftables

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Name is the driver's name in config.
const Name = "nftables"

// Driver makes nftables backends.
func Driver() core.BackendDriver { return driver{} }

type driver struct{}

func (driver) Info() core.Info {
	return core.Info{
		Name: Name, Version: "1",
		Settings: []core.SettingInfo{
			{Name: "datapath", Type: "string", Default: datapathAuto, Choices: []string{datapathAuto, datapathBridgeNetfilter, datapathNative},
				Help: "how bridged packets meet conntrack; auto takes what the kernel has"},
			{Name: "mark_mask", Type: "string", Default: "0x00ffff00",
				Help: "bits of the packet mark that are ours; the lowest four are used"},
			{Name: "flow_mark", Type: "string", Default: "0xe0000000",
				Help: "the three bits of the conntrack mark that are ours; the highest revokes a flow"},
		},
		Features: []core.Feature{
			core.FeatureIPv4, core.FeatureIPv6, core.FeatureEgress, core.FeaturePorts, core.FeatureICMP, core.FeatureProtocols,
			core.FeatureRemoteGroups, core.FeatureAntiSpoof, core.FeatureNoAntiSpoof, core.FeaturePairs, core.FeatureMultiNIC,
			core.FeatureSystemVM, core.FeatureMulticast, core.FeatureCountOnly, core.FeatureFailClosed, core.FeatureFlows,
			core.FeatureZones, core.FeatureFlowEnds, core.FeatureCounters, core.FeatureEvents,
		},
	}
}

const (
	datapathAuto            = "auto"
	datapathBridgeNetfilter = "br_netfilter"
	datapathNative          = "native" // nf_conntrack_bridge: native.go
)

// settings are the parsed settings.
type settings struct {
	marks    marks
	datapath string
	native   bool // what datapath comes to on this kernel; Open knows
}

func parseSettings(s core.Settings) (settings, error) {
	text := map[string]string{}
	for _, known := range Driver().Info().Settings {
		text[known.Name] = known.Default
	}
	for k, v := range s {
		path := "backend.settings." + k
		if _, ok := text[k]; !ok {
			return settings{}, &core.FieldError{Path: path, Reason: "no such setting; nftables knows datapath, mark_mask, flow_mark"}
		}
		str, ok := v.(string)
		if n, isInt := v.(int); isInt {
			str, ok = fmt.Sprintf("%#x", n), true
		}
		if !ok {
			return settings{}, &core.FieldError{Path: path, Value: fmt.Sprint(v), Reason: "must be a string"}
		}
		text[k] = str
	}
	if d := text["datapath"]; d != datapathAuto && d != datapathBridgeNetfilter && d != datapathNative {
		return settings{}, &core.FieldError{Path: "backend.settings.datapath", Value: d, Reason: "use auto, br_netfilter or native"}
	}
	mask, err := parseMask("backend.settings.mark_mask", text["mark_mask"])
	if err != nil {
		return settings{}, err
	}
	flow, err := parseMask("backend.settings.flow_mark", text["flow_mark"])
	if err != nil {
		return settings{}, err
	}
	m, err := newMarks(mask, flow)
	return settings{marks: m, datapath: text["datapath"]}, err
}

// Open binds a backend to the network namespace of the calling thread.
func (driver) Open(ctx context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	parsed, err := parseSettings(s)
	if err != nil {
		return nil, err
	}
	conn, err := nft.Open(nft.Config{})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if parsed.native, err = chooseDatapath(ctx, conn, parsed); err != nil {
		conn.Close()
		return nil, err
	}
	b, err := newBackend(ctx, conn, parsed, slog.Default())
	if err != nil {
		conn.Close()
		return nil, err
	}
	return b, nil
}
