package lab

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A veth that has just come up drops what is sent, and its bridge does not
// forward to it, until the kernel's link watch has looked at it. That runs in a
// work queue under the RTNL lock, and for an interface whose index equals that
// of its peer only once a second. So indices are kept apart (see indexBase) and
// ready waits.

// readyPatience bounds the wait; a machine that tears down many namespaces holds
// RTNL for seconds.
const readyPatience = 20 * time.Second

// bridgeForwarding is BR_STATE_FORWARDING.
const bridgeForwarding = 3

// ready waits until the ports can send and receive. The caller holds no lock of
// the host.
func (h *Host) ready(ports ...*Port) error {
	waiting := ports
	for deadline := time.Now().Add(readyPatience); ; time.Sleep(2 * time.Millisecond) {
		states, err := h.portStates()
		if err != nil {
			return err
		}
		var still []*Port
		for _, p := range waiting {
			ok, err := h.portReady(p, states)
			if err != nil {
				return err
			}
			if !ok {
				still = append(still, p)
			}
		}
		if len(still) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("host %s: %s and %d other ports do not come up within %v", h.name, still[0].spec.Device, len(still)-1, readyPatience)
		}
		waiting = still
	}
}

func (h *Host) portReady(p *Port, states map[string]linkState) (bool, error) {
	s, ok := states[p.spec.Device]
	if !ok {
		return false, fmt.Errorf("host %s: interface %s has gone", h.name, p.spec.Device)
	}
	if !s.up || (p.spec.Bridge != "" && s.bridge != bridgeForwarding && !h.hasSTP(p.spec.Bridge)) {
		return false, nil
	}
	nl, err := p.ns.Links()
	if err != nil {
		return false, err
	}
	inside, err := nl.LinkByName(p.spec.Name)
	if err != nil {
		return false, fmt.Errorf("%s: %w", p, err)
	}
	return inside.Attrs().OperState == netlink.OperUp, nil
}

func (h *Host) hasSTP(bridge string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		if b.Name == bridge {
			return b.STP
		}
	}
	return false
}

// linkState is whether an interface is operational, and what its bridge does
// with it.
type linkState struct {
	up     bool
	bridge byte
}

// portStates reads all interfaces of the host at once, which the netlink library
// does without the state of bridge ports.
func (h *Host) portStates() (map[string]linkState, error) {
	states := map[string]linkState{}
	err := h.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			name, s, err := parseLinkState(m)
			if err != nil {
				return err
			}
			states[name] = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: list interfaces: %w", h.name, err)
	}
	return states, nil
}

func parseLinkState(m []byte) (name string, s linkState, err error) {
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
	if err != nil {
		return "", s, err
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			name = nl.BytesToString(a.Value)
		case unix.IFLA_OPERSTATE:
			s.up = netlink.LinkOperState(a.Value[0]) == netlink.OperUp
		case unix.IFLA_LINKINFO:
			if s.bridge, err = parsePortState(a.Value); err != nil {
				return "", s, err
			}
		}
	}
	return name, s, nil
}

// parsePortState finds IFLA_BRPORT_STATE, 0 when the interface is no port.
func parsePortState(linkInfo []byte) (byte, error) {
	const infoSlaveKind, infoSlaveData, portState = 4, 5, 1
	infos, err := nl.ParseRouteAttr(linkInfo)
	if err != nil {
		return 0, err
	}
	isBridge := false
	for _, info := range infos {
		switch info.Attr.Type &^ unix.NLA_F_NESTED {
		case infoSlaveKind:
			isBridge = nl.BytesToString(info.Value) == "bridge"
		case infoSlaveData:
			if !isBridge {
				continue
			}
			data, err := nl.ParseRouteAttr(info.Value)
			if err != nil {
				return 0, err
			}
			for _, d := range data {
				if d.Attr.Type == portState {
					return d.Value[0], nil
				}
			}
		}
	}
	return 0, nil
}

// indexBase is where a host's interface indices start. It differs from host to
// host, and stations count from 2, so that the two ends of a veth never have the
// same index. The kernel's own choice would be 2 at both ends of the first one.
func indexBase(ns *Namespace) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.fd), &st); err != nil {
		return 1 << 15 // works, but two hosts that are cabled up may be slow
	}
	return int(1+st.Ino%60000) << 15
}
