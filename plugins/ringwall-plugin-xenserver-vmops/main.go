// Command ringwall-plugin-xenserver-vmops serves the backend that programs a
// XenServer host through its vmops plugin to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/xenserver/vmops"
)

func main() { plugin.Serve(vmops.Driver(), nil) }
