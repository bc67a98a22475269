package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
)

// nic is an Ethernet interface and the address it was born with.
type nic struct {
	link netlink.Link
	born core.MAC
}

func (n nic) name() string { return n.link.Attrs().Name }

func nics() ([]nic, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var out []nic
	for _, l := range links {
		a := l.Attrs()
		// virtio_net knows no other address than the permanent one.
		if a.EncapType == "ether" && len(a.PermHWAddr) == 6 {
			out = append(out, nic{l, core.MAC(a.PermHWAddr)})
		}
	}
	return out, nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// findNIC waits for a NIC: a driver, or a hot plug, takes its time.
func findNIC(born core.MAC) (nic, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		all, err := nics()
		if err != nil {
			return nic{}, err
		}
		for _, n := range all {
			if n.born == born {
				return n, nil
			}
		}
		if time.Now().After(deadline) {
			return nic{}, fmt.Errorf("the guest has no NIC %s", born)
		}
	}
}

func (a *agent) configure(l probe.Link) error {
	n, err := findNIC(l.NIC)
	if err != nil {
		return err
	}
	if err := setMAC(n, l); err != nil {
		return fmt.Errorf("set MAC: %w", err)
	}
	if err := setAddresses(n, l.Addresses); err != nil {
		return err
	}
	for _, via := range l.Gateways {
		_, all, _ := net.ParseCIDR(map[bool]string{true: "0.0.0.0/0", false: "::/0"}[via.Is4()])
		r := &netlink.Route{LinkIndex: n.link.Attrs().Index, Dst: all, Gw: via.AsSlice()}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("default route via %s: %w", via, err)
		}
	}
	return nil
}

// setMAC leaves the link up. An address can only be changed on a link that is
// down; taking it down also forgets the IPv6 addresses and the neighbours.
func setMAC(n nic, l probe.Link) error {
	want := l.MAC
	if want == (core.MAC{}) {
		want = l.NIC
	}
	attrs := n.link.Attrs()
	if core.MAC(attrs.HardwareAddr) != want {
		if err := netlink.LinkSetDown(n.link); err != nil {
			return err
		}
		if err := netlink.LinkSetHardwareAddr(n.link, want[:]); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(n.link)
}

func setAddresses(n nic, want []netip.Prefix) error {
	old, err := netlink.AddrList(n.link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range old {
		if err := netlink.AddrDel(n.link, &a); err != nil {
			return fmt.Errorf("remove %s: %w", a.IPNet, err)
		}
	}
	v6 := "1"
	for _, p := range want {
		if p.Addr().Is6() {
			v6 = "0"
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+n.name()+"/disable_ipv6", []byte(v6), 0o644); err != nil {
		return err
	}
	for _, p := range want {
		bits := 128
		if p.Addr().Is4() {
			bits = 32
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}}
		if err := netlink.AddrAdd(n.link, a); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return nil
}
