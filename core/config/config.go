// Package config is what a host runs with: one file for a whole fleet, in
// which each host finds itself.
//
// Later sources win, key by key; lists are replaced, not joined:
//
//	built-in < defaults < clusters.X < hosts.Y < conf.d < RINGWALL_ environment < flags
//
// Every key is known; one that is not is an error with the nearest that is.
package config

import (
	"slices"

	"github.com/ringwall/ringwall/core"
)

// Mode says who enforces.
type Mode string

const (
	// ModeAgent: ringwalld does, and commands talk to it.
	ModeAgent Mode = "agent"
	// ModeStandalone: each command does, in process, under the state's lock.
	ModeStandalone Mode = "standalone"
)

// Run says where a driver or an adapter runs.
type Run string

const (
	RunPlugin    Run = "plugin"     // a process of its own, checked and supervised
	RunInProcess Run = "in_process" // inside ringwalld or the command
)

// NoAdapter as hypervisor.adapter: nothing here lists VMs, so the bindings in
// manifests and calls count.
const NoAdapter = "none"

// AllowDNS in always_allow.
const AllowDNS = "dns"

// Config is what one host runs with.
type Config struct {
	Host    string `koanf:"-"` // the name it was looked up by
	Cluster string `koanf:"-"` // empty when the file has no clusters

	State  string `koanf:"state"` // folder
	Mode   Mode   `koanf:"mode"`
	Socket Socket `koanf:"socket"`
	Log    Log    `koanf:"log"`

	Hypervisor Hypervisor        `koanf:"hypervisor"`
	Backend    Backend           `koanf:"backend"`
	Plugins    map[string]Plugin `koanf:"plugins"`

	Bridges       []core.Pattern     `koanf:"bridges"`
	Unmanaged     []core.Pattern     `koanf:"unmanaged"`
	VMPorts       []core.Pattern     `koanf:"vm_ports"`
	Uplinks       []core.Pattern     `koanf:"uplinks"`
	EgressDefault core.EgressDefault `koanf:"egress_default"`
	AlwaysAllow   []string           `koanf:"always_allow"`
	Multicast     core.MulticastMode `koanf:"multicast"`
	Enforce       bool               `koanf:"enforce"`

	CloudStack CloudStack `koanf:"cloudstack"`
}

// What leaves a CloudStack VM before its rules have come.
const (
	BeforeHold  = "hold"
	BeforeAllow = "allow"
)

// CloudStack is how CloudStack's agent is answered.
type CloudStack struct {
	Enabled     bool   `koanf:"enabled"`
	BeforeRules string `koanf:"before_rules"`
	Files       string `koanf:"files"`
	Lock        string `koanf:"lock"`
	Script      string `koanf:"script"`
	Command     string `koanf:"command"`
	Log         string `koanf:"log"`
}

// Socket is where the agent listens and who may speak to it besides root.
type Socket struct {
	Path  string `koanf:"path"`
	Owner string `koanf:"owner"` // user name or id
	Group string `koanf:"group"` // group name or id; empty = nobody else
}

// Log is how the agent logs.
type Log struct {
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
}

// Hypervisor chooses where VMs come from.
type Hypervisor struct {
	Adapter  string        `koanf:"adapter"`
	Run      Run           `koanf:"run"`
	Settings core.Settings `koanf:"settings"`
}

// Backend chooses what enforces.
type Backend struct {
	Driver   string        `koanf:"driver"`
	Run      Run           `koanf:"run"`
	Settings core.Settings `koanf:"settings"`
}

// Plugin is a plugin binary and the sums it may have.
type Plugin struct {
	Path          string   `koanf:"path"` // empty = PluginDir/ringwall-plugin-NAME
	SHA256        []string `koanf:"sha256"`
	AllowUnpinned bool     `koanf:"allow_unpinned"`
}

// PluginDir is where plugins are when config does not say.
const PluginDir = "/usr/lib/ringwall/plugins"

// Binary is the path of the plugin called name.
func (p Plugin) Binary(name string) string {
	if p.Path != "" {
		return p.Path
	}
	return PluginDir + "/ringwall-plugin-" + name
}

// Options are the choices that change verdicts.
func (c Config) Options() core.Options {
	return core.Options{
		Bridges:       slices.Clone(c.Bridges),
		Unmanaged:     slices.Clone(c.Unmanaged),
		VMPorts:       slices.Clone(c.VMPorts),
		Uplinks:       slices.Clone(c.Uplinks),
		EgressDefault: c.EgressDefault,
		AllowDNS:      slices.Contains(c.AlwaysAllow, AllowDNS),
		Multicast:     c.Multicast,
		CountOnly:     !c.Enforce,
	}
}
