// Command ringwall-plugin-iptables serves the iptables backend to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/drivers/iptables"
)

func main() { plugin.Serve(iptables.Driver(), nil) }
