package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/internal/wire"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// Options of a Client.
type Options struct {
	Plugin string // its name, for messages
	// CallTimeout is for calls that read, SyncTimeout for those that change
	// the point. A plugin that takes longer is taken to hang.
	CallTimeout, SyncTimeout time.Duration
	// Failed hears that the other end is gone or hangs. It must not block.
	Failed func(error)
	Logger *slog.Logger
}

// A caller whose own deadline is shorter than the timeout would never see a
// plugin that hangs replaced. So maxOverdue calls in a row that got no answer
// in minOverdue or longer count as well.
const (
	minOverdue = 5 * time.Second
	maxOverdue = 3
)

// Client talks to one plugin.
type Client struct {
	conn       grpc.ClientConnInterface
	opts       Options
	minOverdue time.Duration
	overdue    atomic.Int32 // calls in a row
}

// NewClient makes a Client of a connection made with DialOptions.
func NewClient(conn grpc.ClientConnInterface, opts Options) *Client {
	return &Client{conn: conn, opts: opts, minOverdue: minOverdue}
}

// Description is what a plugin serves; nil is not served.
type Description struct{ Backend, Adapter *core.Info }

// Describe asks what the plugin serves.
func (c *Client) Describe(ctx context.Context) (d Description, err error) {
	err = c.call(ctx, "Describe", c.opts.CallTimeout, func(ctx context.Context) error {
		m, err := pb.NewPluginClient(c.conn).Describe(ctx, &pb.DescribeRequest{})
		if err != nil {
			return err
		}
		if m.GetBackend() == nil && m.GetAdapter() == nil {
			return &wire.Malformed{Reason: "neither a backend nor an adapter is served"}
		}
		if m.GetBackend() != nil {
			i, err := wire.DecodeInfo(m.GetBackend())
			if err != nil {
				return err
			}
			d.Backend = &i
		}
		if m.GetAdapter() != nil {
			i, err := wire.DecodeInfo(m.GetAdapter())
			if err != nil {
				return err
			}
			d.Adapter = &i
		}
		return nil
	})
	return d, err
}

// call runs one call under its timeout and explains its error.
func (c *Client) call(ctx context.Context, method string, timeout time.Duration, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	err := f(limited)
	if err == nil {
		c.overdue.Store(0)
		return nil
	}
	if status.Code(err) == codes.DeadlineExceeded {
		// The deadline is sent along, and the other end's clock may be ahead.
		select {
		case <-limited.Done():
		case <-time.After(time.Second):
		}
	}
	if ctx.Err() == nil && limited.Err() != nil {
		err = fmt.Errorf("plugin %s did not answer %s within %s; it is restarted: %w", c.opts.Plugin, method, timeout, core.ErrNotReady)
		c.opts.Failed(err)
		return err
	}
	switch {
	case ctx.Err() == nil:
		c.overdue.Store(0)
	case time.Since(began) >= c.minOverdue && c.overdue.Add(1) >= maxOverdue:
		c.opts.Failed(fmt.Errorf("plugin %s left %d calls in a row unanswered", c.opts.Plugin, maxOverdue))
	}
	return c.explain(ctx, method, err)
}

// explain makes a driver's error of what gRPC says, or names the plugin.
func (c *Client) explain(ctx context.Context, method string, err error) error {
	var m *wire.Malformed
	if errors.As(err, &m) {
		return c.garbage(method, m)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("plugin %s, %s: %w", c.opts.Plugin, method, ctx.Err())
	}
	if errors.Is(err, io.EOF) {
		return c.garbage(method, errors.New("the stream ended without one"))
	}
	s, ok := status.FromError(err)
	if !ok {
		return err // made on this side: an encoder's
	}
	if driverErr, ok := wire.DecodeError(s); ok {
		return driverErr
	}
	switch s.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		err = fmt.Errorf("plugin %s is gone (%s); it is restarted: %w", c.opts.Plugin, s.Message(), core.ErrNotReady)
		c.opts.Failed(err)
		return err
	case codes.Unimplemented:
		return fmt.Errorf("plugin %s does not serve %s; use matching releases of ringwall and the plugin: %w", c.opts.Plugin, method, core.ErrUnsupported)
	}
	return c.garbage(method, fmt.Errorf("%s", wire.Text(s.Message())))
}

func (c *Client) garbage(method string, what error) error {
	return fmt.Errorf("plugin %s gave an answer to %s that makes no sense: %w; report it to the plugin's author", c.opts.Plugin, method, what)
}

// upload sends a stream of parts and waits for the answer. gRPC tells a
// sender only that the stream has ended (io.EOF); why, the answer says.
func upload[Req, Res any](stream grpc.ClientStreamingClient[Req, Res], send func(func(*Req) error) error) (*Res, error) {
	if err := send(stream.Send); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

// watch makes a channel of a stream. The channel closes when ctx or the
// stream ends; the latter is reported as a failure.
func watch[M, T any](ctx context.Context, c *Client, method string, open func(context.Context) (grpc.ServerStreamingClient[M], error), decode func(*M) (T, error)) (<-chan T, error) {
	streaming, cancel := context.WithCancel(ctx)
	var stream grpc.ServerStreamingClient[M]
	err := c.call(ctx, method, c.opts.CallTimeout, func(limited context.Context) error {
		// The stream outlives this call; its begin must not.
		stop := context.AfterFunc(limited, cancel)
		defer stop()
		var err error
		var header metadata.MD
		if stream, err = open(streaming); err == nil {
			header, err = stream.Header()
		}
		if err == nil && header == nil {
			_, err = stream.Recv() // ended without a header: this tells why
		}
		return err
	})
	if err != nil {
		cancel()
		return nil, err
	}
	out := make(chan T)
	go func() {
		defer close(out)
		defer cancel()
		for {
			m, err := stream.Recv()
			var v T
			if err == nil {
				v, err = decode(m)
			}
			if err != nil {
				if ctx.Err() == nil {
					c.opts.Logger.Warn("a plugin's stream ended", "plugin", c.opts.Plugin, "stream", method, "error", c.explainEnd(ctx, method, err))
				}
				return
			}
			select {
			case out <- v:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (c *Client) explainEnd(ctx context.Context, method string, err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the plugin ended it")
	}
	return c.explain(ctx, method, err)
}
