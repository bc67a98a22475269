package manifest

import (
	"errors"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/core"
)

func (r *reader) vm(path string, n *yaml.Node) (vm core.VM) {
	r.mapping(path, n,
		field{name: "name", required: true, read: into(r, &vm.Name, word)},
		field{name: "key", read: func(path string, n *yaml.Node) {
			if k, ok := scalar(r, path, n, word); ok {
				vm.Key = core.VMKey(k)
			}
		}},
		field{name: "kind", read: into(r, &vm.Kind, vmKind)},
		field{name: "nics", read: func(path string, n *yaml.Node) {
			r.list(path, n, func(path string, n *yaml.Node) { vm.NICs = append(vm.NICs, r.nic(path, n)) })
		}},
	)
	if vm.Key == "" {
		vm.Key = core.VMKey(vm.Name)
	}
	return vm
}

func (r *reader) nic(path string, n *yaml.Node) (nic core.NIC) {
	checked := true
	r.mapping(path, n,
		field{name: "mac", required: true, read: into(r, &nic.MAC, core.ParseMAC)},
		field{name: "bridge", read: into(r, &nic.Binding.Bridge, device)},
		field{name: "device", read: func(path string, n *yaml.Node) { nic.Binding.Devices = r.devices(path, n) }},
		field{name: "addresses", read: func(path string, n *yaml.Node) { nic.Addresses = scalars(r, path, n, address) }},
		field{name: "allowed_pairs", read: func(path string, n *yaml.Node) {
			r.list(path, n, func(path string, n *yaml.Node) { nic.Pairs = append(nic.Pairs, r.pair(path, n)) })
		}},
		field{name: "groups", read: func(path string, n *yaml.Node) { nic.Groups = scalars(r, path, n, word) }},
		field{name: "anti_spoofing", read: into(r, &checked, boolean)},
	)
	nic.SpoofingAllowed = !checked
	return nic
}

// devices reads one name, or a list of names: a Xen NIC has a vif and a tap.
func (r *reader) devices(path string, n *yaml.Node) []string {
	if n.Kind == yaml.SequenceNode {
		return scalars(r, path, n, device)
	}
	if d, ok := scalar(r, path, n, device); ok {
		return []string{d}
	}
	return nil
}

func (r *reader) pair(path string, n *yaml.Node) (p core.AddressPair) {
	r.mapping(path, n,
		field{name: "address", required: true, read: into(r, &p.Prefix, addressOrCIDR)},
		field{name: "mac", read: into(r, &p.MAC, core.ParseMAC)},
	)
	return p
}

// vmKind is stricter than core.ParseVMKind: an empty kind is a slip.
func vmKind(s string) (core.VMKind, error) {
	if s == "" {
		return 0, errors.New("not a kind; use user or system")
	}
	return core.ParseVMKind(s)
}

func boolean(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("not true or false")
}

// device is an interface's own name: a pattern that covers more is refused.
func device(s string) (string, error) {
	if strings.HasSuffix(s, "*") {
		return "", errors.New("a pattern, where the name of one interface is wanted")
	}
	p, err := core.ParsePattern(s)
	return string(p), err
}

func addressOrCIDR(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return cidr(s)
	}
	a, err := address(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
