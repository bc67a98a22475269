package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// OpenAdapter opens an adapter in the plugin.
func (c *Client) OpenAdapter(ctx context.Context, settings core.Settings) (core.HypervisorAdapter, error) {
	in, err := wire.EncodeSettings(settings)
	if err != nil {
		return nil, err
	}
	a := &adapter{c: c, rpc: pb.NewAdapterClient(c.conn)}
	err = c.call(ctx, "Open", c.opts.CallTimeout, func(ctx context.Context) error {
		m, err := a.rpc.Open(ctx, &pb.AdapterOpenRequest{Settings: in})
		if err != nil {
			return err
		}
		a.handle = m.GetHandle()
		a.info, err = wire.DecodeInfo(m.GetInfo())
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

type adapter struct {
	c      *Client
	rpc    pb.AdapterClient
	handle uint64
	info   core.Info
}

func (a *adapter) Info() core.Info { return a.info }

func (a *adapter) Preflight(ctx context.Context) (checks []core.Check, err error) {
	err = a.c.call(ctx, "Preflight", a.c.opts.CallTimeout, func(ctx context.Context) error {
		m, err := a.rpc.Preflight(ctx, &pb.AdapterPreflightRequest{Handle: a.handle})
		if err != nil {
			return err
		}
		checks, err = wire.DecodeChecks(m.GetChecks())
		return err
	})
	return checks, err
}

func (a *adapter) List(ctx context.Context) ([]core.Instance, error) {
	var d wire.InstanceDecoder
	err := a.c.call(ctx, "List", a.c.opts.CallTimeout, func(ctx context.Context) error {
		stream, err := a.rpc.List(ctx, &pb.ListRequest{Handle: a.handle})
		if err != nil {
			return err
		}
		return wire.Receive(stream.Recv, d.Add)
	})
	if err != nil {
		return nil, err
	}
	return d.Instances(), nil
}

func (a *adapter) Watch(ctx context.Context) (<-chan core.VMEvent, error) {
	return watch(ctx, a.c, "Watch", func(ctx context.Context) (grpc.ServerStreamingClient[pb.WatchResponse], error) {
		return a.rpc.Watch(ctx, &pb.WatchRequest{Handle: a.handle})
	}, wire.DecodeVMEvent)
}

func (a *adapter) Close() error {
	return a.c.call(context.Background(), "Close", closeTimeout, func(ctx context.Context) error {
		_, err := a.rpc.Close(ctx, &pb.AdapterCloseRequest{Handle: a.handle})
		return err
	})
}
