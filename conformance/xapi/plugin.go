package xapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// callPlugin is host.call_plugin: the executable gets one argument, an XML-RPC
// call with the session and a map of strings, and prints an XML-RPC response.
func (p *Pool) callPlugin(ctx context.Context, session string, host Ref, name, function string, args Record) (any, error) {
	p.mu.Lock()
	h := p.hosts[host]
	p.mu.Unlock()
	if h == nil {
		return nil, fail("HANDLE_INVALID", "host", host)
	}
	program, ok := h.Plugins[name]
	if !ok {
		return nil, fail("XENAPI_MISSING_PLUGIN", name)
	}
	for k, v := range args {
		if _, ok := v.(string); !ok {
			return nil, fail("FIELD_TYPE_ERROR", k)
		}
	}
	cmd := exec.CommandContext(ctx, program, encodeXMLCall(function, session, args))
	cmd.Env = append(os.Environ(), h.Env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := cmd.Start
	if h.Around != nil {
		start = func() error { return h.Around(cmd.Start) }
	}
	if err := start(); err != nil {
		return nil, fail("XENAPI_PLUGIN_FAILURE", "could not be started", err.Error(), "")
	}
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		status := err.Error()
		if errors.As(err, &exit) {
			status = fmt.Sprintf("non-zero exit %d", exit.ExitCode())
		}
		return nil, fail("XENAPI_PLUGIN_FAILURE", status, out.String(), errOut.String())
	}
	v, err := decodeXMLAnswer(out.Bytes())
	var f Failure
	switch {
	case errors.As(err, &f):
		return nil, f
	case err != nil:
		return nil, fail("XENAPI_PLUGIN_FAILURE", "the answer cannot be read: "+err.Error(), out.String(), errOut.String())
	}
	text, ok := v.(string)
	if !ok {
		return nil, fail("XENAPI_PLUGIN_FAILURE", "the answer is no string", out.String(), errOut.String())
	}
	return text, nil
}
