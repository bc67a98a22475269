package vmops

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Keys of other_config. The host's say what is programmed there, the VM's how
// far its sequence numbers have come on whatever host.
const (
	fingerprintKey = "ringwall_vmops"
	recordPrefix   = "ringwall_vmops/" // and the VM's key
	sequenceKey    = "ringwall_vmops_seq"
)

// record is what a host was told about a VM last.
type record struct {
	Name      string   `json:"name"`
	System    bool     `json:"system,omitempty"`
	MAC       string   `json:"mac"`
	Domid     int64    `json:"domid"`
	Address   string   `json:"ip,omitempty"`
	Secondary []string `json:"secondary,omitempty"`
	Signature string   `json:"sig,omitempty"`
	Sequence  int64    `json:"seq,omitempty"`
}

// sameDefaults says whether the default rules of r are p's, but for secondary
// addresses, on a domain.
func (r record) sameDefaults(p program, domid int64) bool {
	return r.Name == p.name && r.System == p.system && r.MAC == p.nic.MAC.String() && r.Domid == domid && r.Address == p.address
}

// log is the line that vmops shows for the VM: six fields.
func (r record) log(key core.VMKey) string {
	id := program{nic: core.NICKey{VM: key}}.id()
	return strings.Join([]string{r.Name, id, r.Address, strconv.FormatInt(r.Domid, 10), r.Signature, strconv.FormatInt(r.Sequence, 10)}, ",")
}

// look is what the pool says about a host, all at once.
type look struct {
	host        xapi.Ref
	info        xapi.Host
	vms         map[core.VMKey]guest
	records     map[core.VMKey]record
	fingerprint core.Fingerprint
}

// guest is a VM of the pool.
type guest struct {
	ref xapi.Ref
	xapi.VM
	here bool // it runs on the host
}

func (g guest) sequence() int64 {
	n, _ := strconv.ParseInt(g.OtherConfig[sequenceKey], 10, 64)
	return n
}

func (b *Backend) look(ctx context.Context) (*look, error) {
	hosts, err := xapi.Records[xapi.Host](ctx, b.xapi)
	if err != nil {
		return nil, err
	}
	l := &look{vms: map[core.VMKey]guest{}, records: map[core.VMKey]record{}}
	if l.host, err = findHost(hosts, b.host); err != nil {
		return nil, err
	}
	l.info = hosts[l.host]
	for k, v := range l.info.OtherConfig {
		key, ours := strings.CutPrefix(k, recordPrefix)
		if !ours {
			continue
		}
		var r record
		if err := json.Unmarshal([]byte(v), &r); err != nil {
			return nil, fmt.Errorf("host %s: other_config %s is damaged: %w; take it away (xe host-param-remove uuid=%s param-name=other-config param-key=%s): %w",
				l.info.Name, k, err, l.info.UUID, k, core.ErrInvalid)
		}
		l.records[core.VMKey(key)] = r
	}
	if text := l.info.OtherConfig[fingerprintKey]; text != "" {
		if err := l.fingerprint.UnmarshalText([]byte(text)); err != nil {
			l.fingerprint = core.Fingerprint{}
		}
	}
	vms, err := xapi.Records[xapi.VM](ctx, b.xapi)
	if err != nil {
		return nil, err
	}
	for ref, vm := range vms {
		if !vm.IsTemplate && !vm.IsSnapshot && !vm.IsControlDomain {
			l.vms[core.VMKey(vm.UUID)] = guest{ref, vm, vm.Present() && vm.ResidentOn == l.host}
		}
	}
	return l, nil
}

func (b *Backend) putRecord(ctx context.Context, l *look, key core.VMKey, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := b.xapi.PutOtherConfig(ctx, "host", l.host, recordPrefix+string(key), string(text)); err != nil {
		return err
	}
	l.records[key] = r
	return nil
}

func (b *Backend) dropRecord(ctx context.Context, l *look, key core.VMKey) error {
	if err := b.xapi.PutOtherConfig(ctx, "host", l.host, recordPrefix+string(key), ""); err != nil {
		return err
	}
	delete(l.records, key)
	return nil
}

// putFingerprint names the ruleset that is programmed; the zero one takes the
// name away while it is being changed.
func (b *Backend) putFingerprint(ctx context.Context, l *look, f core.Fingerprint) error {
	if l.fingerprint == f {
		return nil
	}
	text := ""
	if f != (core.Fingerprint{}) {
		text = f.String()
	}
	if err := b.xapi.PutOtherConfig(ctx, "host", l.host, fingerprintKey, text); err != nil {
		return err
	}
	l.fingerprint = f
	return nil
}

// nextSequence is greater than any the VM has had, here or on another host, and
// is kept before it is used.
func (b *Backend) nextSequence(ctx context.Context, g guest, r record) (int64, error) {
	n := max(g.sequence(), r.Sequence) + 1
	return n, b.xapi.PutOtherConfig(ctx, "VM", g.ref, sequenceKey, strconv.FormatInt(n, 10))
}

// logs are the rule logs of the host by VM name, as far as vmops shows them: of
// running VMs whose names start with i-.
func (b *Backend) logs(ctx context.Context, l *look) (map[string]string, error) {
	text, err := b.call(ctx, l, "get_rule_logs_for_vms", map[string]string{"host_uuid": l.info.UUID})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(text), ";") {
		line = strings.TrimSpace(line)
		if name, _, ok := strings.Cut(line, ","); ok {
			out[name] = line
		}
	}
	return out, nil
}

// strangers are the VMs with rule logs that were not written from here.
func (l *look) strangers(logs map[string]string) []string {
	ours := map[string]bool{}
	for _, r := range l.records {
		ours[r.Name] = true
	}
	var out []string
	for name := range logs {
		if !ours[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func foreign(l *look, names []string) error {
	return fmt.Errorf("host %s has rules that were not written from here, of %s: its pool is driven by CloudStack or by another agent. "+
		"Use one of the two; for VMs that are left over: xe host-call-plugin host-uuid=%s plugin=%s fn=destroy_network_rules_for_vm args:vmName=NAME: %w",
		l.info.Name, strings.Join(names, ", "), l.info.UUID, stockPlugin, core.ErrConflict)
}
