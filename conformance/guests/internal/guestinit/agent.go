package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/core"
	"golang.org/x/sys/unix"
)

// agent serves requests. Each runs on its own, so that a slow ping holds up
// nothing.
type agent struct {
	mu       sync.Mutex
	captures map[core.MAC]*capture
	floods   *floods
}

func newAgent() *agent {
	return &agent{captures: map[core.MAC]*capture{}, floods: newFloods()}
}

func (a *agent) serve(line io.ReadWriter) error {
	var wmu sync.Mutex
	r := bufio.NewReaderSize(line, 1<<16)
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("control line: %w", err)
		}
		var req probe.Request
		if json.Unmarshal(text, &req) != nil {
			continue // the second half of something said before we listened
		}
		go func() {
			b, _ := json.Marshal(a.answer(req))
			wmu.Lock()
			defer wmu.Unlock()
			line.Write(append(b, '\n'))
		}()
	}
}

func (a *agent) answer(req probe.Request) probe.Response {
	result, err := a.do(req)
	resp := probe.Response{ID: req.ID}
	if err == nil && result != nil {
		resp.Result, err = json.Marshal(result)
	}
	if err != nil {
		resp.Error = err.Error()
	}
	return resp
}

func (a *agent) do(req probe.Request) (any, error) {
	switch req.Op {
	case probe.OpHello:
		return hello()
	case probe.OpConfigure:
		return with(req, func(l probe.Link) (any, error) { return nil, a.configure(l) })
	case probe.OpSend:
		return with(req, func(s probe.Send) (any, error) { return nil, send(s) })
	case probe.OpCapture:
		return with(req, func(c probe.Capture) (any, error) { return nil, a.startCapture(c.NIC) })
	case probe.OpCaptured:
		return with(req, func(c probe.Capture) (any, error) { return a.captured(c.NIC) })
	case probe.OpPing:
		return with(req, func(p probe.Ping) (any, error) { return ping(p) })
	case probe.OpDial:
		return with(req, func(d probe.Dial) (any, error) { return dial(d), nil })
	case probe.OpListen:
		return with(req, func(l probe.Listen) (any, error) { return nil, listen(l) })
	case probe.OpFlood:
		return with(req, func(f probe.Flood) (any, error) { return nil, a.startFlood(f) })
	case probe.OpStopFlood:
		a.floods.stop()
		return nil, nil
	case probe.OpCounters:
		return probe.Counters{Flooded: a.floods.sent.Load()}, nil
	}
	return nil, fmt.Errorf("%q is not something a guest can do", req.Op)
}

func with[T any](req probe.Request, f func(T) (any, error)) (any, error) {
	var args T
	if err := json.Unmarshal(req.Args, &args); err != nil {
		return nil, fmt.Errorf("%s: %w", req.Op, err)
	}
	return f(args)
}

func hello() (probe.Hello, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return probe.Hello{}, err
	}
	nics, err := nics()
	h := probe.Hello{Kernel: strings.TrimRight(string(u.Release[:]), "\x00")}
	for _, n := range nics {
		h.NICs = append(h.NICs, n.born)
	}
	return h, err
}
