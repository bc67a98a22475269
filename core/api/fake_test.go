package api

import (
	"context"
	"testing"
	"time"
)

// fake is a Service whose answers a test sets.
type fake struct {
	Service // calls that no test expects panic
	apply   func(context.Context, ApplyRequest) (Change, error)
	status  func(context.Context) (Status, error)
	program func(context.Context, ProgramRequest) (ProgramResult, error)
}

func (f *fake) Version(context.Context, Empty) (Version, error) {
	return Version{"1.2.3", Version1, "agent"}, nil
}
func (f *fake) Apply(ctx context.Context, in ApplyRequest) (Change, error) { return f.apply(ctx, in) }
func (f *fake) Status(ctx context.Context, _ Empty) (Status, error)        { return f.status(ctx) }

// serve runs a server on a socket in a folder of the test's.
func serve(t *testing.T, s Service) (path string) {
	t.Helper()
	path = t.TempDir() + "/s"
	srv, err := NewServer(t.Context(), ServerConfig{Path: path, Service: s})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), ClientConfig{Path: path, Wait: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (f *fake) Program(ctx context.Context, in ProgramRequest) (ProgramResult, error) {
	return f.program(ctx, in)
}
