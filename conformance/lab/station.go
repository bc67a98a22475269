package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// StationSpec describes anything that is plugged into a host: a VM, the network
// behind an uplink, a routed neighbour.
type StationSpec struct {
	Name      string
	NetnsName string // not empty: also visible as /run/netns/<NetnsName>
	Ports     []PortSpec
	// Mute leaves the addresses out of the namespace: its kernel sends nothing
	// and answers nothing, so that only crafted frames move.
	Mute bool
	// Offloads keeps checksum and segmentation offloads as the kernel sets them:
	// faster, but captured checksums are then partial.
	Offloads bool
	Sysctls  map[string]string // inside the station
}

// PortSpec describes one interface of a station and its end on the host.
type PortSpec struct {
	Bridge        string         // the bridge its device is a port of; empty: the host routes
	Device        string         // on the host; default vnet<n>, counting
	HostAddresses []netip.Prefix // of the device itself, where the host routes

	Name      string // inside the station; default eth<n>
	MAC       core.MAC
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one a family
	MTU       int          // default 1500
}

// Station is a namespace plugged into a host.
type Station struct {
	*Namespace
	mute     bool
	offloads bool

	mu    sync.Mutex
	host  *Host
	ports []*Port
	up    bool
}

// AddStation makes one station and starts it.
func (h *Host) AddStation(spec StationSpec) (*Station, error) {
	s, err := h.AddStations(spec)
	if err != nil {
		return nil, err
	}
	return s[0], nil
}

// AddStations makes many at once, hundreds a second. Devices without a name are
// named in the order of the specs.
func (h *Host) AddStations(specs ...StationSpec) ([]*Station, error) {
	stations := make([]*Station, len(specs))
	for i, spec := range specs {
		stations[i] = &Station{mute: spec.Mute, offloads: spec.Offloads, host: h}
		for _, p := range spec.Ports {
			stations[i].newPort(p)
		}
	}
	var g errgroup.Group
	// Most of the work waits for the kernel's one RTNL lock: more threads
	// than that only queue up.
	g.SetLimit(2 * runtime.NumCPU())
	for i, s := range stations {
		g.Go(func() error { return s.build(specs[i]) })
	}
	err := g.Wait()
	if err == nil {
		err = h.ready(portsOf(stations)...)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		for _, s := range stations {
			err = errors.Join(err, s.close())
		}
		return nil, fmt.Errorf("host %s: %w", h.name, err)
	}
	h.stations = append(h.stations, stations...)
	return stations, nil
}

func (s *Station) build(spec StationSpec) error {
	ns, err := newNamespace(spec.Name, func() error { return writeSysctls(stationSysctls(spec)) })
	if err != nil {
		return err
	}
	s.Namespace = ns
	if err := ns.show(spec.NetnsName); err != nil {
		return err
	}
	return s.plugAll()
}

func portsOf(stations []*Station) (ports []*Port) {
	for _, s := range stations {
		ports = append(ports, s.ports...)
	}
	return ports
}

func stationSysctls(spec StationSpec) map[string]string {
	s := map[string]string{
		"net.ipv4.conf.all.rp_filter":                "0",
		"net.ipv4.conf.default.rp_filter":            "0",
		"net.ipv4.icmp_ratelimit":                    "0",
		"net.ipv4.ping_group_range":                  "0 2147483647",
		"net.ipv6.icmp.ratelimit":                    "0",
		"net.ipv6.conf.default.accept_dad":           "0",
		"net.ipv6.conf.default.accept_ra":            "0",
		"net.ipv6.conf.default.autoconf":             "0",
		"net.ipv6.conf.default.accept_redirects":     "0",
		"net.ipv6.conf.default.router_solicitations": "0",
	}
	if spec.Mute {
		s["net.ipv6.conf.default.disable_ipv6"] = "1"
	}
	for k, v := range spec.Sysctls {
		s[k] = v
	}
	return s
}

// newPort fills in the defaults. The caller holds s.mu or owns s alone.
func (s *Station) newPort(spec PortSpec) *Port {
	if spec.Name == "" {
		spec.Name = fmt.Sprintf("eth%d", len(s.ports))
	}
	if spec.Device == "" {
		spec.Device = s.host.nextDevice()
	}
	if spec.MAC == (core.MAC{}) {
		spec.MAC = s.host.nextMAC()
	}
	p := &Port{spec: spec, station: s}
	s.ports = append(s.ports, p)
	return p
}

// Host is where the station runs now.
func (s *Station) Host() *Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host
}

// Port is the i-th interface, counted from 0. It panics beyond the last.
func (s *Station) Port(i int) *Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ports[i]
}

// Ports lists all interfaces.
func (s *Station) Ports() []*Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Port(nil), s.ports...)
}

// Addr is the first address of the family on any port, the zero Addr when there
// is none.
func (s *Station) Addr(f core.Family) netip.Addr {
	for _, p := range s.Ports() {
		if a := p.Addr(f); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// Start powers the station on: its devices appear on the host, with new
// interface indices, and are ready to send when it returns. Starting a running
// station does nothing.
func (s *Station) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return nil
	}
	if err := s.plugAll(); err != nil {
		return err
	}
	return s.host.ready(s.ports...)
}

// plugAll makes all veths. The caller holds s.mu or owns s alone.
func (s *Station) plugAll() error {
	s.up = true
	for _, p := range s.ports {
		if err := s.plug(p); err != nil {
			return err
		}
	}
	return nil
}

// Stop powers the station off: its devices disappear from the host. The
// namespace stays, for Start.
func (s *Station) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = false
	nl, err := s.host.Links()
	if err != nil {
		return err
	}
	for _, p := range s.ports {
		link, e := nl.LinkByName(p.spec.Device)
		if e == nil {
			e = nl.LinkDel(link)
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("unplug %s: %w", p.spec.Device, e))
		}
	}
	return err
}

// AddPort plugs a further interface into a station, running or not.
func (s *Station) AddPort(spec PortSpec) (*Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.newPort(spec)
	p.ns = s.Namespace
	if !s.up {
		return p, nil
	}
	if err := s.plug(p); err != nil {
		return nil, err
	}
	return p, s.host.ready(p)
}

// plug makes the veth of a port. The caller holds s.mu.
func (s *Station) plug(p *Port) error {
	p.ns = s.Namespace
	if err := s.plugDevice(p); err != nil {
		return fmt.Errorf("station %s: plug %s: %w", s.name, p.spec.Device, err)
	}
	return nil
}

func (s *Station) plugDevice(p *Port) error {
	nl, err := s.host.Links()
	if err != nil {
		return err
	}
	mac := tapMAC(p.spec.MAC)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = p.spec.Device, mac[:], p.spec.MTU
	attrs.Index = s.host.nextIndex()
	if p.spec.Bridge != "" {
		bridge, err := nl.LinkByName(p.spec.Bridge)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", p.spec.Bridge, err)
		}
		attrs.MasterIndex = bridge.Attrs().Index
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr = p.spec.Name, p.spec.MAC[:]
	veth.PeerNamespace = netlink.NsFd(int(s.fd))
	if err := nl.LinkAdd(veth); err != nil {
		return err
	}
	if err := s.configureInside(p); err != nil {
		return err
	}
	if !s.offloads {
		if err := s.host.Do(func() error { return disableOffloads(p.spec.Device) }); err != nil {
			return err
		}
	}
	if err := nl.LinkSetUp(veth); err != nil {
		return err
	}
	return s.host.setAddresses(p.spec.Device, p.spec.HostAddresses)
}

// configureInside sets up the station's end of a port.
func (s *Station) configureInside(p *Port) error {
	err := s.Do(func() error {
		if !s.offloads {
			if err := disableOffloads(p.spec.Name); err != nil {
				return err
			}
		}
		return interfaceUp(p.spec.Name)
	})
	if err != nil || s.mute {
		return err
	}
	nl, err := s.Links()
	if err != nil {
		return err
	}
	if err := addAddresses(nl, p.spec.Name, p.spec.Addresses); err != nil {
		return err
	}
	for _, gw := range p.spec.Gateways {
		if err := nl.RouteAdd(&netlink.Route{Gw: gw.AsSlice(), Dst: ipNet(netip.PrefixFrom(unspecified(gw), 0))}); err != nil {
			return fmt.Errorf("default route via %s: %w", gw, err)
		}
	}
	return nil
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (s *Station) close() error {
	if s.Namespace == nil {
		return nil
	}
	return s.Namespace.close()
}
