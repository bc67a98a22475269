// Package registry names the drivers and adapters that are built in. It is the
// only place that imports them.
package registry

import (
	"github.com/ringwall/ringwall/cmd/internal/agent"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables"
	"github.com/ringwall/ringwall/drivers/nftables"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
	"github.com/ringwall/ringwall/hypervisors/netns"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
)

// BuiltIn is what this program has.
func BuiltIn() agent.Registry {
	return agent.NewRegistry(
		[]core.BackendDriver{nftables.Driver(), iptables.Driver()},
		[]core.AdapterDriver{kvm.Driver(hook.Installer{}.Check), netns.Driver(), xenserver.Driver()},
	)
}
