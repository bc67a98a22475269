package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
)

const bridge = "br-tenant"

// site is the host, what is plugged into it, and the agent.
type site struct {
	host   *lab.Host
	vms    map[string]*lab.Station
	fabric *lab.Station
	dir    string // config, state and socket
	bin    string // where ringwall and ringwalld are
	agent  *exec.Cmd
	log    bytes.Buffer
}

// names are the VMs in the order of the table.
var names = []string{"web1", "web2", "web3", "db1", "db2", "mallory"}

var lastOctet = map[string]int{"web1": 11, "web2": 12, "web3": 13, "db1": 21, "db2": 22, "mallory": 66}

func macOf(name string) core.MAC {
	m := map[string]core.MAC{
		"web1": {2, 0, 0, 0, 1, 1}, "web2": {2, 0, 0, 0, 1, 2}, "web3": {2, 0, 0, 0, 1, 3},
		"db1": {2, 0, 0, 0, 2, 1}, "db2": {2, 0, 0, 0, 2, 2}, "mallory": {2, 0, 0, 0, 9, 1},
	}
	return m[name]
}

func addresses(octet int) []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.20.0.%d/24", octet)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:20::%d/64", octet)),
	}
}

// build makes the host: a bridge, an uplink to "fabric", six VMs.
func build(ctx context.Context) (*site, error) {
	s := &site{vms: map[string]*lab.Station{}}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.bin = filepath.Dir(self)
	if s.dir, err = os.MkdirTemp("", "ringwall-demo-"); err != nil {
		return nil, err
	}
	if s.host, err = lab.New(ctx, lab.Options{Name: "host"}); err != nil {
		return s, err
	}
	if err := s.host.AddBridge(lab.BridgeSpec{Name: bridge, MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}}); err != nil {
		return s, err
	}
	specs := []lab.StationSpec{{Name: "fabric", Ports: []lab.PortSpec{{Bridge: bridge, Device: "eth0", MAC: core.MAC{2, 0, 0, 0, 0, 9}, Addresses: addresses(254)}}}}
	for i, n := range names {
		specs = append(specs, lab.StationSpec{Name: n, NetnsName: n, Ports: []lab.PortSpec{{
			Bridge: bridge, Device: fmt.Sprintf("vnet%d", i), MAC: macOf(n), Addresses: addresses(lastOctet[n])}}})
	}
	stations, err := s.host.AddStations(specs...)
	if err != nil {
		return s, err
	}
	s.fabric = stations[0]
	for i, n := range names {
		s.vms[n] = stations[i+1]
	}
	return s, nil
}

func (s *site) close() {
	if s.agent != nil {
		s.agent.Process.Signal(syscall.SIGTERM)
		s.agent.Wait()
	}
	if s.host != nil {
		s.host.Close()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

const config = `defaults:
  state: %[1]s/state
  socket: {path: %[1]s/ringwall.sock}
  hypervisor:
    adapter: netns
    run: in_process
    settings: {namespaces: ["web*", "db*", mallory], ports: ["vnet*"]}
  backend: {driver: nftables}
  bridges: [%[2]s]
`

// startAgent starts ringwalld on the host and waits until it answers.
func (s *site) startAgent(ctx context.Context) error {
	if err := os.WriteFile(s.path("config.yaml"), fmt.Appendf(nil, config, s.dir, bridge), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("state"), 0o700); err != nil {
		return err
	}
	s.agent = exec.CommandContext(ctx, filepath.Join(s.bin, "ringwalld"), "--config", s.path("config.yaml"))
	s.agent.Stderr = &s.log
	s.agent.Cancel = func() error { return s.agent.Process.Signal(syscall.SIGTERM) }
	if err := s.host.Do(s.agent.Start); err != nil {
		return fmt.Errorf("start ringwalld: %w", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		// verify succeeds once the kernel holds what is wanted.
		_, err := os.Stat(s.path("ringwall.sock"))
		if err == nil {
			_, err = s.ringwall(ctx, "verify")
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("ringwalld is not ready: %w; it said:\n%s", err, s.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// ringwall runs the command, as a user would, and returns what it prints.
func (s *site) ringwall(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "ringwall"), append([]string{"--config", s.path("config.yaml")}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.host.Do(cmd.Run)
	if err != nil {
		err = fmt.Errorf("ringwall %v: %w\n%s\nthe agent said:\n%s", args, err, out.String(), s.log.String())
	}
	return out.String(), err
}
