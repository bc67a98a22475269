package scenarios

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Dom0 gives scenarios the names of a XenServer host: bridge xenbr0 for br0,
// uplink eth0, and vif1.0 for vnet0, with the emulated card's end, tap1.0, beside
// it. A tap and its vif are one NIC's devices, or both closed ports.
func Dom0(all []Scenario) []Scenario {
	out := slices.Clone(all)
	for i := range out {
		out[i].World = toDom0(out[i].World)
		out[i].Steps = slices.Clone(out[i].Steps)
		for j := range out[i].Steps {
			s := &out[i].Steps[j]
			s.From, s.To = dom0Name(s.From), dom0Name(s.To)
			if s.Netfilter != nil {
				s.Netfilter = &Switch{dom0Name(s.Netfilter.Bridge), s.Netfilter.On}
			}
			if change := s.Change; change != nil {
				// It speaks the names of the table.
				s.Change = func(w *World) {
					*w = fromDom0(*w)
					change(w)
					*w = toDom0(*w)
				}
			}
		}
	}
	return out
}

func toDom0(w World) World {
	w = w.renamed(dom0Name, func(devices []string) (out []string) {
		for _, d := range devices {
			vif := dom0Name(d)
			if vif != d {
				out = append(out, tapOf(vif))
			}
			out = append(out, vif)
		}
		return out
	})
	w.Options.VMPorts = renamed(w.Options.VMPorts, map[core.Pattern]core.Pattern{"vnet*": "tap*"})
	w.Options.Bridges = renamed(w.Options.Bridges, map[core.Pattern]core.Pattern{"br*": "xenbr*"})
	return w
}

func fromDom0(w World) World {
	w = w.renamed(tableName, func(devices []string) (out []string) {
		for i, d := range devices {
			if i+1 == len(devices) || d != tapOf(devices[i+1]) {
				out = append(out, tableName(d))
			}
		}
		return out
	})
	w.Options.VMPorts = renamed(w.Options.VMPorts, map[core.Pattern]core.Pattern{"tap*": "vnet*"})
	w.Options.Bridges = renamed(w.Options.Bridges, map[core.Pattern]core.Pattern{"xenbr*": "br*"})
	return w
}

// renamed gives bridges and devices other names. ports renames the devices of a
// NIC or a bridge, which may become more or fewer.
func (w World) renamed(bridge func(string) string, ports func([]string) []string) World {
	w = w.clone()
	w.Main = bridge(w.main())
	for i := range w.VMs {
		for j := range w.VMs[i].NICs {
			b := &w.VMs[i].NICs[j].Binding
			b.Bridge, b.Devices = bridge(b.Bridge), ports(b.Devices)
		}
	}
	addresses, devices := w.Bridges, w.Devices
	w.Bridges, w.Devices = map[string][]netip.Prefix{}, map[string][]string{}
	for name, all := range addresses {
		w.Bridges[bridge(name)] = all
	}
	for name, all := range devices {
		w.Devices[bridge(name)] = ports(all)
	}
	w.Routes = slices.Clone(w.Routes)
	for i := range w.Routes {
		w.Routes[i].Bridge = bridge(w.Routes[i].Bridge)
	}
	return w
}

func renamed(all []core.Pattern, names map[core.Pattern]core.Pattern) (out []core.Pattern) {
	for _, p := range all {
		if to, ok := names[p]; ok {
			p = to
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// dom0Name is what a name of the tables (a bridge, a tap, an uplink's label) is
// on a XenServer host; tableName is the way back.
func dom0Name(name string) string {
	if bridge, ok := strings.CutPrefix(name, "uplink:"); ok {
		return "uplink:" + dom0Name(bridge)
	}
	var n int
	switch {
	case scans(name, "vnet%d", &n):
		return fmt.Sprintf("vif%d.0", n+1)
	case scans(name, "br%d", &n):
		return fmt.Sprintf("xenbr%d", n)
	}
	return name
}

func tableName(name string) string {
	var n int
	switch {
	case scans(name, "vif%d.0", &n):
		return fmt.Sprintf("vnet%d", n-1)
	case scans(name, "xenbr%d", &n):
		return fmt.Sprintf("br%d", n)
	}
	return name
}

func scans(name, format string, n *int) bool {
	_, err := fmt.Sscanf(name, format, n)
	return err == nil && fmt.Sprintf(format, *n) == name
}

func tapOf(vif string) string { return strings.Replace(vif, "vif", "tap", 1) }
