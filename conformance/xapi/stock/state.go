package stock

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// State is what the plugin has made on a host.
type State struct {
	VMs map[string]*VM
	// Sets are ipsets by name. VMs share the names.
	Sets map[string][]string
	// Guards are the MAC guards in ebtables' nat table, device and MAC. Nothing
	// ever takes one out (fault R20).
	Guards [][2]string
	// Calls counts functions, Failures those that failed.
	Calls, Failures map[string]int
	// Temporary sets by name, with the second that they were made in (R22).
	Temporary map[string]int64
}

// VM is what it has made for a VM.
type VM struct {
	System    bool
	Device    string
	Addresses []string // of its ipset
	ARP       []string // that may be spoken for
	Ingress   []Rule
	Egress    []Rule
	// EgressDrop: the egress chain ends in DROP.
	EgressDrop bool
	Log        []string // seven fields
}

// Rule is one rule of a chain.
type Rule struct {
	Protocol   string
	Start, End int
	Set        string // empty: any address
}

// Load reads a state folder; none is an empty state.
func Load(dir string) (*State, error) {
	s := &State{VMs: map[string]*VM{}, Sets: map[string][]string{}, Calls: map[string]int{}, Failures: map[string]int{}, Temporary: map[string]int64{}}
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	return s, err
}

func (s *State) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "state.new") // in one step: tests read beside it
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, "state.json"))
}

// Allows says whether a new connection between a VM and a peer passes the VM's
// own chains.
func (s *State) Allows(vm, direction, protocol string, port int, peer string) bool {
	v := s.VMs[vm]
	if v == nil {
		return direction == "egress" // FORWARD: towards the uplink all passes, else DROP
	}
	if v.System {
		return true
	}
	rules := v.Ingress
	if direction == "egress" {
		if protocol == "udp" && port == 53 || !v.EgressDrop {
			return true
		}
		rules = v.Egress
	}
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.matches(protocol, port) && s.member(r.Set, peer) })
}

func (r Rule) matches(protocol string, port int) bool {
	switch {
	case r.Protocol == "all":
		return true
	case r.Protocol != protocol:
		return false
	case protocol == "icmp":
		return r.Start == -1 || port == r.Start<<8|r.End
	}
	return r.Start <= port && port <= r.End
}

func (s *State) member(set, peer string) bool {
	if set == "" {
		return true
	}
	a := netip.MustParseAddr(peer)
	return slices.ContainsFunc(s.Sets[set], func(c string) bool {
		p, err := netip.ParsePrefix(c)
		return err == nil && p.Contains(a)
	})
}

// SetsOf lists the sets whose names start as the VM's do.
func (s *State) SetsOf(vm string) (out []string) {
	for name := range s.Sets {
		if strings.HasPrefix(name, vm) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
