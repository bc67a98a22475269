// Package rpc carries core's two interfaces over gRPC: Register serves a
// driver or an adapter, Client implements them on top of a connection. It
// knows nothing of processes.
package rpc

import (
	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core/plugin/internal/wire"
)

// ServerOptions bound what a peer may send.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(wire.MaxMessage)}
}

// DialOptions bound what a peer may answer.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage))}
}
