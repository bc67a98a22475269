package generated

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
)

// bridges and places are the hardware that all plays share: NICs come and go on
// devices that stay, and a device without one is closed.
var bridges = []string{"br0", "br1"}

const places = 3

// world puts a drawn one on the hardware.
func world(w policytest.World) scenarios.World {
	out := scenarios.World{Options: w.Input.Options, Groups: w.Input.Groups, VMs: w.Input.VMs, Routed: true,
		Bridges: map[string][]netip.Prefix{}, Devices: map[string][]string{}}
	for b, name := range bridges {
		out.Bridges[name] = []netip.Prefix{netip.PrefixFrom(hostAddr(core.IPv4, b), 32), netip.PrefixFrom(hostAddr(core.IPv6, b), 128)}
		out.Devices[name] = []string{closedDevice(b)}
		for place := range places {
			for _, f := range core.Families {
				for n := range 2 {
					out.Routes = append(out.Routes, scenarios.Route{Addr: policytest.NICAddress(f, place, n), Bridge: name, MAC: policytest.NICMAC(b, place)})
				}
			}
		}
	}
	return out
}

// hardware is a world with a NIC at every place.
func hardware(o core.Options) scenarios.World {
	w := world(policytest.World{Input: policy.Input{Options: o}})
	for b, name := range bridges {
		for place := range places {
			w.VMs = append(w.VMs, core.VM{Key: core.VMKey(fmt.Sprintf("vm-%d-%d", b, place)), Name: fmt.Sprint("vm-", b, place), NICs: []core.NIC{{
				MAC: policytest.NICMAC(b, place), Binding: core.Binding{Bridge: name, Devices: []string{policytest.Device(b, place)}}}}})
		}
	}
	return w
}

func hostAddr(f core.Family, bridge int) netip.Addr {
	if f == core.IPv4 {
		return netip.AddrFrom4([4]byte{10, 255, byte(bridge), 254})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0xff, 14: byte(bridge), 15: 0xfe})
}

func closedDevice(bridge int) string { return policytest.Device(bridge, 90) }

// stage is the hardware with a backend, for any number of plays.
type stage struct {
	*scenarios.Running
	fragments uint32 // identifications used so far
}

// build makes the hardware and opens the backend.
func build(t testing.TB, target scenarios.Target, shape policytest.Shape) *stage {
	t.Helper()
	s := &stage{Running: scenarios.Start(t, target, hardware(core.Options{Bridges: shape.Managed, VMPorts: shape.VMPorts}))}
	labtest.Check(t, s.Unlearn())
	labtest.Check(t, s.silence())
	labtest.Check(t, s.Host.SetSysctl(map[string]string{
		// The tracker models no sequence numbers and no timeouts.
		"net.netfilter.nf_conntrack_tcp_be_liberal":           "1",
		"net.netfilter.nf_conntrack_sctp_timeout_cookie_wait": "120",
		"net.netfilter.nf_conntrack_udp_timeout":              "120",
		"net.netfilter.nf_conntrack_icmp_timeout":             "120",
		"net.netfilter.nf_conntrack_icmpv6_timeout":           "120",
		"net.netfilter.nf_conntrack_tcp_timeout_close":        "120",
	}))
	return s
}

// silence keeps the host's own kernel from answering what is sent to it: its
// answers would move flows that the tracker knows nothing of. The table is a
// stranger to the backend, which must let it be.
func (s *stage) silence() error {
	return s.Host.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
			table := c.AddTable(&nftables.Table{Family: family, Name: "lab"})
			priority := nftables.ChainPriority(-500) // before conntrack
			chain := c.AddChain(&nftables.Chain{Name: "silence", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: &priority})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(scenarios.HostMark), Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("silence the host: %w", err)
		}
		return nil
	})
}

// judge plays, and once more when all that was wrong is that something did not
// arrive: a machine under load may lose a frame, but not let one through.
func (s *stage) judge(ctx context.Context, t *testing.T, p Play) error {
	err := s.play(ctx, p)
	if d := (*scenarios.Disagreement)(nil); errors.As(err, &d) && !d.Leak {
		t.Logf("playing it again: %v", err)
		err = s.play(ctx, p)
	}
	return err
}

// play has the backend enforce the play's world, whatever it enforced before,
// and sends its events.
func (s *stage) play(ctx context.Context, p Play) error {
	if err := s.Adopt(ctx, world(p.World)); err != nil {
		return err
	}
	var volley []scenarios.Shot
	first := 0
	fire := func(next int) error {
		if len(volley) == 0 {
			return nil
		}
		if err := s.Volley(ctx, volley); err != nil {
			return fmt.Errorf("of events %d to %d, %w", first, next-1, err)
		}
		volley = nil
		return nil
	}
	for i, e := range p.Events {
		if len(volley) == 0 {
			first = i
		}
		if e.World == nil {
			if shot, ok := s.aim(e); ok {
				volley = append(volley, shot)
				continue
			}
		}
		if err := fire(i); err != nil {
			return err
		}
		if err := s.special(ctx, e); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return fire(len(p.Events))
}

// special plays what cannot be part of a volley.
func (s *stage) special(ctx context.Context, e Event) error {
	if e.World != nil {
		err := s.Change(ctx, func(w *scenarios.World) { *w = world(*e.World) })
		if err == nil && e.Restart {
			err = s.Running.Restart(ctx)
		}
		return err
	}
	if bridge, f, ok := s.hail(*e.Passage); ok {
		return s.Hail(ctx, bridge, f)
	}
	return nil
}
