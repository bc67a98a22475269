package scenarios

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// switchNetfilter plays Step.Netfilter: another program switches a bridge's
// netfilter off while no backend runs; a backend that starts puts it right.
func (r *Running) switchNetfilter(ctx context.Context, s Switch) error {
	r.Tracker.SetNetfilter(s.Bridge, s.On)
	if s.On {
		return r.restart(ctx)
	}
	if err := r.stop(); err != nil {
		return err
	}
	return r.SetNetfilter(s.Bridge, false)
}

// SetNetfilter sets the switches of a bridge itself, as other programs do. The
// host-wide ones of a world without HostWide are off.
func (r *Running) SetNetfilter(bridge string, on bool) error {
	links, err := r.Host.Links()
	if err != nil {
		return err
	}
	link, err := links.LinkByName(bridge)
	if err != nil {
		return err
	}
	value := uint8(0)
	if on {
		value = 1
	}
	return r.Host.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(link.Attrs().Index)
		req.AddData(msg)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, attr := range []int{nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES, nl.IFLA_BR_NF_CALL_ARPTABLES} {
			data.AddRtAttr(attr, nl.Uint8Attr(value))
		}
		req.AddData(info)
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("switch netfilter of %s: %w", bridge, err)
		}
		return nil
	})
}
