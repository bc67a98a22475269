package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/core"
)

// How long a client waits for the agent's socket.
const (
	DefaultWait = 30 * time.Second
	// patience is how long it waits without a word.
	patience = time.Second
	poll     = 100 * time.Millisecond
)

// maxAnswer bounds what a client takes from an agent gone mad: 30,000 NICs
// with all their rules are well below.
const maxAnswer = 256 << 20

// ClientConfig says where the agent is.
type ClientConfig struct {
	Path string        // of the socket
	Wait time.Duration // for the socket to answer; 0 = DefaultWait, negative = do not wait
	// Waiting is called once when the wait is longer than a second; nil = silent.
	Waiting func(path string, wait time.Duration)
}

// Client is a Service over the socket.
type Client struct {
	path string
	http *http.Client
}

// Dial waits for the agent to answer. ErrNotReady: it did not in time.
func Dial(ctx context.Context, c ClientConfig) (*Client, error) {
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	start, told := time.Now(), c.Waiting == nil
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for {
		conn, err := dialer.DialContext(ctx, "unix", c.Path)
		if err == nil {
			conn.Close()
			break
		}
		waited := time.Since(start)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("socket %s: permission denied; use sudo, or see socket.owner and socket.group in the agent's config", c.Path)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EAGAIN):
			return nil, fmt.Errorf("socket %s: %w", c.Path, err)
		case waited >= c.Wait:
			return nil, fmt.Errorf("ringwalld does not answer at %s; start it (systemctl start ringwalld), name its socket with --socket, or run without it with --standalone: %w", c.Path, core.ErrNotReady)
		case waited >= patience && !told:
			told = true
			c.Waiting(c.Path, c.Wait)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(poll, max(c.Wait-waited, time.Millisecond))):
		}
	}
	return &Client{c.Path, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.Path)
		},
		DisableCompression: true,
	}}}, nil
}

// Close lets go of the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one verb: in as JSON there, Out as JSON back.
func call[Out any](ctx context.Context, c *Client, verb string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	// The host of the URL means nothing on a unix socket, but HTTP wants one.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ringwall/v"+Version1+"/"+verb, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		return out, fmt.Errorf("ringwalld at %s broke off: %w: %w", c.path, errors.Unwrap(err), core.ErrNotReady)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return out, fmt.Errorf("ringwalld at %s broke off: %w: %w", c.path, err, core.ErrNotReady)
	case len(data) > maxAnswer:
		return out, fmt.Errorf("ringwalld's answer is longer than %d MiB", maxAnswer>>20)
	case resp.StatusCode == http.StatusOK:
		if err := json.Unmarshal(data, &out); err != nil {
			return out, fmt.Errorf("ringwalld's answer to %s: %w; is it of another version than this ringwall?", verb, err)
		}
		return out, nil
	}
	var f failure
	if err := json.Unmarshal(data, &f); err != nil || f.Error.Message == "" {
		return out, fmt.Errorf("ringwalld answers %s to %s", resp.Status, verb)
	}
	return out, f.Error.decode()
}
