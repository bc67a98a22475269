// Package netns is the adapter for VMs that are named network namespaces, each
// with veths to bridges of the namespace that the adapter runs in: containers
// without a manager, and laboratories.
package netns

import (
	"context"
	"fmt"
	"os"

	"github.com/ringwall/ringwall/core"
)

// Name is the adapter's name in config.
const Name = "netns"

// Driver makes adapters.
func Driver() core.AdapterDriver { return driver{} }

type driver struct{}

func (driver) Info() core.Info {
	return core.Info{Name: Name, Version: "1", Settings: settingInfos}
}

// Open looks for bridges in the network namespace of the calling thread. There
// need not be a VM, nor the directory, yet.
func (driver) Open(_ context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	parsed, err := parseSettings(s)
	if err != nil {
		return nil, err
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	return &adapter{settings: parsed, own: own}, nil
}

// adapter is a core.HypervisorAdapter.
type adapter struct {
	settings settings
	own      *os.File // the network namespace with the bridges
}

func (a *adapter) Info() core.Info { return driver{}.Info() }

// Close lets the namespace go. Watches end with their contexts.
func (a *adapter) Close() error { return a.own.Close() }

// List is every namespace that is a VM. One that vanishes meanwhile is none.
func (a *adapter) List(ctx context.Context) ([]core.Instance, error) {
	s, err := a.scan(ctx)
	if err != nil {
		return nil, err
	}
	return s.instances(), nil
}
