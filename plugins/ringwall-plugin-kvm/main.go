// Command ringwall-plugin-kvm serves the kvm adapter to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

func main() { plugin.Serve(nil, kvm.Driver()) }
