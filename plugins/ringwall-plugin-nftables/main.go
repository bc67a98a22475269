// Command ringwall-plugin-nftables serves the nftables backend to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/drivers/nftables"
)

func main() { plugin.Serve(nftables.Driver(), nil) }
