package vmops

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// program is what vmops is told about one VM.
type program struct {
	nic       core.NICKey
	name      string
	system    bool
	device    string // the PV interface
	address   string
	secondary []string
	rules     string
	sets      []string
}

// id is the decimal number that vmops wants for a VM.
func (p program) id() string {
	h := fnv.New32a()
	h.Write([]byte(p.nic.VM))
	return strconv.FormatUint(uint64(h.Sum32()), 10)
}

// secIPs is a list as vmops reads it. An empty text makes it fail.
func (p program) secIPs() string {
	if len(p.secondary) == 0 {
		return "0;"
	}
	return strings.Join(p.secondary, ";") + ";"
}

// nobody stands for the address of a NIC that has none: class E, which no
// neighbour takes a packet from. What the NIC sends from any other is dropped.
var nobody = netip.MustParseAddr("240.0.0.1")

// plan checks a ruleset and says what it comes to, by VM. The error joins an
// ObjectError for each object that vmops cannot enforce; nothing has been
// called then.
func plan(r core.Ruleset) (map[core.VMKey]program, error) {
	if err := checkOptions(r.Options); err != nil {
		return nil, err
	}
	out := map[core.VMKey]program{}
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(r.NICs), compareNICs) {
		n := r.NICs[k]
		p, err := planNIC(r, n)
		var o *core.ObjectError
		switch {
		case errors.As(err, &o):
			errs = append(errs, err)
		case err != nil:
			errs = append(errs, &core.ObjectError{NICs: []core.NICKey{k}, Err: err})
		case len(n.Devices) == 0:
			// Not plugged in here.
		default:
			if _, twice := out[k.VM]; twice {
				errs = append(errs, &core.ObjectError{NICs: []core.NICKey{k}, Err: fmt.Errorf("vmops filters the first NIC of a VM only: %w", core.ErrUnsupported)})
				continue
			}
			out[k.VM] = p
		}
	}
	errs = append(errs, clashes(out)...)
	return out, errors.Join(errs...)
}

func compareNICs(a, b core.NICKey) int {
	return cmp.Or(cmp.Compare(a.VM, b.VM), slices.Compare(a.MAC[:], b.MAC[:]))
}

// checkOptions refuses what would be another verdict under vmops for every VM.
func checkOptions(o core.Options) error {
	refuse := func(what, way string) error {
		return fmt.Errorf("vmops cannot enforce %s; %s: %w", what, way, core.ErrUnsupported)
	}
	switch {
	case o.CountOnly:
		return refuse("enforce: false", "leave it out")
	case !o.AllowDNS:
		return refuse("that DNS is denied", "set always_allow: [dns], since it always passes UDP port 53")
	case o.Multicast == core.MulticastByRules:
		return refuse("multicast: by-rules", "set multicast: drop")
	case len(o.VMPorts)+len(o.Uplinks) > 0:
		return refuse("that unknown ports are closed", "set vm_ports: [] and leave uplinks out")
	}
	return nil
}

// planNIC is one NIC's program. A fault of a group is an ObjectError.
func planNIC(r core.Ruleset, n core.NICPolicy) (program, error) {
	p := program{nic: n.Key, name: n.VM, system: n.Kind == core.SystemVM}
	if err := checkName(n.VM, n.Kind); err != nil {
		return p, err
	}
	for _, d := range n.Devices {
		if strings.HasPrefix(d, "vif") {
			p.device = d
		}
	}
	if len(n.Devices) > 0 && !strings.HasSuffix(p.device, ".0") {
		return p, fmt.Errorf("vmops filters the first NIC of a VM only, and this is %s: %w", strings.Join(n.Devices, ", "), core.ErrUnsupported)
	}
	if p.system {
		return p, nil
	}
	if n.SpoofingAllowed || len(n.Pairs) > 0 {
		return p, fmt.Errorf("vmops has neither allowed pairs nor anti-spoofing off: %w", core.ErrUnsupported)
	}
	for _, a := range n.Addresses {
		if !a.Is4() {
			return p, fmt.Errorf("%s: vmops drops all IPv6: %w", a, core.ErrUnsupported)
		}
		if p.address == "" {
			p.address = a.String()
		} else {
			p.secondary = append(p.secondary, a.String())
		}
	}
	if p.address == "" {
		p.address = nobody.String()
	}
	f := flat{}
	for _, name := range n.Groups {
		for _, e := range r.Groups[name].Entries {
			if err := f.add(e, r.Sets[e.Peer.Group].Members); err != nil {
				return p, &core.ObjectError{Groups: []string{name}, Err: err}
			}
		}
	}
	if n.EgressDeny4 {
		// Egress is denied to those who have an egress rule. This one says no more
		// than always_allow does: vmops itself passes only UDP.
		f[flatRule{core.Egress, "tcp", 53, 53}] = []netip.Prefix{anywhere}
	}
	if err := f.separate(n.VM); err != nil {
		return p, err
	}
	var err error
	p.rules, err = f.text()
	p.sets = f.sets(n.VM)
	return p, err
}

// clashes finds VMs for which vmops would make objects of one name.
func clashes(programs map[core.VMKey]program) []error {
	owners := map[string]program{}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(programs)) {
		p := programs[k]
		clash := func(other program, object string) {
			errs = append(errs, &core.ObjectError{NICs: []core.NICKey{p.nic}, Err: fmt.Errorf(
				"vmops would make one %s for the VMs %s and %s; rename one of them (xe vm-param-set name-label=...): %w", object, other.name, p.name, core.ErrConflict)})
		}
		for _, o := range objects(p.name, p.sets) {
			if other, taken := owners[o]; taken && other.nic != p.nic {
				clash(other, o)
				break
			}
		}
		for _, o := range objects(p.name, p.sets) {
			owners[o] = p
		}
	}
	return errs
}
