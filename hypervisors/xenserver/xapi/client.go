package xapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ringwall/ringwall/core"
)

// Client speaks to one pool, or to the host it runs on. It is safe for use by
// many goroutines; they share a session.
type Client struct {
	o         Options
	http      *http.Client
	endpoints []endpoint

	mu      sync.Mutex
	at      endpoint // where session is
	session string

	pathMu sync.Mutex
	path   string // /jsonrpc, or /json of old hosts
}

// New makes a client. It connects when it is first asked something.
func New(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	c := &Client{o: o, path: "/jsonrpc"}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: o.Timeout}
	switch {
	case (o.Socket == "") == (len(o.Hosts) == 0):
		return nil, fmt.Errorf("name a socket or hosts, one of the two: %w", core.ErrInvalid)
	case o.Socket != "":
		c.endpoints = []endpoint{localEndpoint(o.Socket)}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", o.Socket)
		}
	default:
		for _, h := range o.Hosts {
			e, err := httpsEndpoint(h)
			if err != nil {
				return nil, err
			}
			c.endpoints = append(c.endpoints, e)
		}
		var err error
		if transport.TLSClientConfig, err = o.tls(); err != nil {
			return nil, err
		}
	}
	// Hosts redirect browsers, never calls.
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Close ends the session.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	at, session := c.at, c.session
	c.session = ""
	c.mu.Unlock()
	var err error
	if session != "" {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err = c.post(ctx, at, session, "session.logout", nil, session)
	}
	c.http.CloseIdleConnections()
	var x *Error
	if errors.As(err, &x) {
		return nil // it had ended already
	}
	return err
}

// Call calls a method with the session in front of params, and reads the
// result into out unless that is nil. Errors wrap an *Error or, when nobody
// answers, core.ErrNotReady.
func (c *Client) Call(ctx context.Context, method string, out any, params ...any) error {
	return c.callFor(ctx, c.o.Timeout, method, out, params...)
}

func (c *Client) callFor(ctx context.Context, timeout time.Duration, method string, out any, params ...any) error {
	err := c.callOnce(ctx, timeout, method, out, params...)
	if invalidSession(err) {
		// It says that the method did not run: calling again is safe.
		err = c.callOnce(ctx, timeout, method, out, params...)
	}
	return err
}

func invalidSession(err error) bool {
	var x *Error
	return errors.As(err, &x) && (x.Code == "SESSION_INVALID" || x.Code == "HOST_IS_SLAVE")
}

// callOnce makes a call with the session there is, or a new one. A session that
// turns out to be void is forgotten.
func (c *Client) callOnce(ctx context.Context, timeout time.Duration, method string, out any, params ...any) error {
	at, session, err := c.login(ctx)
	if err != nil {
		return err
	}
	one, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer in %s", timeout))
	defer cancel()
	err = c.post(one, at, session, method, out, append([]any{session}, params...)...)
	lost := errors.Is(err, core.ErrNotReady) && ctx.Err() == nil
	if invalidSession(err) || lost {
		c.forget(session) // the next login may find another host
	}
	return err
}

func (c *Client) forget(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == session {
		c.session = ""
	}
}

// login gives the session, opened if there is none.
func (c *Client) login(ctx context.Context) (endpoint, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != "" {
		return c.at, c.session, nil
	}
	var errs []error
	for _, e := range c.endpoints {
		at, session, err := c.loginAt(ctx, e)
		if err == nil {
			c.at, c.session = at, session
			return at, session, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return endpoint{}, "", errors.Join(errs...)
}

// loginAt logs in at a host, or at the master that it names.
func (c *Client) loginAt(ctx context.Context, e endpoint) (endpoint, string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("no answer in %s", c.o.Timeout))
	defer cancel()
	for hops := 0; ; hops++ {
		var session string
		err := c.post(ctx, e, "", "session.login_with_password", &session, c.o.User, string(c.o.Password), "1.0", "ringwall")
		var x *Error
		switch {
		case err == nil && session == "":
			return e, "", notReady("%s: an empty session", e.address)
		case err == nil:
			return e, session, nil
		case errors.As(err, &x) && x.Code == "HOST_IS_SLAVE" && len(x.Params) > 0 && hops < 3 && e.network == "tcp":
			master, err := httpsEndpoint(x.Params[0])
			if err != nil {
				return e, "", fmt.Errorf("%s says who the pool's master is: %w", e.address, err)
			}
			e = master
		default:
			return e, "", err
		}
	}
}

type request struct {
	Version string `json:"jsonrpc"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
	ID      int    `json:"id"`
}

// response has either version's answer: hosts before 7.3 wrap what they say in
// Status and Value even when they are called in version 2.0.
type response struct {
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

type wrapped struct {
	Status           string
	Value            json.RawMessage
	ErrorDescription []string
}

const maxAnswer = 256 << 20 // all records of a large pool

// post makes one call. session is only to be kept out of errors.
func (c *Client) post(ctx context.Context, e endpoint, session, method string, out any, params ...any) error {
	body, err := json.Marshal(request{"2.0", method, params, 1})
	if err != nil {
		return err
	}
	answer, err := c.send(ctx, e, body)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("xapi at %s: %s: %w: %w", e.address, method, err, core.ErrNotReady)
	}
	value, err := decode(answer)
	var x *Error
	switch {
	case errors.As(err, &x):
		return fmt.Errorf("xapi at %s: %s: %w", e.address, method, c.clean(x, session))
	case err != nil:
		return notReady("xapi at %s: %s: %w", e.address, method, err)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(value, out); err != nil {
		return notReady("xapi at %s: the result of %s: %w", e.address, method, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, e endpoint, body []byte) ([]byte, error) {
	for {
		c.pathMu.Lock()
		path := c.path
		c.pathMu.Unlock()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.base+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		resp.Body.Close()
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusNotFound && path == "/jsonrpc":
			c.pathMu.Lock()
			c.path = "/json" // before 6.5
			c.pathMu.Unlock()
			continue
		case resp.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("HTTP status %s", resp.Status)
		}
		return answer, nil
	}
}

func decode(answer []byte) (json.RawMessage, error) {
	var r response
	if err := json.Unmarshal(answer, &r); err != nil {
		return nil, fmt.Errorf("the answer is no JSON-RPC: %w", err)
	}
	if len(r.Error) > 0 && string(r.Error) != "null" {
		var e struct {
			Message string   `json:"message"`
			Data    []string `json:"data"`
		}
		if err := json.Unmarshal(r.Error, &e); err != nil || e.Message == "" {
			return nil, fmt.Errorf("an error that cannot be read")
		}
		return nil, &Error{e.Message, e.Data}
	}
	var w wrapped
	if err := json.Unmarshal(r.Result, &w); err == nil {
		switch {
		case w.Status == "Failure" && len(w.ErrorDescription) > 0:
			return nil, &Error{w.ErrorDescription[0], w.ErrorDescription[1:]}
		case w.Status == "Success" && w.Value != nil:
			return w.Value, nil
		}
	}
	if r.Result == nil {
		return nil, fmt.Errorf("the answer has no result")
	}
	return r.Result, nil
}
