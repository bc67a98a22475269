package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

type adapterServer struct {
	pb.UnimplementedAdapterServer
	driver core.AdapterDriver
	open   handles[core.HypervisorAdapter]
}

func (s *adapterServer) Open(ctx context.Context, r *pb.AdapterOpenRequest) (*pb.AdapterOpenResponse, error) {
	settings, err := wire.DecodeSettings(r.GetSettings())
	if err != nil {
		return nil, wire.EncodeError(wire.Invalid(err))
	}
	a, err := s.driver.Open(ctx, settings)
	if err != nil {
		return nil, wire.EncodeError(err)
	}
	return &pb.AdapterOpenResponse{Handle: s.open.put(a), Info: wire.EncodeInfo(a.Info())}, nil
}

func (s *adapterServer) Close(_ context.Context, r *pb.AdapterCloseRequest) (*pb.AdapterCloseResponse, error) {
	if a, ok := s.open.take(r.GetHandle()); ok {
		if err := a.Close(); err != nil {
			return nil, wire.EncodeError(err)
		}
	}
	return &pb.AdapterCloseResponse{}, nil
}

func (s *adapterServer) Preflight(ctx context.Context, r *pb.AdapterPreflightRequest) (*pb.AdapterPreflightResponse, error) {
	a, err := s.open.get(r.GetHandle())
	if err != nil {
		return nil, err
	}
	checks, err := a.Preflight(ctx)
	if err != nil {
		return nil, wire.EncodeError(err)
	}
	return &pb.AdapterPreflightResponse{Checks: wire.EncodeChecks(checks)}, nil
}

func (s *adapterServer) List(r *pb.ListRequest, stream grpc.ServerStreamingServer[pb.ListResponse]) error {
	a, err := s.open.get(r.GetHandle())
	if err != nil {
		return err
	}
	instances, err := a.List(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return wire.EncodeError(wire.EncodeInstances(instances, stream.Send))
}

func (s *adapterServer) Watch(r *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.WatchResponse]) error {
	a, err := s.open.get(r.GetHandle())
	if err != nil {
		return err
	}
	events, err := a.Watch(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return forward(stream, events, wire.EncodeVMEvent)
}
