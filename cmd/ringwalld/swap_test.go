package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/drivers/iptables"
	"github.com/ringwall/ringwall/drivers/nftables"
)

// agentEnv makes this test binary a ringwalld that has the driver barrier, too.
const agentEnv = "RINGWALLD_TEST_CONFIG"

func TestMain(m *testing.M) {
	if path := os.Getenv(agentEnv); path != "" {
		ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		reload := make(chan os.Signal, 1)
		signal.Notify(reload, syscall.SIGHUP)
		os.Exit(run(ctx, process{args: []string{"--config", path}, stdout: os.Stdout, stderr: os.Stderr, reload: reload,
			registry: agent.NewRegistry([]core.BackendDriver{nftables.Driver(), iptables.Driver(), barrierDriver{}}, nil)}))
	}
	os.Exit(labtest.Main(m))
}

// barrier is another driver: in the kernel it lets nothing pass on any bridge,
// and it has nothing in common with nftables' tables.
type barrier struct{ *coretest.FakeBackend }

type barrierDriver struct{}

func (barrierDriver) Info() core.Info { return (&coretest.FakeBackend{Name: "barrier"}).Info() }

func (barrierDriver) Open(context.Context, core.Settings) (core.SecurityGroupBackend, error) {
	return barrier{&coretest.FakeBackend{Name: "barrier"}}, nil
}

func nft(ctx context.Context, text string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func (b barrier) Sync(ctx context.Context, r core.Ruleset) error {
	err := nft(ctx, "table bridge barrier {\nchain everything {\ntype filter hook forward priority 0; policy drop;\n}\n}\n")
	if err != nil {
		return err
	}
	return b.FakeBackend.Sync(ctx, r)
}

func (b barrier) Teardown(ctx context.Context) error {
	if err := nft(ctx, "table bridge barrier\ndelete table bridge barrier\n"); err != nil {
		return err
	}
	return b.FakeBackend.Teardown(ctx)
}

const swapConfig = `defaults:
  state: %[1]s
  socket: {path: %[1]s/s}
  hypervisor: {adapter: none}
  backend: {driver: %[2]s}
  bridges: [br0]
`

const swapManifest = `groups:
- {name: clients}
- {name: servers, rules: [{direction: ingress, protocol: udp, ports: [6000]}]}
vms:
- {name: a, nics: [{mac: "02:00:00:00:00:0a", bridge: br0, device: vnet0, addresses: [10.0.0.1], groups: [clients]}]}
- {name: b, nics: [{mac: "02:00:00:00:00:0b", bridge: br0, device: vnet1, addresses: [10.0.0.2], groups: [servers]}]}
`

// TestReloadSwapsTheDriver: while a flood that is always denied goes on, SIGHUP
// changes the driver back and forth. Nothing of the flood arrives, and what the
// former driver has made is gone each time. An invalid config in between changes
// nothing.
func TestReloadSwapsTheDriver(t *testing.T) {
	for _, other := range []string{"barrier", "iptables"} {
		t.Run(other, func(t *testing.T) { swapUnderFlood(t, other) })
	}
}

func swapUnderFlood(t *testing.T, other string) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	h := labtest.New(t, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	station := func(name, device string, last byte, ip string) lab.StationSpec {
		return lab.StationSpec{Name: name, Ports: []lab.PortSpec{{Bridge: "br0", Device: device, MAC: core.MAC{2, 0, 0, 0, 0, last}, Addresses: []netip.Prefix{netip.MustParsePrefix(ip)}}}}
	}
	s := h.AddStations(station("a", "vnet0", 0x0a, "10.0.0.1/24"), station("b", "vnet1", 0x0b, "10.0.0.2/24"))

	dir := labtest.Must(os.MkdirTemp("", "swap"))(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "config.yaml")
	write := func(driver string) {
		labtest.Check(t, os.WriteFile(path, fmt.Appendf(nil, swapConfig, dir, driver), 0o600))
	}
	write("nftables")
	var said programs.Log
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{agentEnv + "=" + path, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stderr = &said
	labtest.Check(t, h.Do(cmd.Start))
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the agent ended with %v:\n%s", err, said.String())
		}
	})
	c := labtest.Must(api.Dial(ctx, api.ClientConfig{Path: filepath.Join(dir, "s")}))(t)
	defer c.Close()
	labtest.Must(c.Apply(ctx, api.ApplyRequest{Manifest: swapManifest}))(t)

	// What is allowed arrives, so that the lab is sound; then the flood.
	allowed := labtest.Must(lab.StartFlood(ctx, lab.FloodSpec{From: s[0], To: s[1], Service: lab.UDP(6000), Rate: 100}))(t)
	denied := labtest.Must(s[1].ListenPacket(ctx, "udp", ":6001"))(t)
	arrived := make(chan int, 1)
	go func() {
		n := 0
		for b := make([]byte, 64); ; n++ {
			if _, _, err := denied.ReadFrom(b); err != nil {
				arrived <- n
				return
			}
		}
	}()
	sender := labtest.Must(s[0].Dial(ctx, "udp", "10.0.0.2:6001"))(t)
	flooding, stop := context.WithCancel(ctx)
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; flooding.Err() == nil; n++ {
			sender.Write([]byte("never"))
			time.Sleep(100 * time.Microsecond)
		}
		sent <- n
	}()

	has := func(table string) bool {
		var out []byte
		labtest.Check(t, h.Do(func() (err error) {
			out, err = exec.CommandContext(ctx, "nft", "list", "tables").Output()
			return err
		}))
		return bytes.Contains(out, []byte("bridge "+table+"\n"))
	}
	runs := func(want string) {
		t.Helper()
		st := labtest.Must(c.Status(ctx, api.Empty{}))(t)
		if got := st.Points[0].Backend; got != want {
			t.Errorf("backend %s runs, want %s", got, want)
		}
		if has("ringwall") != (want == "nftables") || has("barrier") != (want == "barrier") {
			t.Errorf("with %s: ringwall is there: %v, barrier: %v", want, has("ringwall"), has("barrier"))
		}
	}
	driver := "nftables"
	for range 5 {
		driver = map[string]string{"nftables": other, other: "nftables"}[driver]
		write(driver)
		labtest.Must(c.Reload(ctx, api.Empty{}))(t)
		runs(driver)
		write("nonsense")
		if _, err := c.Reload(ctx, api.Empty{}); err == nil || !strings.Contains(err.Error(), "the config that runs stays") {
			t.Errorf("an invalid config: %v", err)
		}
		runs(driver)
	}
	stop()
	n := <-sent
	time.Sleep(50 * time.Millisecond)
	denied.Close()
	sender.Close()
	if got := <-arrived; got != 0 || n < 100 {
		t.Errorf("of %d datagrams that are denied %d have arrived", n, got)
	}
	// The barrier lets nothing pass. Between real drivers an allowed flow may lose
	// a packet while both judge, but goes on.
	if stats := allowed.Stop(); stats.Received == 0 || other != "barrier" && stats.LongestPause > 2*time.Second {
		t.Errorf("allowed: %s", stats)
	}
}
