// Package plugintest runs drivers through the plugin protocol inside one
// process: real gRPC, real messages, no program. What passes here behaves the
// same behind core/plugin, save for what only processes do.
package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/rpc"
)

// Loopback is a plugin without a process.
type Loopback struct {
	server *grpc.Server
	rpc    *rpc.Server
	conn   *grpc.ClientConn
	client *rpc.Client
	serves rpc.Description
}

// Serve serves a backend driver, an adapter driver or both; nil is none.
func Serve(backend core.BackendDriver, adapter core.AdapterDriver) (*Loopback, error) {
	l := &Loopback{rpc: rpc.NewServer(backend, adapter), server: grpc.NewServer(rpc.ServerOptions()...)}
	l.rpc.Register(l.server)
	listener := bufconn.Listen(256 << 10)
	go l.server.Serve(listener)
	var err error
	l.conn, err = grpc.NewClient("passthrough:loopback", append(rpc.DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		l.server.Stop()
		return nil, err
	}
	l.client = rpc.NewClient(l.conn, rpc.Options{
		Plugin: "loopback", CallTimeout: time.Minute, SyncTimeout: 5 * time.Minute,
		Failed: func(error) {}, Logger: slog.Default(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if l.serves, err = l.client.Describe(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends the loopback, and closes what is open in it.
func (l *Loopback) Close() {
	l.conn.Close()
	l.server.Stop()
	l.rpc.Close()
}

// Backend is the backend driver as the host sees it.
func (l *Loopback) Backend() (core.BackendDriver, error) {
	if l.serves.Backend == nil {
		return nil, fmt.Errorf("the loopback serves no backend: %w", core.ErrUnsupported)
	}
	return backendDriver{l.client, *l.serves.Backend}, nil
}

// Adapter is the adapter driver as the host sees it.
func (l *Loopback) Adapter() (core.AdapterDriver, error) {
	if l.serves.Adapter == nil {
		return nil, fmt.Errorf("the loopback serves no adapter: %w", core.ErrUnsupported)
	}
	return adapterDriver{l.client, *l.serves.Adapter}, nil
}

type backendDriver struct {
	client *rpc.Client
	info   core.Info
}

func (d backendDriver) Info() core.Info { return d.info }

func (d backendDriver) Open(ctx context.Context, s core.Settings) (core.SecurityGroupBackend, error) {
	return d.client.OpenBackend(ctx, s)
}

type adapterDriver struct {
	client *rpc.Client
	info   core.Info
}

func (d adapterDriver) Info() core.Info { return d.info }

func (d adapterDriver) Open(ctx context.Context, s core.Settings) (core.HypervisorAdapter, error) {
	return d.client.OpenAdapter(ctx, s)
}
