package xapi

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Error is what XAPI answers in place of a result: a code such as
// SESSION_INVALID, and its parameters.
type Error struct {
	Code   string
	Params []string
}

func (e *Error) Error() string {
	return strings.Join(append([]string{e.Code}, e.Params...), ": ")
}

// Unwrap adds core's word.
func (e *Error) Unwrap() error {
	switch e.Code {
	case "HANDLE_INVALID", "UUID_INVALID", "XENAPI_MISSING_PLUGIN":
		return core.ErrNotFound
	case "UNKNOWN_XENAPI_PLUGIN_FUNCTION", "MESSAGE_METHOD_UNKNOWN":
		return core.ErrUnsupported
	case "HOST_OFFLINE", "HOST_STILL_BOOTING", "HOST_NOT_LIVE", "CANNOT_CONTACT_HOST", "EVENTS_LOST":
		return core.ErrNotReady
	case "MAP_DUPLICATE_KEY":
		return core.ErrConflict
	}
	return nil
}

// errorText is an error's text without the password and the session, which
// XAPI quotes in some of its own.
func (c *Client) errorText(s, session string) string {
	for _, secret := range []string{string(c.o.Password), session} {
		if len(secret) > 3 {
			s = strings.ReplaceAll(s, secret, "(secret)")
		}
	}
	if len(s) > 2000 {
		s = s[:2000] + "..."
	}
	return s
}

func (c *Client) clean(e *Error, session string) *Error {
	for i, p := range e.Params {
		e.Params[i] = c.errorText(p, session)
	}
	return e
}

func notReady(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, core.ErrNotReady)...)
}
