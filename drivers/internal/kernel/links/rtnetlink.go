package links

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
)

// link is what we read of a link message.
type link struct {
	gone      bool
	index     int
	master    int // 0 = none
	name      string
	kind      Kind
	flags     uint32
	mac       core.MAC
	bridgeOpt bridgeOptions
	stats     Stats
}

type bridgeOptions struct {
	nfCall           NFCall
	vlanFiltering    bool
	stp              bool
	groupForwardMask uint16
}

const (
	kindBridge      Kind = "bridge"
	kindOpenVSwitch Kind = "openvswitch"
)

// isBridge is false for the zero link too.
func (l link) isBridge() bool { return l.kind == kindBridge || l.kind == kindOpenVSwitch }

func (l link) bridge() *Bridge {
	if !l.isBridge() {
		return nil
	}
	return &Bridge{
		Name: l.name, Index: l.index, MAC: l.mac, Up: l.flags&unix.IFF_UP != 0,
		OpenVSwitch: l.kind == kindOpenVSwitch,
		NFCall:      l.bridgeOpt.nfCall, VLANFiltering: l.bridgeOpt.vlanFiltering,
		STP: l.bridgeOpt.stp, GroupForwardMask: l.bridgeOpt.groupForwardMask,
	}
}

func (l link) port(master link) *Port {
	if !master.isBridge() {
		return nil // a bond's or a VRF's
	}
	return &Port{
		Name: l.name, Index: l.index, Bridge: master.name, Kind: l.kind, MAC: l.mac,
		Up: l.flags&unix.IFF_UP != 0, Carrier: l.flags&unix.IFF_LOWER_UP != 0,
	}
}

// withoutStats is RTEXT_FILTER_SKIP_STATS: a link's message shrinks to a third.
const withoutStats = 1 << 3

// source is every link. filter is IFLA_EXT_MASK.
func source(filter uint32) nl.Source[link] {
	body := make(nl.Buffer, unix.SizeofIfInfomsg)
	body.Uint32(unix.IFLA_EXT_MASK, filter)
	return nl.Source[link]{
		Protocol: unix.NETLINK_ROUTE,
		Groups:   []int{unix.RTNLGRP_LINK},
		Dumps:    []nl.Request{{Type: unix.RTM_GETLINK, Body: body}},
		Parse:    parse,
	}
}

func parse(m nl.Message) (link, bool) {
	if m.Type != unix.RTM_NEWLINK && m.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	// The bridge reports its ports in the same group under a family of its own,
	// where RTM_DELLINK only means that a port was unplugged. A message of the
	// link itself follows.
	if m.Data[0] != unix.AF_UNSPEC {
		return link{}, false
	}
	l := link{
		gone:  m.Type == unix.RTM_DELLINK,
		index: int(int32(binary.NativeEndian.Uint32(m.Data[4:]))),
		flags: binary.NativeEndian.Uint32(m.Data[8:]),
	}
	for t, v := range nl.Attrs(m.Body(unix.SizeofIfInfomsg)) {
		switch t {
		case unix.IFLA_IFNAME:
			l.name = v.String()
		case unix.IFLA_MASTER:
			l.master = int(v.Uint32())
		case unix.IFLA_ADDRESS:
			copy(l.mac[:], v)
		case unix.IFLA_LINKINFO:
			l.info(v)
		case unix.IFLA_STATS64:
			l.stats = Stats{
				RxPackets: v.Uint64(0), TxPackets: v.Uint64(1), RxBytes: v.Uint64(2), TxBytes: v.Uint64(3),
				RxDropped: v.Uint64(6), TxDropped: v.Uint64(7),
			}
		}
	}
	return l, true
}

func (l *link) info(info nl.Value) {
	var data nl.Value
	for t, v := range nl.Attrs(info) {
		switch t {
		case unix.IFLA_INFO_KIND:
			l.kind = Kind(v.String())
		case unix.IFLA_INFO_DATA:
			data = v
		}
	}
	if l.kind != kindBridge {
		return
	}
	for t, v := range nl.Attrs(data) {
		o := &l.bridgeOpt
		switch t {
		case unix.IFLA_BR_NF_CALL_IPTABLES:
			o.nfCall.IPTables = v.Uint8() != 0
		case unix.IFLA_BR_NF_CALL_IP6TABLES:
			o.nfCall.IP6Tables = v.Uint8() != 0
		case unix.IFLA_BR_NF_CALL_ARPTABLES:
			o.nfCall.ARPTables = v.Uint8() != 0
		case unix.IFLA_BR_VLAN_FILTERING:
			o.vlanFiltering = v.Uint8() != 0
		case unix.IFLA_BR_STP_STATE:
			o.stp = v.Uint32() != 0
		case unix.IFLA_BR_GROUP_FWD_MASK:
			o.groupForwardMask = v.Uint16()
		}
	}
}

// SetNFCall sets a bridge's own three switches. ErrNotFound when there is no
// such bridge, ErrUnsupported when it is of another kind. Watch reports the new
// setting at once if the bridge is up, else when it goes up: the kernel is
// silent about a change to a device that is down, which forwards nothing.
func SetNFCall(ctx context.Context, o Options, bridge string, to NFCall) error {
	ns, err := nl.OpenNamespace(o.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := ns.Dial(nl.Config{Protocol: unix.NETLINK_ROUTE})
	if err != nil {
		return err
	}
	defer c.Close()

	body := make(nl.Buffer, unix.SizeofIfInfomsg)
	body.Text(unix.IFLA_IFNAME, bridge)
	endInfo := body.Nest(unix.IFLA_LINKINFO)
	body.Text(unix.IFLA_INFO_KIND, string(kindBridge))
	endData := body.Nest(unix.IFLA_INFO_DATA)
	body.Bool(unix.IFLA_BR_NF_CALL_IPTABLES, to.IPTables)
	body.Bool(unix.IFLA_BR_NF_CALL_IP6TABLES, to.IP6Tables)
	body.Bool(unix.IFLA_BR_NF_CALL_ARPTABLES, to.ARPTables)
	endData()
	endInfo()
	err = c.Do(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: body})
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("bridge %s: no such device: %w", bridge, core.ErrNotFound)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s is no Linux bridge, so netfilter cannot be switched on for it: %w", bridge, core.ErrUnsupported)
	case err != nil:
		return fmt.Errorf("bridge %s: switch netfilter: %w", bridge, err)
	}
	return nil
}

// Stats are a device's counters since it was made, as the host sees them: what
// a VM sends is received here.
type Stats struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxDropped, TxDropped uint64
}

// ReadStats reads the counters of all devices, by name.
func ReadStats(ctx context.Context, o Options) (map[string]Stats, error) {
	all, err := source(0).List(ctx, o.NetNS)
	if err != nil {
		return nil, err
	}
	stats := make(map[string]Stats, len(all))
	for _, l := range all {
		stats[l.name] = l.stats
	}
	return stats, nil
}
