package rpc

import (
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// closeTimeout is for Close, which has no context.
const closeTimeout = 5 * time.Second

// OpenBackend opens a backend in the plugin. What it returns is a FlowBackend
// or an EventBackend exactly when the opened point has the feature.
func (c *Client) OpenBackend(ctx context.Context, settings core.Settings) (core.SecurityGroupBackend, error) {
	in, err := wire.EncodeSettings(settings)
	if err != nil {
		return nil, err
	}
	b := &backend{c: c, rpc: pb.NewBackendClient(c.conn)}
	err = c.call(ctx, "Open", c.opts.CallTimeout, func(ctx context.Context) error {
		m, err := b.rpc.Open(ctx, &pb.OpenRequest{Settings: in})
		if err != nil {
			return err
		}
		b.handle = m.GetHandle()
		b.info, err = wire.DecodeInfo(m.GetInfo())
		return err
	})
	if err != nil {
		return nil, err
	}
	b.features = newFeatureCheck(b.info)
	return Combine(b, flowBackend{b}, eventBackend{b}), nil
}

// Combine gives b the optional interfaces that its features name.
func Combine(b core.SecurityGroupBackend, f core.FlowBackend, e core.EventBackend) core.SecurityGroupBackend {
	features := b.Info().Features
	flows, events := slices.Contains(features, core.FeatureFlows), slices.Contains(features, core.FeatureEvents)
	switch {
	case flows && events:
		return struct {
			core.SecurityGroupBackend
			core.FlowBackend
			core.EventBackend
		}{b, f, e}
	case flows:
		return struct {
			core.SecurityGroupBackend
			core.FlowBackend
		}{b, f}
	case events:
		return struct {
			core.SecurityGroupBackend
			core.EventBackend
		}{b, e}
	}
	return b
}

type backend struct {
	c        *Client
	rpc      pb.BackendClient
	handle   uint64
	info     core.Info
	features *featureCheck
}

func (b *backend) Info() core.Info { return b.info }

func (b *backend) Preflight(ctx context.Context) (checks []core.Check, err error) {
	err = b.c.call(ctx, "Preflight", b.c.opts.CallTimeout, func(ctx context.Context) error {
		m, err := b.rpc.Preflight(ctx, &pb.PreflightRequest{Handle: b.handle})
		if err != nil {
			return err
		}
		checks, err = wire.DecodeChecks(m.GetChecks())
		return err
	})
	return checks, err
}

func (b *backend) Sync(ctx context.Context, r core.Ruleset) error {
	if err := b.features.ruleset(r); err != nil {
		return err
	}
	err := b.c.call(ctx, "Sync", b.c.opts.SyncTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.Sync(ctx)
		if err != nil {
			return err
		}
		_, err = upload(stream, func(send func(*pb.SyncRequest) error) error {
			return wire.EncodeRuleset(r, func(p *pb.RulesetPart, last bool) error {
				return send(&pb.SyncRequest{Handle: b.handle, Part: p, Last: last})
			})
		})
		return err
	})
	if err == nil {
		b.features.synced(r)
	}
	return err
}

func (b *backend) Apply(ctx context.Context, d core.Delta) error {
	if err := b.features.delta(d); err != nil {
		return err
	}
	err := b.c.call(ctx, "Apply", b.c.opts.SyncTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.Apply(ctx)
		if err != nil {
			return err
		}
		_, err = upload(stream, func(send func(*pb.ApplyRequest) error) error {
			return wire.EncodeDelta(d, func(p *pb.DeltaPart, last bool) error {
				return send(&pb.ApplyRequest{Handle: b.handle, Part: p, Last: last})
			})
		})
		return err
	})
	if err == nil {
		b.features.applied(d)
	}
	return err
}

func (b *backend) Observe(ctx context.Context) (o core.Observation, err error) {
	err = b.c.call(ctx, "Observe", b.c.opts.CallTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.Observe(ctx, &pb.ObserveRequest{Handle: b.handle})
		if err != nil {
			return err
		}
		return wire.Receive(stream.Recv, func(m *pb.ObserveResponse) error { return wire.DecodeObservation(&o, m) })
	})
	if err != nil {
		return core.Observation{}, err
	}
	return o, nil
}

func (b *backend) Counters(ctx context.Context) (counters []core.Counter, err error) {
	err = b.c.call(ctx, "Counters", b.c.opts.CallTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.Counters(ctx, &pb.CountersRequest{Handle: b.handle})
		if err != nil {
			return err
		}
		return wire.Receive(stream.Recv, func(m *pb.CountersResponse) error {
			more, err := wire.DecodeCounters(m)
			counters = append(counters, more...)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return counters, nil
}

func (b *backend) Teardown(ctx context.Context) error {
	return b.c.call(ctx, "Teardown", b.c.opts.SyncTimeout, func(ctx context.Context) error {
		_, err := b.rpc.Teardown(ctx, &pb.TeardownRequest{Handle: b.handle})
		return err
	})
}

func (b *backend) Close() error {
	return b.c.call(context.Background(), "Close", closeTimeout, func(ctx context.Context) error {
		_, err := b.rpc.Close(ctx, &pb.CloseRequest{Handle: b.handle})
		return err
	})
}

type flowBackend struct{ *backend }

func (b flowBackend) Flows(ctx context.Context) (flows []core.Flow, err error) {
	err = b.c.call(ctx, "Flows", b.c.opts.CallTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.Flows(ctx, &pb.FlowsRequest{Handle: b.handle})
		if err != nil {
			return err
		}
		return wire.Receive(stream.Recv, func(m *pb.FlowsResponse) error {
			more, err := wire.DecodeFlows("flows", m.GetFlows())
			flows = append(flows, more...)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return flows, nil
}

func (b flowBackend) RevokeFlows(ctx context.Context, revoke, restore []core.Flow) (changed int, err error) {
	err = b.c.call(ctx, "RevokeFlows", b.c.opts.SyncTimeout, func(ctx context.Context) error {
		stream, err := b.rpc.RevokeFlows(ctx)
		if err != nil {
			return err
		}
		m, err := upload(stream, func(send func(*pb.RevokeFlowsRequest) error) error {
			return wire.EncodeRevocation(revoke, restore, func(r *pb.RevokeFlowsRequest) error {
				r.Handle = b.handle
				return send(r)
			})
		})
		if err != nil {
			return err
		}
		if m.GetChanged() > math.MaxInt32 {
			return &wire.Malformed{Path: "changed", Reason: "more entries than any table holds"}
		}
		changed = int(m.GetChanged())
		return nil
	})
	return changed, err
}

type eventBackend struct{ *backend }

func (b eventBackend) Events(ctx context.Context) (<-chan core.Event, error) {
	return watch(ctx, b.c, "Events", func(ctx context.Context) (grpc.ServerStreamingClient[pb.EventsResponse], error) {
		return b.rpc.Events(ctx, &pb.EventsRequest{Handle: b.handle})
	}, wire.DecodeEvent)
}
