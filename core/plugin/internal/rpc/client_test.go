package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
)

// deaf is a backend whose Counters hangs, whatever its context says.
type deaf struct {
	*coretest.FakeBackend
	release chan struct{}
}

func (d deaf) Open(context.Context, core.Settings) (core.SecurityGroupBackend, error) { return d, nil }

func (d deaf) Counters(context.Context) ([]core.Counter, error) {
	<-d.release
	return nil, nil
}

// dial serves a deaf backend and gives a client whose failures end up in the
// channel.
func dial(t *testing.T, timeout time.Duration) (*Client, chan error) {
	t.Helper()
	b := deaf{&coretest.FakeBackend{}, make(chan struct{})}
	l := bufconn.Listen(64 << 10)
	g := grpc.NewServer(ServerOptions()...)
	NewServer(b, nil).Register(g)
	go g.Serve(l)
	t.Cleanup(func() { close(b.release); g.Stop() })
	conn, err := grpc.NewClient("passthrough:x", append(DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	failed := make(chan error, 10)
	return NewClient(conn, Options{Plugin: "p", CallTimeout: timeout, SyncTimeout: timeout, Failed: func(err error) { failed <- err }, Logger: slog.Default()}), failed
}

// A hung plugin is found out although every caller gives up before the
// timeout; one that answers in between is not.
func TestImpatientCallers(t *testing.T) {
	c, failed := dial(t, time.Hour)
	c.minOverdue = 10 * time.Millisecond
	b, err := c.OpenBackend(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	giveUp := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := b.Counters(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
	}
	giveUp()
	giveUp()
	if _, err := b.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	giveUp()
	giveUp()
	if len(failed) > 0 {
		t.Fatalf("failed although it answered: %v", <-failed)
	}
	giveUp()
	if len(failed) != 1 {
		t.Fatalf("%d failures", len(failed))
	}
}

// Only the timeout counts against the plugin, not what the caller cancels.
func TestTimeoutAndCancellation(t *testing.T) {
	c, failed := dial(t, 50*time.Millisecond)
	b, err := c.OpenBackend(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	if _, err := b.Counters(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(failed) > 0 {
		t.Fatalf("a cancelled call counts: %v", <-failed)
	}
	if _, err := b.Counters(t.Context()); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	if len(failed) != 1 {
		t.Errorf("%d failures", len(failed))
	}
}
