package scenarios

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// introduce tells the host the MACs of its neighbours, which answer no ARP.
func (r *Running) introduce() error {
	all := r.World.neighbours()
	nl, err := r.Host.Links()
	if err != nil {
		return err
	}
	if r.World.Routed {
		for _, a := range []netip.Addr{x4, x6} {
			if err := setNeighbour(nl, DeviceX, a, MACX); err != nil {
				return err
			}
			all := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
			if err := nl.RouteReplace(&netlink.Route{Dst: all, Gw: a.AsSlice()}); err != nil {
				return fmt.Errorf("default route via %s: %w", a, err)
			}
		}
	}
	for i, route := range r.World.Routes {
		if err := setNeighbour(nl, route.Bridge, route.Addr, route.MAC); err != nil {
			return err
		}
		if err := setRoute(nl, route, i+1); err != nil {
			return err
		}
	}
	for at, mac := range all {
		if len(r.World.Bridges[at.bridge]) == 0 {
			continue // the host has no address there
		}
		if err := setNeighbour(nl, at.bridge, at.addr, mac); err != nil {
			return err
		}
	}
	return nil
}

func setNeighbour(nl *netlink.Handle, device string, a netip.Addr, mac core.MAC) error {
	link, err := nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	err = nl.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac[:]})
	if err != nil {
		return fmt.Errorf("neighbour %s on %s: %w", a, device, err)
	}
	return nil
}

func setRoute(nl *netlink.Handle, r Route, metric int) error {
	link, err := nl.LinkByName(r.Bridge)
	if err != nil {
		return fmt.Errorf("interface %s: %w", r.Bridge, err)
	}
	dst := &net.IPNet{IP: r.Addr.AsSlice(), Mask: net.CIDRMask(r.Addr.BitLen(), r.Addr.BitLen())}
	if err := nl.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK, Priority: metric}); err != nil {
		return fmt.Errorf("route to %s by %s: %w", r.Addr, r.Bridge, err)
	}
	return nil
}

// hostPatience is how long a packet of the host's own is waited for. It passes
// no queue that a fence could stand in, and is there when sending returns unless
// the CPU is overrun.
const hostPatience = 30 * time.Millisecond

// deliverFromHost has the host's IP stack send a packet of its own.
func (r *Running) deliverFromHost(ctx context.Context, s Step, token string) ([]string, error) {
	to, err := r.find(s.To)
	if err != nil {
		return nil, err
	}
	device := to.bridge
	if to.label == "x" {
		device = DeviceX
	}
	return r.sendFromHost(ctx, device, s.Frame, token, func(at []string) bool { return slices.Contains(at, to.label) })
}

// sendFromHost waits until the packet was seen at enough ports.
func (r *Running) sendFromHost(ctx context.Context, device string, f policy.Frame, token string, enough func(at []string) bool) ([]string, error) {
	b, err := Encode(f, token)
	if err != nil {
		return nil, err
	}
	if _, err := r.watch.Collect(ctx, 0); err != nil { // what came before
		return nil, err
	}
	if err := r.Host.Do(func() error { return sendRaw(device, f.IP.Dst, b) }); err != nil {
		return nil, fmt.Errorf("send from the host: %w", err)
	}
	var labels []string
	match := lab.HasToken(token)
	for deadline := time.Now().Add(hostPatience); ; {
		captured, err := r.watch.Collect(ctx, time.Millisecond)
		if err != nil {
			return nil, err
		}
		for _, c := range captured {
			if label := r.labels[c.Port]; match(c) && !slices.Contains(labels, label) {
				labels = append(labels, label)
			}
		}
		if enough(labels) || time.Now().After(deadline) {
			return labels, nil
		}
	}
}

// sendRaw sends an IP packet, header and all, the way a local process does: by
// the output hooks and the routes of the calling thread's namespace.
func sendRaw(device string, dst netip.Addr, f frame.Frame) error {
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(dst.AsSlice()[:4])}
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if dst.Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: dst.As16(), ZoneId: uint32(link.Index)}
	}
	// IPPROTO_RAW implies that the header is included.
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
		return fmt.Errorf("bind to %s: %w", device, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, HostMark); err != nil {
		return err
	}
	return unix.Sendto(fd, f.Body(), 0, to)
}

// HostMark is the packet mark of what a Step sends from the host, for rules of
// a test's own that silence everything else.
const HostMark = 1 << 24
