package cloudstack

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/state"
)

// source owns the groups, VMs and values of this package.
const source = state.SourceCloudStack

// Keys of values.
const (
	vmKey     = "vm/"     // + name: a record
	bridgeKey = "bridge/" // + name: under management, because a call named it
	localKey  = "local/"  // + name: never under management
)

// record is what is remembered of a VM beside its rules, which are in its group.
type record struct {
	VMID   string `json:"vm_id,omitempty"`
	IP     string `json:"ip,omitempty"`     // as the last call with rules gave it
	Domain string `json:"domain,omitempty"` // id of the domain that the rules are for; empty = not known
	NICs   []nic  `json:"nics,omitempty"`

	// Numbered: rules have come, with a number that later ones must not be below.
	Numbered  bool   `json:"numbered,omitempty"`
	Signature string `json:"signature,omitempty"`
	Sequence  int64  `json:"sequence,omitempty"`
	// Announced: the number may be told to the server. It is not after a
	// reboot, so that the server sends the rules again.
	Announced bool     `json:"announced,omitempty"`
	Refused   *refusal `json:"refused,omitempty"`

	// Leaving: the server has said good-bye, and the VM still runs.
	Leaving bool `json:"leaving,omitempty"`
	// Adopted: the stock script's rules are what is in force; ours pass
	// everything for this VM.
	Adopted bool `json:"adopted,omitempty"`
	// Stock: objects of the stock script's are still there for this VM.
	Stock bool `json:"stock,omitempty"`
}

// refusal is a lower number that was turned away.
type refusal struct {
	Sequence int64     `json:"sequence"`
	At       time.Time `json:"at"`
}

// nic is what the server says of a NIC.
type nic struct {
	MAC       core.MAC       `json:"mac"`
	IP        netip.Addr     `json:"ip,omitzero"`
	IP6       netip.Addr     `json:"ip6,omitzero"`
	Secondary []netip.Prefix `json:"secondary,omitempty"`
	// Found at adoption; no call has named it yet.
	Found bool `json:"found,omitempty"`
	// Bridge and Device are what counts where no adapter answers.
	Bridge string `json:"bridge,omitempty"`
	Device string `json:"device,omitempty"`
}

// load finds the record of a VM.
func load(tx *state.Tx, vm string) (r record, ok bool, err error) {
	text, ok := tx.Value(source, vmKey+vm)
	if !ok {
		return r, false, nil
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, false, fmt.Errorf("what is remembered of vm %s cannot be read: %w", vm, err)
	}
	return r, true, nil
}

// records reads all of them from a snapshot.
func records(s *state.Snapshot) map[string]record {
	out := map[string]record{}
	for k, text := range s.Values {
		name, ok := strings.CutPrefix(k.Key, vmKey)
		if k.Source != source || !ok {
			continue
		}
		var r record
		if json.Unmarshal(text, &r) == nil {
			out[name] = r
		}
	}
	return out
}

// record finds what is remembered of one VM.
func (s *Source) record(vm string) (r record, ok bool) {
	text, ok := s.engine.Snapshot().Values[state.ValueKey{Source: source, Key: vmKey + vm}]
	return r, ok && json.Unmarshal(text, &r) == nil
}

// save writes a record and the VM that follows from it. The VM's group must be
// there.
func save(tx *state.Tx, vm string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := tx.PutValue(source, vmKey+vm, text); err != nil {
		return err
	}
	return tx.PutVM(state.VM{VM: r.core(vm), Source: source})
}

// putRules gives a VM's group its rules.
func putRules(tx *state.Tx, vm string, rules []core.Rule) error {
	return tx.PutGroup(state.Group{Group: core.Group{Name: groupName(vm), Rules: rules}, Source: source})
}

// forget takes a VM out.
func forget(tx *state.Tx, vm string) error {
	tx.DeleteValue(source, vmKey+vm)
	if v, ok := tx.VM(core.VMKey(vm)); ok && v.Source == source {
		if err := tx.DeleteVM(source, v.Key); err != nil {
			return err
		}
	}
	if g, ok := tx.Group(groupName(vm)); ok && g.Source == source {
		return tx.DeleteGroup(source, g.Name)
	}
	return nil
}

// core is the VM as desired state has it. Its key is its name: calls know no
// UUID.
func (r record) core(vm string) core.VM {
	out := core.VM{Key: core.VMKey(vm), Name: vm}
	if r.Adopted {
		out.Kind = core.SystemVM
	}
	for _, n := range r.NICs {
		c := core.NIC{MAC: n.MAC, Groups: []string{groupName(vm)}}
		if n.Bridge != "" && n.Device != "" {
			c.Binding = core.Binding{Bridge: n.Bridge, Devices: []string{n.Device}}
		}
		for _, a := range []netip.Addr{n.IP, n.IP6} {
			if a.IsValid() {
				c.Addresses = append(c.Addresses, a)
			}
		}
		for _, p := range n.Secondary {
			switch {
			case !p.IsSingleIP():
				c.Pairs = append(c.Pairs, core.AddressPair{Prefix: p})
			case !slices.Contains(c.Addresses, p.Addr()):
				c.Addresses = append(c.Addresses, p.Addr())
			}
		}
		out.NICs = append(out.NICs, c)
	}
	return out
}

func (r *record) nic(mac core.MAC) *nic {
	for i := range r.NICs {
		if r.NICs[i].MAC == mac {
			return &r.NICs[i]
		}
	}
	return nil
}

// upsert takes over what a call says of its NIC. Secondary addresses that are
// known stay: they came one by one, and the call may be older than they are.
func (r *record) upsert(c Call) {
	n := r.nic(c.MAC)
	if n == nil {
		r.NICs = append(r.NICs, nic{MAC: c.MAC})
		n = &r.NICs[len(r.NICs)-1]
	}
	n.IP, n.IP6, n.Bridge, n.Found = c.IP, c.IP6, c.Bridge, false
	if c.Device != "" {
		n.Device = c.Device
	}
	for _, p := range c.Secondary {
		if !slices.Contains(n.Secondary, p) {
			n.Secondary = append(n.Secondary, p)
		}
	}
}

// claimDevice takes a device from every other NIC of this source: a name that
// is free goes to the next VM, and where no adapter answers nobody says that
// the former has stopped.
func claimDevice(tx *state.Tx, vm string, c Call) error {
	if c.Device == "" {
		return nil
	}
	for key, v := range tx.VMs() {
		if v.Source != source || !slices.ContainsFunc(v.NICs, func(n core.NIC) bool { return slices.Contains(n.Binding.Devices, c.Device) }) {
			continue
		}
		r, ok, err := load(tx, string(key))
		if err != nil || !ok {
			return err
		}
		changed := false
		for i, n := range r.NICs {
			if n.Device == c.Device && !(string(key) == vm && n.MAC == c.MAC) {
				r.NICs[i].Device, changed = "", true
			}
		}
		if changed {
			if err := save(tx, string(key), r); err != nil {
				return err
			}
		}
	}
	return nil
}

// log is what the server is told when the rules are in force.
func (r record) log(vm, domain string) RuleLog {
	l := RuleLog{VM: vm, VMID: r.VMID, IP: r.IP, Domain: domain, Signature: r.Signature, Sequence: r.Sequence}
	if l.VMID == "" {
		l.VMID = idOf(vm)
	}
	if !r.Announced || r.Leaving || r.Adopted {
		l.Signature, l.Sequence = initialSignature, noSequence
	}
	return l
}
