// Command ringwall-plugin-netns serves the netns adapter to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/netns"
)

func main() { plugin.Serve(nil, netns.Driver()) }
