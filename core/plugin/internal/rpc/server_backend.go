package rpc

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

type backendServer struct {
	pb.UnimplementedBackendServer
	driver core.BackendDriver
	open   handles[*openBackend]
}

// openBackend serialises what changes the point. The host does so too, but a
// call that it gave up may still be running here when the next one arrives.
type openBackend struct {
	core.SecurityGroupBackend
	writing chan struct{}
}

func (b *openBackend) write(ctx context.Context, change func() error) error {
	select {
	case b.writing <- struct{}{}:
		defer func() { <-b.writing }()
	case <-ctx.Done():
		return fmt.Errorf("an earlier change has not ended: %w", ctx.Err())
	}
	return change()
}

func (s *backendServer) Open(ctx context.Context, r *pb.OpenRequest) (*pb.OpenResponse, error) {
	settings, err := wire.DecodeSettings(r.GetSettings())
	if err != nil {
		return nil, wire.EncodeError(wire.Invalid(err))
	}
	b, err := s.driver.Open(ctx, settings)
	if err != nil {
		return nil, wire.EncodeError(err)
	}
	info := b.Info()
	if err := keepsPromises(b, info); err != nil {
		b.Close()
		return nil, wire.EncodeError(err)
	}
	return &pb.OpenResponse{
		Handle: s.open.put(&openBackend{b, make(chan struct{}, 1)}),
		Info:   wire.EncodeInfo(info),
	}, nil
}

// keepsPromises refuses a driver that names a feature without its interface.
func keepsPromises(b core.SecurityGroupBackend, info core.Info) error {
	_, flows := b.(core.FlowBackend)
	_, events := b.(core.EventBackend)
	for f, there := range map[core.Feature]bool{core.FeatureFlows: flows, core.FeatureEvents: events} {
		if slices.Contains(info.Features, f) && !there {
			return fmt.Errorf("driver %s names feature %s but lacks its methods; mend the driver: %w", info.Name, f, core.ErrUnsupported)
		}
	}
	return nil
}

func (s *backendServer) Close(_ context.Context, r *pb.CloseRequest) (*pb.CloseResponse, error) {
	if b, ok := s.open.take(r.GetHandle()); ok {
		if err := b.Close(); err != nil {
			return nil, wire.EncodeError(err)
		}
	}
	return &pb.CloseResponse{}, nil
}

func (s *backendServer) Preflight(ctx context.Context, r *pb.PreflightRequest) (*pb.PreflightResponse, error) {
	b, err := s.open.get(r.GetHandle())
	if err != nil {
		return nil, err
	}
	checks, err := b.Preflight(ctx)
	if err != nil {
		return nil, wire.EncodeError(err)
	}
	return &pb.PreflightResponse{Checks: wire.EncodeChecks(checks)}, nil
}

func (s *backendServer) Sync(stream grpc.ClientStreamingServer[pb.SyncRequest, pb.SyncResponse]) error {
	var handle uint64
	var d wire.RulesetDecoder
	err := wire.Receive(stream.Recv, func(m *pb.SyncRequest) error {
		handle = m.GetHandle()
		return d.Add(m.GetPart())
	})
	if err != nil {
		return wire.EncodeError(wire.Invalid(err))
	}
	ruleset, err := d.Ruleset()
	if err != nil {
		return wire.EncodeError(wire.Invalid(err))
	}
	b, err := s.open.get(handle)
	if err != nil {
		return err
	}
	if err := b.write(stream.Context(), func() error { return b.Sync(stream.Context(), ruleset) }); err != nil {
		return wire.EncodeError(err)
	}
	return stream.SendAndClose(&pb.SyncResponse{})
}

func (s *backendServer) Apply(stream grpc.ClientStreamingServer[pb.ApplyRequest, pb.ApplyResponse]) error {
	var handle uint64
	var d wire.DeltaDecoder
	err := wire.Receive(stream.Recv, func(m *pb.ApplyRequest) error {
		handle = m.GetHandle()
		return d.Add(m.GetPart())
	})
	if err != nil {
		return wire.EncodeError(wire.Invalid(err))
	}
	b, err := s.open.get(handle)
	if err != nil {
		return err
	}
	if err := b.write(stream.Context(), func() error { return b.Apply(stream.Context(), d.Delta()) }); err != nil {
		return wire.EncodeError(err)
	}
	return stream.SendAndClose(&pb.ApplyResponse{})
}

func (s *backendServer) Observe(r *pb.ObserveRequest, stream grpc.ServerStreamingServer[pb.ObserveResponse]) error {
	b, err := s.open.get(r.GetHandle())
	if err != nil {
		return err
	}
	o, err := b.Observe(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return wire.EncodeError(wire.EncodeObservation(o, stream.Send))
}

func (s *backendServer) Counters(r *pb.CountersRequest, stream grpc.ServerStreamingServer[pb.CountersResponse]) error {
	b, err := s.open.get(r.GetHandle())
	if err != nil {
		return err
	}
	counters, err := b.Counters(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return wire.EncodeError(wire.EncodeCounters(counters, stream.Send))
}

func (s *backendServer) Teardown(ctx context.Context, r *pb.TeardownRequest) (*pb.TeardownResponse, error) {
	b, err := s.open.get(r.GetHandle())
	if err != nil {
		return nil, err
	}
	if err := b.write(ctx, func() error { return b.Teardown(ctx) }); err != nil {
		return nil, wire.EncodeError(err)
	}
	return &pb.TeardownResponse{}, nil
}

func (s *backendServer) flows(handle uint64) (*openBackend, core.FlowBackend, error) {
	b, err := s.open.get(handle)
	if err != nil {
		return nil, nil, err
	}
	f, ok := b.SecurityGroupBackend.(core.FlowBackend)
	if !ok {
		return nil, nil, wire.EncodeError(lacks(b.Info().Name, core.FeatureFlows))
	}
	return b, f, nil
}

func (s *backendServer) Flows(r *pb.FlowsRequest, stream grpc.ServerStreamingServer[pb.FlowsResponse]) error {
	_, f, err := s.flows(r.GetHandle())
	if err != nil {
		return err
	}
	flows, err := f.Flows(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return wire.EncodeError(wire.EncodeFlows(flows, stream.Send))
}

func (s *backendServer) RevokeFlows(stream grpc.ClientStreamingServer[pb.RevokeFlowsRequest, pb.RevokeFlowsResponse]) error {
	var handle uint64
	var revoke, restore []core.Flow
	err := wire.Receive(stream.Recv, func(m *pb.RevokeFlowsRequest) error {
		handle = m.GetHandle()
		a, err := wire.DecodeFlows("revoke", m.GetRevoke())
		if err != nil {
			return err
		}
		b, err := wire.DecodeFlows("restore", m.GetRestore())
		revoke, restore = append(revoke, a...), append(restore, b...)
		return err
	})
	if err != nil {
		return wire.EncodeError(wire.Invalid(err))
	}
	b, f, err := s.flows(handle)
	if err != nil {
		return err
	}
	var changed int
	err = b.write(stream.Context(), func() (err error) {
		changed, err = f.RevokeFlows(stream.Context(), revoke, restore)
		return err
	})
	if err != nil {
		return wire.EncodeError(err)
	}
	return stream.SendAndClose(&pb.RevokeFlowsResponse{Changed: uint64(changed)})
}

func (s *backendServer) Events(r *pb.EventsRequest, stream grpc.ServerStreamingServer[pb.EventsResponse]) error {
	b, err := s.open.get(r.GetHandle())
	if err != nil {
		return err
	}
	e, ok := b.SecurityGroupBackend.(core.EventBackend)
	if !ok {
		return wire.EncodeError(lacks(b.Info().Name, core.FeatureEvents))
	}
	events, err := e.Events(stream.Context())
	if err != nil {
		return wire.EncodeError(err)
	}
	return forward(stream, events, wire.EncodeEvent)
}

func lacks(backend string, f core.Feature) error {
	return fmt.Errorf("backend %s lacks feature %s: %w", backend, f, core.ErrUnsupported)
}
