package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Client speaks to the program inside a guest. Its methods may be called side
// by side.
type Client struct {
	conn io.ReadWriteCloser

	wmu sync.Mutex // one line at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Response
	err     error
	done    chan struct{}
}

// NewClient speaks over conn and closes it in the end. Call WaitReady first.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, waiting: map[uint64]chan Response{}, done: make(chan struct{})}
	go c.read()
	return c
}

// Close hangs up. The guest goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// WaitReady returns once the guest answers. It asks again and again, because a
// serial line forgets what is said before the guest listens.
func (c *Client) WaitReady(ctx context.Context) (Hello, error) {
	for {
		try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		h, err := c.Hello(try)
		cancel()
		switch {
		case err == nil:
			return h, nil
		case ctx.Err() != nil:
			return Hello{}, fmt.Errorf("the guest does not answer: %w", context.Cause(ctx))
		case !errors.Is(err, context.DeadlineExceeded):
			return Hello{}, err
		}
	}
}

// Hello asks who is there.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	return call[Hello](ctx, c, OpHello, nil)
}

// Configure sets up NICs.
func (c *Client) Configure(ctx context.Context, links ...Link) error {
	for _, l := range links {
		if _, err := call[struct{}](ctx, c, OpConfigure, l); err != nil {
			return err
		}
	}
	return nil
}

// Send puts frames on the wire.
func (c *Client) Send(ctx context.Context, nic core.MAC, frames ...[]byte) error {
	_, err := call[struct{}](ctx, c, OpSend, Send{nic, frames})
	return err
}

// Capture starts a recording.
func (c *Client) Capture(ctx context.Context, nic core.MAC) error {
	_, err := call[struct{}](ctx, c, OpCapture, Capture{nic})
	return err
}

// Captured takes what was recorded.
func (c *Client) Captured(ctx context.Context, nic core.MAC) (Captured, error) {
	return call[Captured](ctx, c, OpCaptured, Capture{nic})
}

// Ping sends echo requests and counts the replies.
func (c *Client) Ping(ctx context.Context, p Ping) (PingResult, error) {
	return call[PingResult](ctx, c, OpPing, p)
}

// Reaches says whether one of three pings came back, each given half a second.
func (c *Client) Reaches(ctx context.Context, to netip.Addr) (bool, error) {
	r, err := c.Ping(ctx, Ping{To: to, Count: 3, Timeout: 500 * time.Millisecond})
	return r.Received > 0, err
}

// Dial opens a connection and expects an echo.
func (c *Client) Dial(ctx context.Context, d Dial) (DialResult, error) {
	return call[DialResult](ctx, c, OpDial, d)
}

// Listen serves an echo.
func (c *Client) Listen(ctx context.Context, l Listen) error {
	_, err := call[struct{}](ctx, c, OpListen, l)
	return err
}

// Flood starts a flood beside those that run.
func (c *Client) Flood(ctx context.Context, f Flood) error {
	_, err := call[struct{}](ctx, c, OpFlood, f)
	return err
}

// StopFlood ends every flood, that of the boot config too.
func (c *Client) StopFlood(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, OpStopFlood, nil)
	return err
}

// Counters reads totals.
func (c *Client) Counters(ctx context.Context) (Counters, error) {
	return call[Counters](ctx, c, OpCounters, nil)
}

func call[R any](ctx context.Context, c *Client, op Op, args any) (result R, err error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return result, err
	}
	id, answer, err := c.register()
	if err != nil {
		return result, err
	}
	defer c.forget(id)
	if err := c.write(Request{id, op, raw}); err != nil {
		return result, fmt.Errorf("guest %s: %w", op, err)
	}
	select {
	case r := <-answer:
		if r.Error != "" {
			return result, fmt.Errorf("guest %s: %s", op, r.Error)
		}
		if len(r.Result) == 0 {
			return result, nil
		}
		return result, json.Unmarshal(r.Result, &result)
	case <-c.done:
		return result, fmt.Errorf("guest %s: the serial line is closed: %w", op, c.err)
	case <-ctx.Done():
		return result, fmt.Errorf("guest %s: no answer: %w", op, ctx.Err())
	}
}

func (c *Client) register() (uint64, chan Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	ch := make(chan Response, 1)
	c.waiting[c.next] = ch
	return c.next, ch, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) write(r Request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, err = c.conn.Write(append(b, '\n'))
	return err
}

// read hands answers out. A line that is no answer (a boot loader's, half a
// line from before the guest listened) is passed over.
func (c *Client) read() {
	defer close(c.done)
	r := bufio.NewReaderSize(c.conn, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			c.err = err
			return
		}
		var resp Response
		if json.Unmarshal(line, &resp) != nil {
			continue
		}
		c.mu.Lock()
		ch := c.waiting[resp.ID]
		delete(c.waiting, resp.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- resp
		}
	}
}
