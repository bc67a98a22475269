package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// Options of a host. The zero value is an anonymous host that does not route.
type Options struct {
	Name       string // for messages; default "host"
	NetnsName  string // not empty: also visible as /run/netns/<NetnsName>
	Forwarding bool   // routes IPv4 and IPv6
	Sysctls    map[string]string
}

// Host is a hypervisor host: a namespace with bridges, to which stations are
// plugged.
type Host struct {
	*Namespace

	mu         sync.Mutex
	bridges    []BridgeSpec
	stations   []*Station
	devices    int // devices named so far
	macs       int // addresses made up so far
	links      int // interfaces made so far
	firstIndex int
	closed     bool
	unwatch    func() bool
}

// New makes a host without any interface but its loopback. It closes itself
// when ctx ends.
func New(ctx context.Context, o Options) (*Host, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "host"
	}
	ns, err := newNamespace(o.Name, func() error { return writeSysctls(hostSysctls(o)) })
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: ns, firstIndex: indexBase(ns)}
	if err := ns.show(o.NetnsName); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.unwatch = context.AfterFunc(ctx, func() { h.Close() })
	return h, nil
}

// hostSysctls starts from known values: a new namespace inherits the IPv4 ones
// of the machine. Ports get no IPv6 of their own, or the kernel would speak out
// of each of them (MLD, DAD), past every bridge hook, into the VM.
func hostSysctls(o Options) map[string]string {
	s := map[string]string{
		"net.ipv4.ip_forward":                    "0",
		"net.ipv4.conf.all.rp_filter":            "0",
		"net.ipv4.conf.default.rp_filter":        "0",
		"net.ipv4.ping_group_range":              "0 2147483647",
		"net.ipv4.igmp_link_local_mcast_reports": "0", // bridges join the snoopers' group
		"net.ipv6.conf.default.disable_ipv6":     "1",
		"net.ipv6.conf.default.accept_dad":       "0",
		"net.ipv6.conf.default.accept_ra":        "0",
	}
	if o.Forwarding {
		s["net.ipv4.ip_forward"] = "1"
		s["net.ipv6.conf.all.forwarding"] = "1"
		s["net.ipv6.conf.default.forwarding"] = "1"
	}
	for k, v := range o.Sysctls {
		s[k] = v
	}
	return s
}

// Close removes the host and every station on it. Closing twice is fine.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	if h.unwatch != nil {
		h.unwatch()
	}
	var g errgroup.Group
	g.SetLimit(closeAtOnce)
	for _, s := range h.stations {
		g.Go(s.close)
	}
	g.Go(h.Namespace.close)
	return g.Wait()
}

// BridgeSpec describes a bridge of the host.
type BridgeSpec struct {
	Name          string
	MAC           core.MAC       // zero: made up
	Addresses     []netip.Prefix // the host's own
	STP           bool           // ports take 2 x ForwardDelay to open
	VLANFiltering bool
	NoSnooping    bool // multicast is flooded, whoever joined
}

// AddBridge makes a bridge and brings it up.
func (h *Host) AddBridge(b BridgeSpec) error {
	if b.MAC == (core.MAC{}) {
		b.MAC = h.nextMAC()
	}
	nl, err := h.Links()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = b.Name, b.MAC[:]
	attrs.Flags, attrs.Index = net.FlagUp, h.nextIndex()
	link := &netlink.Bridge{LinkAttrs: attrs}
	// Only what differs is asked for: a kernel built without one of these
	// refuses the attribute, whatever its value.
	if b.VLANFiltering {
		link.VlanFiltering = &b.VLANFiltering
	}
	if b.NoSnooping {
		link.MulticastSnooping = new(bool)
	}
	if err := nl.LinkAdd(link); err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	if b.STP {
		if err := h.Do(func() error { return enableSTP(link.Index) }); err != nil {
			return fmt.Errorf("bridge %s: enable STP: %w", b.Name, err)
		}
	}
	if err := h.setAddresses(b.Name, b.Addresses); err != nil {
		return fmt.Errorf("bridge %s: %w", b.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bridges = append(h.bridges, b)
	return nil
}

// setAddresses gives addresses to an interface of the host, and IPv6 with them.
func (h *Host) setAddresses(device string, addrs []netip.Prefix) error {
	if len(addrs) == 0 {
		return nil
	}
	if err := h.SetSysctl(map[string]string{"net/ipv6/conf/" + device + "/disable_ipv6": "0"}); err != nil {
		return err
	}
	nl, err := h.Links()
	if err != nil {
		return err
	}
	return addAddresses(nl, device, addrs)
}

// AddRoute makes the host, in its main table, send prefix to via.
func (h *Host) AddRoute(prefix netip.Prefix, via netip.Addr) error {
	nl, err := h.Links()
	if err != nil {
		return err
	}
	if err := nl.RouteAdd(&netlink.Route{Dst: ipNet(prefix), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s via %s: %w", prefix, via, err)
	}
	return nil
}

// Port is the host's own end of one of its interfaces: what is sent there leaves
// through it, what is seen there has come up to the host.
func (h *Host) Port(device string) (*Port, error) {
	nl, err := h.Links()
	if err != nil {
		return nil, err
	}
	link, err := nl.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("interface %s of %s: %w", device, h.name, err)
	}
	p := &Port{spec: PortSpec{Name: device}, ns: h.Namespace}
	copy(p.spec.MAC[:], link.Attrs().HardwareAddr)
	addrs, err := nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsLinkLocalUnicast() {
			ones, _ := a.Mask.Size()
			p.spec.Addresses = append(p.spec.Addresses, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return p, nil
}

// Addr is the host's first address of the family on any of its bridges, the
// zero Addr when it has none.
func (h *Host) Addr(f core.Family) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		if a := firstOf(f, b.Addresses); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// Stations lists what was plugged in, in order.
func (h *Host) Stations() []*Station {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Station(nil), h.stations...)
}

func (h *Host) nextMAC() core.MAC {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.macs++
	return core.MAC{0x02, 0x1a, 0xb0, byte(h.macs >> 16), byte(h.macs >> 8), byte(h.macs)}
}

func (h *Host) nextDevice() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.devices++
	return fmt.Sprintf("vnet%d", h.devices-1)
}

// nextIndex is the index for the next interface, never used before on any host
// that is there.
func (h *Host) nextIndex() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links++
	return h.firstIndex + h.links
}
