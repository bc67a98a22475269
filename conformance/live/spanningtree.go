package live

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// SpanningTree has a VM, a closed port and then the fabric claim to be the root
// of a bridge that runs STP. Bridges hand such frames to their host on the port
// itself, past all hooks of the bridge: only the fabric may be heard.
func SpanningTree(t *testing.T, target scenarios.Target) {
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}, STP: true})
	station := func(name, device string, last byte) lab.StationSpec {
		return lab.StationSpec{Name: name, Mute: true, Ports: []lab.PortSpec{{Bridge: "br0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last}}}}
	}
	s := h.AddStations(station("a", "vnet0", 0x0a), station("closed", "vnet7", 0x07), station("fabric", "eth0", 0x09))
	backend := labtest.Must(target.Open(t.Context(), t, h))(t)
	t.Cleanup(func() { backend.Close() })
	rs := labtest.Must(policy.Compile(policy.Input{
		Options: core.Options{Bridges: []core.Pattern{"br0"}, VMPorts: []core.Pattern{"vnet*"}},
		VMs: []core.VM{{Key: "a", Name: "a", NICs: []core.NIC{{MAC: s[0].Port(0).MAC(), SpoofingAllowed: true,
			Binding: core.Binding{Bridge: "br0", Devices: []string{"vnet0"}}}}}},
	}))(t)
	scenarios.SkipWithout(t, backend, rs.RequiredFeatures()...)
	labtest.Check(t, backend.Sync(t.Context(), rs))

	own := labtest.Must(root(h))(t)
	for _, from := range s[:2] {
		labtest.Check(t, from.Port(0).SendFrames(frame.BPDU(from.Port(0).MAC())))
		time.Sleep(100 * time.Millisecond)
		if now := labtest.Must(root(h))(t); !bytes.Equal(now, own) {
			t.Errorf("%s made the root of br0 %x; it was %x", from.Name(), now, own)
		}
	}
	fabric := s[2].Port(0)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		labtest.Check(t, fabric.SendFrames(frame.BPDU(fabric.MAC())))
		if now := labtest.Must(root(h))(t); !bytes.Equal(now, own) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the fabric is not heard either: the claim proves nothing")
		}
	}
}

// root reads who the root of br0 is, which the netlink library does not.
func root(h *labtest.Host) (id []byte, err error) {
	err = h.Do(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("br0")))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if err != nil {
			return err
		}
		for _, path := range msgs {
			if id = attribute(path[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA, nl.IFLA_BR_ROOT_ID); id != nil {
				return nil
			}
		}
		return fmt.Errorf("br0 does not tell its root: %w", core.ErrNotFound)
	})
	return id, err
}

// attribute finds a nested one.
func attribute(b []byte, path ...uint16) []byte {
	for _, kind := range path {
		attrs, err := nl.ParseRouteAttr(b)
		if err != nil {
			return nil
		}
		b = nil
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == kind {
				b = a.Value
			}
		}
	}
	return b
}
