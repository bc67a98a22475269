// Package agenttest is a host in memory: a registry whose drivers open
// coretest's fakes, which outlive the agents that open and close them, as a
// kernel does.
package agenttest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/engine"
)

// Host is a host in memory.
type Host struct {
	Backend *coretest.FakeBackend // of driver fake
	Other   *coretest.FakeBackend // of driver other
	Adapter *coretest.FakeAdapter // of adapter fake
	// Checks is what Preflight of Backend says.
	Checks []core.Check
	Dir    string // of state, config and socket
}

// New makes a host. Its config is at Config.
func New(t *testing.T) *Host {
	t.Helper()
	h := &Host{
		Backend: &coretest.FakeBackend{Name: "fake"},
		Other:   &coretest.FakeBackend{Name: "other"},
		Adapter: &coretest.FakeAdapter{Name: "fake"},
		Dir:     t.TempDir(),
	}
	h.Write(t, "bridges: [br-tenant]")
	return h
}

// Timing is short enough for tests.
var Timing = engine.Timing{RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, Confirm: 20 * time.Millisecond}

// Config is the path of the config file.
func (h *Host) Config() string { return filepath.Join(h.Dir, "config.yaml") }

// Socket is the path of the agent's socket.
func (h *Host) Socket() string { return filepath.Join(h.Dir, "s") }

// Write puts a config in place: the given lines beside where things are.
func (h *Host) Write(t *testing.T, lines ...string) {
	t.Helper()
	text := "defaults:\n  state: " + filepath.Join(h.Dir, "state") + "\n  socket: {path: " + h.Socket() + "}\n" +
		"  backend: {driver: fake}\n"
	for _, l := range lines {
		text += "  " + l + "\n"
	}
	if err := os.WriteFile(h.Config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Registry opens the fakes.
func (h *Host) Registry() agent.Registry {
	return agent.NewRegistry(
		[]core.BackendDriver{backendDriver{h, h.Backend}, backendDriver{h, h.Other}},
		[]core.AdapterDriver{adapterDriver{h.Adapter}},
	)
}

// Load reads the config as an agent does.
func (h *Host) Load() (*config.Loaded, error) {
	return config.Load(config.Source{Path: h.Config(), Host: "host-1", Known: h.Registry().Known()})
}

type backendDriver struct {
	host *Host
	fake *coretest.FakeBackend
}

func (d backendDriver) Info() core.Info {
	info := d.fake.Info()
	info.Settings = []core.SettingInfo{{Name: "colour", Type: "string", Choices: []string{"red", "blue"}, Help: "of the fake"}}
	return info
}

func (d backendDriver) Open(context.Context, core.Settings) (core.SecurityGroupBackend, error) {
	return &backend{FakeBackend: d.fake, host: d.host}, nil
}

// backend is the fake, which can be opened again after Close.
type backend struct {
	*coretest.FakeBackend
	host *Host
}

func (b *backend) Close() error { return nil }

func (b *backend) Preflight(ctx context.Context) ([]core.Check, error) {
	if b.host.Checks != nil {
		return b.host.Checks, nil
	}
	return b.FakeBackend.Preflight(ctx)
}

type adapterDriver struct{ fake *coretest.FakeAdapter }

func (d adapterDriver) Info() core.Info { return d.fake.Info() }

func (d adapterDriver) Open(context.Context, core.Settings) (core.HypervisorAdapter, error) {
	return d.fake, nil
}

// Instance is a VM that runs on br-tenant with one NIC at a device.
func Instance(name, mac, device string) core.Instance {
	m, err := core.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return core.Instance{VM: core.VM{Key: core.VMKey(name), Name: name, NICs: []core.NIC{{
		MAC: m, Binding: core.Binding{Bridge: "br-tenant", Devices: []string{device}},
	}}}}
}
