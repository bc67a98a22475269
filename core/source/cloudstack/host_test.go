package cloudstack_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/source/cloudstack"
	"github.com/ringwall/ringwall/core/state"
)

// host is a source on an engine with fakes around it, in a synctest bubble.
type host struct {
	*cloudstack.Source
	t       *testing.T
	dir     string
	engine  *engine.Engine
	backend *coretest.FakeBackend
	adapter *coretest.FakeAdapter
	stop    func()
}

type setup struct {
	noAdapter bool
	settings  cloudstack.Settings
	stock     cloudstack.Stock
}

func onHost(t *testing.T, s setup, test func(*host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t, dir: t.TempDir(), backend: &coretest.FakeBackend{}, adapter: &coretest.FakeAdapter{}}
		h.start(s)
		defer func() { h.stop() }()
		test(h)
	})
}

func (h *host) start(s setup) {
	h.t.Helper()
	store, err := state.Open(context.Background(), state.Options{Dir: filepath.Join(h.dir, "state")})
	if err != nil {
		h.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(h.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	o := engine.Options{
		State: store, Backends: map[string]core.SecurityGroupBackend{"": h.backend}, Logger: log, Derive: cloudstack.Derive,
		Gone:   func(tx *state.Tx, vms []state.VM) error { return h.Gone(tx, vms) },
		Policy: core.Options{VMPorts: []core.Pattern{"vnet*"}, AllowDNS: true, Multicast: core.MulticastDrop},
	}
	if !s.noAdapter {
		o.Adapter = cloudstack.SystemVMs(h.adapter)
	}
	if h.engine, err = engine.New(o); err != nil {
		h.t.Fatal(err)
	}
	if s.settings.Files == "" {
		s.settings.Files = h.files()
	}
	h.Source = cloudstack.New(cloudstack.Options{Engine: h.engine, Settings: s.settings, Stock: s.stock, Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = h.engine.Run(ctx)
	}()
	h.stop = func() {
		h.stop = func() {}
		cancel()
		<-ended
		if err := store.Close(); err != nil {
			h.t.Error(err)
		}
		for _, a := range h.backend.Abuse() {
			h.t.Error(a)
		}
	}
	synctest.Wait()
}

func (h *host) restart(s setup) { h.stop(); h.start(s) }

func (h *host) files() string { return filepath.Join(h.dir, "cloud") }

// vm is i-2-<n>-VM with NICs on cloudbr0, as libvirt has it.
func vm(n int, domain string, macs ...core.MAC) core.Instance {
	in := core.Instance{DomainID: domain, VM: core.VM{Key: core.VMKey(fmt.Sprintf("uuid-%d", n)), Name: name(n)}}
	for i, m := range macs {
		in.VM.NICs = append(in.VM.NICs, core.NIC{MAC: m, Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{device(n, i)}}})
	}
	return in
}

func name(n int) string      { return fmt.Sprintf("i-2-%d-VM", n) }
func device(n, i int) string { return fmt.Sprintf("vnet%d", 10*n+i) }
func mac(n, i int) core.MAC  { return core.MAC{0x1e, 0, 0xb4, 0, byte(i), byte(n)} }
func ip(n, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i), byte(n)}) }

// defaults is the agent's call for one NIC.
func defaults(n, i int, more func(*cloudstack.Call)) cloudstack.Call {
	c := cloudstack.Call{Command: cloudstack.DefaultNetworkRules, VM: name(n), VMID: fmt.Sprint(n), IP: ip(n, i), MAC: mac(n, i),
		Device: device(n, i), Bridge: "cloudbr0", FirstNIC: i == 0}
	if more != nil {
		more(&c)
	}
	return c
}

func check(c *cloudstack.Call) { c.Check = true }

// rules is the agent's call with rules; the rest is of interface 0, which need
// not have a security group.
func rules(n int, sequence int64, text string) cloudstack.Call {
	return cloudstack.Call{Command: cloudstack.AddNetworkRules, VM: name(n), VMID: fmt.Sprint(n), IP: ip(n, 0), Signature: fmt.Sprintf("%032x", sequence),
		Sequence: sequence, Rules: text, MAC: core.MAC{2, 9, 9, 9, 9, 9}, Device: "vnet999", Bridge: "cloudbr9"}
}

func (h *host) call(c cloudstack.Call) cloudstack.Answer {
	h.t.Helper()
	a, err := h.Call(context.Background(), c)
	if err != nil {
		h.t.Fatalf("%s: %v", c.Command, err)
	}
	synctest.Wait()
	return a
}

func (h *host) fails(c cloudstack.Call, want string) {
	h.t.Helper()
	if _, err := h.Call(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
		h.t.Errorf("%s: %v, want %q", c.Command, err, want)
	}
}

// logs is the answer to a ping, by VM.
func (h *host) logs() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	for e := range strings.SplitSeq(h.call(cloudstack.Call{Command: cloudstack.RuleLogs}).Text, ";") {
		vm, rest, _ := strings.Cut(e, ",")
		out[vm] = rest
	}
	return out
}

func (h *host) logged(n int, want string) {
	h.t.Helper()
	if got := h.logs()[name(n)]; got != want {
		h.t.Errorf("log of %s is %q, want %q", name(n), got, want)
	}
	b, err := os.ReadFile(filepath.Join(h.files(), name(n)+".log"))
	if line := fmt.Sprintf("%s,%s\n", name(n), want); want != "" && (err != nil || string(b) != line) {
		h.t.Errorf("file of %s is %q, %v; want %q", name(n), b, err, line)
	}
}

// port is where a NIC is plugged in, as the enforced ruleset has it.
func (h *host) port(n, i int) policy.Port {
	r := h.backend.Ruleset()
	for k := range r.NICs {
		if k.MAC == mac(n, i) {
			return policy.AtNIC(k)
		}
	}
	return policy.Port{}
}

// passes asks the evaluator whether the enforced ruleset lets a new flow
// through: tcp to a port, from or to the uplink.
func (h *host) passes(d core.Direction, n, i int, dport uint16) bool {
	h.t.Helper()
	outside := policy.Path{SrcMAC: core.MAC{2, 0, 0, 0, 0, 1}, DstMAC: mac(n, i), Src: netip.MustParseAddr("192.0.2.1"), Dst: ip(n, i)}
	at := h.port(n, i)
	if at == (policy.Port{}) {
		return false
	}
	if d == core.Ingress {
		return policy.Evaluate(h.backend.Ruleset(), outside.SYN(1000, dport), policy.Uplink, at, policy.StateNew).Allowed
	}
	return policy.Evaluate(h.backend.Ruleset(), outside.Reverse().SYN(1000, dport), at, policy.Uplink, policy.StateNew).Allowed
}

func (h *host) expect(d core.Direction, n, i int, dport uint16, want bool) {
	h.t.Helper()
	if got := h.passes(d, n, i, dport); got != want {
		h.t.Errorf("%s nic %d %s tcp %d passes: %v, want %v", name(n), i, d, dport, got, want)
	}
}

func (h *host) addresses(n, i int) (out []string) {
	for k, p := range h.backend.Ruleset().NICs {
		if k.MAC == mac(n, i) {
			for _, a := range p.Addresses {
				out = append(out, a.String())
			}
		}
	}
	slices.Sort(out)
	return out
}

const ssh = "I:tcp;22;22;0.0.0.0/0,NEXT;"

func sleep(d time.Duration) { time.Sleep(d); synctest.Wait() }
