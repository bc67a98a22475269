// Command ringwall-plugin-kvm serves the kvm adapter to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/kvm"
	"github.com/ringwall/ringwall/hypervisors/kvm/hook"
)

func main() { plugin.Serve(nil, kvm.Driver(hook.Installer{}.Check)) }
