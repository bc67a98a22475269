// Command ringwall-plugin-vmware serves the vmware adapter and the vmware
// backend to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/vmware"
)

func main() { plugin.Serve(vmware.BackendDriver(), vmware.Driver()) }
