// Package crash kills the agent, over and over, while rules change under
// traffic.
package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// kills is how often the agent dies.
const kills = 100

const config = `defaults:
  state: %[1]s
  socket: {path: %[1]s/ringwall.sock}
  hypervisor: {adapter: none}
  backend: {driver: nftables}
  bridges: [br0]
`

// manifest allows UDP 6000 into b always, 6001 never, and many ports of one
// of two kinds besides.
func manifest(port int) []byte {
	var b bytes.Buffer
	b.WriteString(`groups:
- name: clients
- name: servers
  rules:
  - {direction: ingress, protocol: udp, ports: [6000]}
`)
	for i := range 100 {
		fmt.Fprintf(&b, "  - {direction: ingress, protocol: tcp, ports: [%d], from: {cidrs: [10.%d.0.0/16]}}\n", port+i, i)
	}
	b.WriteString(`vms:
- name: a
  nics: [{mac: "02:00:00:00:00:0a", bridge: br0, device: vnet0, addresses: [10.0.0.1], groups: [clients]}]
- name: b
  nics: [{mac: "02:00:00:00:00:0b", bridge: br0, device: vnet1, addresses: [10.0.0.2], groups: [servers]}]
`)
	return b.Bytes()
}

// agent is ringwalld on a host of the lab.
type agent struct {
	t    *testing.T
	host *labtest.Host
	bin  string
	dir  string
	log  bytes.Buffer
	cmd  *exec.Cmd
}

func (a *agent) start() {
	a.t.Helper()
	a.cmd = exec.Command(a.bin, "--config", filepath.Join(a.dir, "config.yaml"))
	a.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	a.log.Reset()
	a.cmd.Stderr = &a.log
	labtest.Check(a.t, a.host.Do(a.cmd.Start))
}

func (a *agent) kill() {
	a.cmd.Process.Kill()
	a.cmd.Wait()
}

func (a *agent) client(ctx context.Context) *api.Client {
	a.t.Helper()
	c, err := api.Dial(ctx, api.ClientConfig{Path: filepath.Join(a.dir, "ringwall.sock"), Wait: 20 * time.Second})
	if err != nil {
		a.t.Fatalf("the agent does not answer: %v; it said:\n%s", err, a.log.String())
	}
	return c
}

// settled waits until the kernel holds what is wanted, and tells what that is.
func (a *agent) settled(ctx context.Context) core.Fingerprint {
	a.t.Helper()
	c := a.client(ctx)
	defer c.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		points, err := c.Verify(ctx, api.Empty{})
		if err == nil && len(points) == 1 && len(points[0].Differences) == 0 && points[0].Wanted == points[0].Enforced {
			return a.inKernel(ctx)
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("not as wanted after a restart: %+v, %v; the agent said:\n%s", points, err, a.log.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// inKernel reads the fingerprint with a backend that knows nothing.
func (a *agent) inKernel(ctx context.Context) core.Fingerprint {
	a.t.Helper()
	var o core.Observation
	labtest.Check(a.t, a.host.Do(func() error {
		b, err := nftables.Driver().Open(ctx, nil)
		if err != nil {
			return err
		}
		defer b.Close()
		o, err = b.Observe(ctx)
		return err
	}))
	return o.Fingerprint
}

// TestKillNine: whenever the agent is killed, the kernel holds the old or the
// new ruleset, an always-allowed flow loses nothing, a never-allowed one gets
// nothing through, and the next agent finds its way.
func TestKillNine(t *testing.T) {
	ctx := t.Context()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	port := func(device string, last byte, ip string) []lab.PortSpec {
		return []lab.PortSpec{{Bridge: "br0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last}, Addresses: []netip.Prefix{netip.MustParsePrefix(ip)}}}
	}
	s := h.AddStations(lab.StationSpec{Name: "a", Ports: port("vnet0", 0x0a, "10.0.0.1/24")}, lab.StationSpec{Name: "b", Ports: port("vnet1", 0x0b, "10.0.0.2/24")})

	a := &agent{t: t, host: h, dir: t.TempDir()}
	a.bin = filepath.Join(a.dir, "ringwalld")
	if out, err := exec.Command("go", "build", "-o", a.bin, "github.com/ringwall/ringwall/cmd/ringwalld").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	labtest.Check(t, os.WriteFile(filepath.Join(a.dir, "config.yaml"), fmt.Appendf(nil, config, a.dir), 0o600))

	manifests := [][]byte{manifest(1000), manifest(2000)}
	var valid []core.Fingerprint
	a.start()
	defer func() { a.kill() }()
	a.settled(ctx)
	for _, m := range manifests {
		c := a.client(ctx)
		_, err := c.Apply(ctx, api.ApplyRequest{Manifest: string(m)})
		labtest.Check(t, err)
		c.Close()
		valid = append(valid, a.settled(ctx))
	}

	allowed, err := lab.StartFlood(ctx, lab.FloodSpec{From: s[0], To: s[1], Service: lab.UDP(6000), Rate: 2000})
	labtest.Check(t, err)
	denied := labtest.Must(s[1].ListenPacket(ctx, "udp", ":6001"))(t)
	defer denied.Close()
	sender := labtest.Must(s[0].Dial(ctx, "udp", "10.0.0.2:6001"))(t)
	defer sender.Close()
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				sender.Write([]byte("never"))
			}
		}
	}()

	random := rand.New(rand.NewPCG(1, 2))
	for i := range kills {
		dead := make(chan struct{})
		go func() { // changes go on until the agent is gone
			defer close(dead)
			c, err := api.Dial(ctx, api.ClientConfig{Path: filepath.Join(a.dir, "ringwall.sock"), Wait: time.Second})
			if err != nil {
				return
			}
			defer c.Close()
			for n := 0; err == nil; n++ {
				_, err = c.Apply(ctx, api.ApplyRequest{Manifest: string(manifests[(i+n)%2])})
			}
		}()
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		a.kill()
		<-dead
		if f := a.inKernel(ctx); f != valid[0] && f != valid[1] {
			t.Fatalf("kill %d: the kernel holds %s, which is neither %s nor %s", i, f.Short(), valid[0].Short(), valid[1].Short())
		}
		a.start()
		a.settled(ctx)
	}
	close(stop)
	if stats := allowed.Stop(); stats.LostTotal() > 0 {
		t.Errorf("the always-allowed flow lost packets: %v", stats)
	} else {
		t.Logf("the always-allowed flow: %v", stats)
	}
	denied.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, _, err := denied.ReadFrom(make([]byte, 16)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the never-allowed flow got through: %d bytes, %v", n, err)
	}
}
