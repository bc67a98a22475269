// Command ringwall-plugin-xenserver serves the xenserver adapter to the ringwall agent.
package main

import (
	"github.com/ringwall/ringwall/core/plugin"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
)

func main() { plugin.Serve(nil, xenserver.Driver()) }
