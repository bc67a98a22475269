// Command adapter-plugin finds the VMs of a hypervisor that lists them in a
// file. Put your hypervisor's API in the place of read.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin"
)

func main() { plugin.Serve(nil, driver{}) }

type driver struct{}

func (driver) Info() core.Info {
	return core.Info{Name: "acme-vm", Version: "1.0.0", Settings: []core.SettingInfo{
		{Name: "file", Type: "string", Required: true, Help: "the hypervisor's list of VMs"},
		{Name: "interval", Type: "duration", Default: "1s", Help: "how often to look for changes"},
	}}
}

func (d driver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	a := &adapter{interval: time.Second, info: d.Info()}
	if a.file, _ = s["file"].(string); a.file == "" {
		return nil, &core.FieldError{Path: "hypervisor.settings.file", Reason: "missing; name the file that lists the VMs"}
	}
	if text, ok := s["interval"].(string); ok {
		var err error
		if a.interval, err = time.ParseDuration(text); err != nil || a.interval <= 0 {
			return nil, &core.FieldError{Path: "hypervisor.settings.interval", Value: text, Reason: "not a duration; write 1s or 500ms"}
		}
	}
	return a, nil
}

type adapter struct {
	file     string
	interval time.Duration
	info     core.Info
}

// vm is a VM as the hypervisor has it.
type vm struct {
	ID, Name, State string
	NICs            []struct {
		MAC         core.MAC
		Bridge, Tap string
		Addresses   []netip.Addr
	}
}

func (a *adapter) Info() core.Info { return a.info }

func (a *adapter) Preflight(context.Context) ([]core.Check, error) {
	if _, err := a.read(); err != nil {
		return []core.Check{{Name: "acme-vm-list", Status: core.StatusTransient, Summary: "the hypervisor's list cannot be read", Evidence: err.Error(), Fix: "systemctl start acme-vmd"}}, nil
	}
	return []core.Check{{Name: "acme-vm-list", Summary: "the hypervisor's list can be read"}}, nil
}

// List gives every VM that runs or is paused. What cannot be told is an
// error, never an empty list: an error takes no VM's policy away.
func (a *adapter) List(context.Context) ([]core.Instance, error) {
	vms, err := a.read()
	if err != nil {
		return nil, err
	}
	var out []core.Instance
	for _, v := range vms {
		if v.State != "running" && v.State != "paused" {
			continue
		}
		in := core.Instance{VM: core.VM{Key: core.VMKey(v.ID), Name: v.Name}}
		for _, n := range v.NICs {
			in.VM.NICs = append(in.VM.NICs, core.NIC{MAC: n.MAC, Addresses: n.Addresses, Binding: core.Binding{Bridge: n.Bridge, Devices: []string{n.Tap}}})
		}
		out = append(out, in)
	}
	return out, nil
}

// Watch starts with a resync and sends another whenever something changed:
// the agent lists then. An API that tells what changed sends VMStarted,
// VMStopped and VMChanged instead, and a resync after it lost its connection.
func (a *adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	out := make(chan core.VMEvent)
	go func() {
		defer close(out)
		tick := time.NewTicker(a.interval)
		defer tick.Stop()
		for last := "never seen"; ; {
			if now := a.version(); now != last {
				last = now
				select {
				case out <- core.VMEvent{Kind: core.VMResync}:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (a *adapter) Close() error { return nil }

func (a *adapter) version() string {
	fi, err := os.Stat(a.file)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(fi.ModTime(), fi.Size())
}

func (a *adapter) read() (vms []vm, err error) {
	b, err := os.ReadFile(a.file)
	if err == nil {
		err = json.Unmarshal(b, &vms)
	}
	if err != nil {
		return nil, fmt.Errorf("list the VMs: %w: %w", core.ErrNotReady, err)
	}
	return vms, nil
}
