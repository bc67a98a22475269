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

type fakeDriver struct{ *coretest.FakeBackend }

func (d fakeDriver) Open(context.Context, core.Settings) (core.SecurityGroupBackend, error) {
	return d.FakeBackend, nil
}

// dial serves a backend and gives a client whose failures end up in the channel.
func dial(t *testing.T, b *coretest.FakeBackend, timeout time.Duration) (*Client, chan error) {
	t.Helper()
	l := bufconn.Listen(64 << 10)
	g := grpc.NewServer(ServerOptions()...)
	NewServer(fakeDriver{b}, nil).Register(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
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
	fake := &coretest.FakeBackend{}
	c, failed := dial(t, fake, time.Hour)
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
	release := fake.Hang(coretest.Counters)
	defer release()
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
	fake := &coretest.FakeBackend{}
	c, failed := dial(t, fake, 50*time.Millisecond)
	b, err := c.OpenBackend(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	release := fake.Hang(coretest.Observe)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	if _, err := b.Observe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(failed) > 0 {
		t.Fatalf("a cancelled call counts: %v", <-failed)
	}
	if _, err := b.Observe(t.Context()); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	if len(failed) != 1 {
		t.Errorf("%d failures", len(failed))
	}
}
