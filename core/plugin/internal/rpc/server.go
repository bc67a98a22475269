package rpc

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// Server is what one process serves.
type Server struct {
	// Ready, if set, runs before the first answer.
	Ready   func()
	backend *backendServer
	adapter *adapterServer
}

// NewServer serves a backend driver, an adapter driver or both; nil is none.
func NewServer(backend core.BackendDriver, adapter core.AdapterDriver) *Server {
	s := &Server{}
	if backend != nil {
		s.backend = &backendServer{driver: backend}
	}
	if adapter != nil {
		s.adapter = &adapterServer{driver: adapter}
	}
	return s
}

// Register adds the services to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	d := &pb.DescribeResponse{}
	if s.backend != nil {
		d.Backend = wire.EncodeInfo(s.backend.driver.Info())
		pb.RegisterBackendServer(g, s.backend)
	}
	if s.adapter != nil {
		d.Adapter = wire.EncodeInfo(s.adapter.driver.Info())
		pb.RegisterAdapterServer(g, s.adapter)
	}
	ready := s.Ready
	if ready == nil {
		ready = func() {}
	}
	pb.RegisterPluginServer(g, &pluginServer{description: d, ready: sync.OnceFunc(ready)})
}

// Close closes all that is open; what is enforced stays enforced.
func (s *Server) Close() {
	if s.backend != nil {
		for _, b := range s.backend.open.takeAll() {
			b.Close()
		}
	}
	if s.adapter != nil {
		for _, a := range s.adapter.open.takeAll() {
			a.Close()
		}
	}
}

type pluginServer struct {
	pb.UnimplementedPluginServer
	description *pb.DescribeResponse
	ready       func()
}

func (s *pluginServer) Describe(context.Context, *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	s.ready()
	return s.description, nil
}

// handles numbers what is open. A number is never used twice, so that a late
// call cannot meet another backend.
type handles[T any] struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]T
}

func (h *handles[T]) put(v T) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[uint64]T{}
	}
	h.last++
	h.open[h.last] = v
	return h.last
}

func (h *handles[T]) get(n uint64) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[n]
	if !ok {
		return v, wire.EncodeError(fmt.Errorf("nothing is open under handle %d: %w", n, core.ErrNotFound))
	}
	return v, nil
}

func (h *handles[T]) take(n uint64) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[n]
	delete(h.open, n)
	return v, ok
}

func (h *handles[T]) takeAll() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []T
	for _, v := range h.open {
		out = append(out, v)
	}
	clear(h.open)
	return out
}

// forward sends a channel's events until the channel or the stream ends. The
// header tells the client that watching has begun: an error after it would
// be a broken watch, one before it is an answer.
func forward[T, M any](stream grpc.ServerStreamingServer[M], events <-chan T, encode func(T) *M) error {
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e, ok := <-events:
			if !ok {
				return nil
			}
			if err := stream.Send(encode(e)); err != nil {
				return err
			}
		}
	}
}
