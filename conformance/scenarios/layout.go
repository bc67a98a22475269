package scenarios

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// layout is the hardware of a world: it stays when policies change.
type layout struct {
	bridges []string // the main one first, the others sorted
	seats   []seat   // NICs first, uplinks last
	routed  bool
}

// seat is a port of a bridge.
type seat struct {
	label, device, bridge string
	mac                   core.MAC
}

func layoutOf(w World) layout {
	names := map[string]bool{}
	for b := range w.Bridges {
		names[b] = true
	}
	for b := range w.Devices {
		names[b] = true
	}
	l := layout{routed: w.Routed}
	for _, vm := range w.VMs {
		for _, n := range vm.NICs {
			for _, d := range n.Binding.Devices {
				names[n.Binding.Bridge] = true
				l.seats = append(l.seats, seat{d, d, n.Binding.Bridge, n.MAC})
			}
		}
	}
	i := byte(0)
	for _, bridge := range slices.Sorted(maps.Keys(w.Devices)) {
		for _, d := range w.Devices[bridge] {
			l.seats = append(l.seats, seat{d, d, bridge, core.MAC{2, 0, 0, 0, 0xfc, i}})
			i++
		}
	}
	delete(names, w.main())
	l.bridges = append([]string{w.main()}, slices.Sorted(maps.Keys(names))...)
	for i, bridge := range l.bridges {
		l.seats = append(l.seats, seat{"uplink:" + bridge, fmt.Sprintf("eth%d", i), bridge, core.MAC{2, 0, 0, 0, 0xfd, byte(i)}})
	}
	return l
}

func (w World) main() string { return cmp.Or(w.Main, "br0") }

// router is the MAC of a bridge.
func (l layout) router(bridge string) core.MAC { return Router(byte(slices.Index(l.bridges, bridge))) }

// place is what a label of a Step stands for.
type place struct {
	label     string
	port      policy.Port
	bridge    string // empty: none, for the host's stack and x
	unmanaged bool
}

func (p place) isHost() bool { return p.port.Kind == policy.PortHost }

// find says what a label is now: what a device is changes with the policies.
func (m *Model) find(label string) (place, error) {
	switch {
	case label == "host":
		return place{label: label, port: policy.Host}, nil
	case label == "x" && m.layout.routed:
		return place{label: label, port: policy.Routed}, nil
	case label == "uplink":
		label = "uplink:" + m.layout.bridges[0]
	case slices.Contains(m.layout.bridges, label):
		return place{label: label, port: policy.Host, bridge: label}, nil
	}
	for _, s := range m.layout.seats {
		if s.label == label {
			return m.placeOf(s), nil
		}
	}
	return place{}, fmt.Errorf("no port %q", label)
}

// placeOf is docs/semantics.md, "Ports".
func (m *Model) placeOf(s seat) place {
	o := m.World.Options
	p := place{label: s.label, bridge: s.bridge, port: policy.Uplink}
	if !o.ManagesBridge(s.bridge) {
		p.unmanaged = true
		return p
	}
	for k, n := range m.Ruleset.Ruleset.NICs {
		if n.Bridge == s.bridge && slices.Contains(n.Devices, s.device) {
			p.port = policy.AtNIC(k)
			return p
		}
	}
	if o.IsVMPort(s.device) {
		p.port = policy.Closed
	}
	return p
}

// site is an address on a bridge.
type site struct {
	bridge string
	addr   netip.Addr
}

// neighbours are the MACs that the host knows: its stations answer no ARP.
func (w World) neighbours() map[site]core.MAC {
	main := w.main()
	out := map[site]core.MAC{{main, u4}: macU, {main, u6}: macU, {main, c4}: macC, {main, c6}: macC}
	for _, vm := range w.VMs {
		for _, n := range vm.NICs {
			for _, a := range n.Addresses {
				out[site{n.Binding.Bridge, a}] = n.MAC
			}
			for _, p := range n.Pairs {
				if !p.Prefix.IsSingleIP() {
					continue
				}
				mac := p.MAC
				if mac == (core.MAC{}) {
					mac = n.MAC
				}
				out[site{n.Binding.Bridge, p.Prefix.Addr()}] = mac
			}
		}
	}
	return out
}
