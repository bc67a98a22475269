// Package process starts plugin programs and holds what host and plugin must
// agree on before they can talk.
package process

import (
	"context"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Version is the protocol that this release speaks. 0 is unstable: both ends
// must be of matching releases.
const Version = 0

// Handshake keeps a plugin from running when somebody starts it by hand.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  Version,
	MagicCookieKey:   "RINGWALL_PLUGIN",
	MagicCookieValue: "38f1b7d3d6c54d0c",
}

const pluginKey = "ringwall"

// Plugins is what go-plugin serves (register) or dispenses (nil): all services
// of a process under one key, since one launch may serve both interfaces.
func Plugins(register func(grpc.ServiceRegistrar)) map[int]goplugin.PluginSet {
	return map[int]goplugin.PluginSet{Version: {pluginKey: &services{register: register}}}
}

type services struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(grpc.ServiceRegistrar)
}

func (s *services) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	s.register(g)
	return nil
}

func (s *services) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}
