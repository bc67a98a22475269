package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/core/source/cloudstack"
	"github.com/ringwall/ringwall/core/source/manifest"
)

// Version1 is the API's version, in every path.
const Version1 = "1"

// Service is all that can be asked of an agent. A Client is one over the
// socket; a standalone command has one in process.
type Service interface {
	Version(context.Context, Empty) (Version, error)
	// Apply puts what a manifest names, and returns when the host enforces it
	// or says why not. With DryRun it only tells what would change.
	Apply(context.Context, ApplyRequest) (Change, error)
	// Delete takes groups and VMs away. ErrNotFound: one of them is not there.
	Delete(context.Context, DeleteRequest) (Change, error)
	Objects(context.Context, ObjectsRequest) (Objects, error)
	NICs(context.Context, ObjectsRequest) ([]NIC, error)
	Sets(context.Context, ObjectsRequest) ([]Set, error)
	Rules(context.Context, ObjectsRequest) ([]Rule, error)
	// Program takes a VM for present that is about to run, and returns when its
	// NICs are held to their policy or says why not. It waits for no hypervisor.
	Program(context.Context, ProgramRequest) (ProgramResult, error)
	Explain(context.Context, ExplainRequest) (Explanation, error)
	Status(context.Context, Empty) (Status, error)
	// Verify reads back what is enforced and compares it.
	Verify(context.Context, Empty) ([]Verification, error)
	Doctor(context.Context, Empty) ([]Check, error)
	Plugins(context.Context, Empty) ([]plugin.State, error)
	Counters(context.Context, Empty) ([]Counter, error)
	Config(context.Context, Empty) (Config, error)
	// Reload reads config anew. An invalid one is an error, and the one that
	// runs stays.
	Reload(context.Context, Empty) (Config, error)
	// CloudStack answers a call of CloudStack's agent.
	CloudStack(context.Context, cloudstack.Call) (cloudstack.Answer, error)
}

// verbs maps each verb to its method.
func verbs(s Service) map[string]http.Handler {
	return map[string]http.Handler{
		"version":    handle(s.Version),
		"apply":      handle(s.Apply),
		"delete":     handle(s.Delete),
		"objects":    handle(s.Objects),
		"nics":       handle(s.NICs),
		"sets":       handle(s.Sets),
		"rules":      handle(s.Rules),
		"program":    handle(s.Program),
		"explain":    handle(s.Explain),
		"status":     handle(s.Status),
		"verify":     handle(s.Verify),
		"doctor":     handle(s.Doctor),
		"plugins":    handle(s.Plugins),
		"counters":   handle(s.Counters),
		"config":     handle(s.Config),
		"reload":     handle(s.Reload),
		"cloudstack": handle(s.CloudStack),
	}
}

var _ Service = (*Client)(nil)

func (c *Client) Version(ctx context.Context, in Empty) (Version, error) {
	return call[Version](ctx, c, "version", in)
}
func (c *Client) Apply(ctx context.Context, in ApplyRequest) (Change, error) {
	return call[Change](ctx, c, "apply", in)
}
func (c *Client) Delete(ctx context.Context, in DeleteRequest) (Change, error) {
	return call[Change](ctx, c, "delete", in)
}
func (c *Client) Objects(ctx context.Context, in ObjectsRequest) (Objects, error) {
	return call[Objects](ctx, c, "objects", in)
}
func (c *Client) NICs(ctx context.Context, in ObjectsRequest) ([]NIC, error) {
	return call[[]NIC](ctx, c, "nics", in)
}
func (c *Client) Sets(ctx context.Context, in ObjectsRequest) ([]Set, error) {
	return call[[]Set](ctx, c, "sets", in)
}
func (c *Client) Rules(ctx context.Context, in ObjectsRequest) ([]Rule, error) {
	return call[[]Rule](ctx, c, "rules", in)
}
func (c *Client) Explain(ctx context.Context, in ExplainRequest) (Explanation, error) {
	return call[Explanation](ctx, c, "explain", in)
}
func (c *Client) Status(ctx context.Context, in Empty) (Status, error) {
	return call[Status](ctx, c, "status", in)
}
func (c *Client) Verify(ctx context.Context, in Empty) ([]Verification, error) {
	return call[[]Verification](ctx, c, "verify", in)
}
func (c *Client) Doctor(ctx context.Context, in Empty) ([]Check, error) {
	return call[[]Check](ctx, c, "doctor", in)
}
func (c *Client) Plugins(ctx context.Context, in Empty) ([]plugin.State, error) {
	return call[[]plugin.State](ctx, c, "plugins", in)
}
func (c *Client) Counters(ctx context.Context, in Empty) ([]Counter, error) {
	return call[[]Counter](ctx, c, "counters", in)
}
func (c *Client) Config(ctx context.Context, in Empty) (Config, error) {
	return call[Config](ctx, c, "config", in)
}
func (c *Client) Reload(ctx context.Context, in Empty) (Config, error) {
	return call[Config](ctx, c, "reload", in)
}

// Empty is asked where there is nothing to say.
type Empty struct{}

// Version says what answers.
type Version struct {
	Version string `json:"version"` // of the program
	API     string `json:"api"`
	Mode    string `json:"mode"` // agent or standalone
}

// ApplyRequest carries a manifest as it was written.
type ApplyRequest struct {
	Manifest string `json:"manifest"`
	// Prune deletes what manifests put before and this one does not name.
	Prune  bool `json:"prune,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
}

// DeleteRequest names groups, and VMs by name or key.
type DeleteRequest struct {
	Groups []string `json:"groups,omitempty"`
	VMs    []string `json:"vms,omitempty"`
	// IgnoreMissing passes over what is not there.
	IgnoreMissing bool `json:"ignore_missing,omitempty"`
	DryRun        bool `json:"dry_run,omitempty"`
}

// ObjectsRequest asks for everything, or for the named ones.
type ObjectsRequest struct {
	All bool `json:"all,omitempty"` // reserved groups too
}

// Action is what becomes of an object.
type Action string

const (
	Created   Action = "created"
	Updated   Action = "updated"
	Deleted   Action = "deleted"
	Unchanged Action = "unchanged"
)

// Change is what a call did, or would do.
type Change struct {
	Objects []ObjectChange `json:"objects"`
	// Elements of rulesets that come or go, one line each: "+ group web: ...".
	Elements []Element `json:"elements,omitempty"`
	// NICs that the change concerns, as they are after it.
	NICs []engine.NICStatus `json:"nics,omitempty"`
}

// ObjectChange is one group or VM.
type ObjectChange struct {
	Kind   string `json:"kind"` // group or vm
	Name   string `json:"name"`
	Action Action `json:"action"`
}

// Element is one part of a ruleset that comes or goes.
type Element struct {
	Point string `json:"point,omitempty"`
	Add   bool   `json:"add"`
	What  string `json:"what"` // "group web", "members of db", "nic a/02:...", "options"
	Value string `json:"value"`
}

// Objects is desired state and who put it there.
type Objects struct {
	Manifest manifest.Manifest `json:"manifest"`
	// Sources by group name and VM key.
	GroupSources map[string]string     `json:"group_sources"`
	VMSources    map[core.VMKey]string `json:"vm_sources"`
}

// NIC is one NIC as it stands, with what is wanted of it.
type NIC struct {
	engine.NICStatus
	Kind         string       `json:"kind"`
	Addresses    []netip.Addr `json:"addresses,omitempty"`
	Pairs        []string     `json:"allowed_pairs,omitempty"`
	AntiSpoofing bool         `json:"anti_spoofing"`
}

// Set is the members of a remote group.
type Set struct {
	Point   string       `json:"point,omitempty"`
	Group   string       `json:"group"`
	Members []netip.Addr `json:"members"`
}

// Rule is one entry of a compiled group.
type Rule struct {
	Point     string `json:"point,omitempty"`
	Group     string `json:"group"`
	Direction string `json:"direction"`
	Family    string `json:"family"`
	Protocol  string `json:"protocol"`
	Match     string `json:"match,omitempty"` // ports, or type and code
	Peer      string `json:"peer"`
}

// Status is an agent and its engine in one look.
type Status struct {
	Version    Version `json:"version"`
	Host       string  `json:"host"`
	Cluster    string  `json:"cluster,omitempty"`
	Hypervisor string  `json:"hypervisor"` // name of the adapter
	Groups     int     `json:"groups"`
	VMs        int     `json:"vms"`
	engine.Status
}

// Verification is one point's enforcement read back.
type Verification struct {
	Point       string           `json:"point"`
	Wanted      core.Fingerprint `json:"wanted"`
	Enforced    core.Fingerprint `json:"enforced"`
	Differences []Difference     `json:"differences"`
}

// Difference is one thing at a point that is not as it should be.
type Difference struct {
	Object     string `json:"object"`
	Difference string `json:"difference"`
	NIC        string `json:"nic,omitempty"`
}

// Check is one line of doctor.
type Check struct {
	Part     string `json:"part"` // agent, backend, hypervisor
	Name     string `json:"name"`
	Status   string `json:"status"`
	Summary  string `json:"summary"`
	Evidence string `json:"evidence,omitempty"`
	Fix      string `json:"fix,omitempty"`
}

// Counter is what one NIC's traffic came to for one reason.
type Counter struct {
	NIC       string `json:"nic,omitempty"`
	VM        string `json:"vm,omitempty"`
	Device    string `json:"device,omitempty"`
	Direction string `json:"direction"`
	Reason    string `json:"reason"`
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
}

// Config is the config that runs.
type Config struct {
	Host    string          `json:"host"`
	Cluster string          `json:"cluster,omitempty"`
	Files   []string        `json:"files"`
	Values  map[string]any  `json:"values"`
	Origins []config.Origin `json:"origins"`
	// Restart names keys that changed and count only after a restart.
	Restart []string `json:"restart,omitempty"`
}
