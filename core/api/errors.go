package api

import (
	"errors"
	"net/http"

	"github.com/ringwall/ringwall/core"
)

// sentinels, by the name they have on the wire and the status that they give.
var sentinels = []struct {
	name   string
	err    error
	status int
}{
	{"invalid", core.ErrInvalid, http.StatusBadRequest},
	{"not-found", core.ErrNotFound, http.StatusNotFound},
	{"conflict", core.ErrConflict, http.StatusConflict},
	{"unsupported", core.ErrUnsupported, http.StatusNotImplemented},
	{"not-ready", core.ErrNotReady, http.StatusServiceUnavailable},
}

// wireError is an error as it crosses the socket.
type wireError struct {
	Message string       `json:"message"`
	Kinds   []string     `json:"kinds,omitempty"`
	Fields  []wireField  `json:"fields,omitempty"`
	Objects []wireObject `json:"objects,omitempty"`
}

type wireField struct {
	Path   string `json:"path"`
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
}

type wireObject struct {
	NICs    []core.NICKey `json:"nics,omitempty"`
	Groups  []string      `json:"groups,omitempty"`
	Message string        `json:"message"`
}

func encodeError(err error) wireError {
	w := wireError{Message: err.Error()}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			w.Kinds = append(w.Kinds, s.name)
		}
	}
	walk(err, func(err error) {
		switch e := err.(type) { //nolint:errorlint // walk unwraps
		case *core.FieldError:
			w.Fields = append(w.Fields, wireField(*e))
		case *core.ObjectError:
			w.Objects = append(w.Objects, wireObject{e.NICs, e.Groups, e.Err.Error()})
		}
	})
	return w
}

// walk visits err and all that it wraps.
func walk(err error, visit func(error)) {
	visit(err)
	switch e := err.(type) { //nolint:errorlint // this unwraps
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			walk(inner, visit)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}

// statusOf is the HTTP status for an error; the first sentinel decides.
func statusOf(err error) int {
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}

// remoteError is an error of the agent, with its text, and what it wrapped.
type remoteError struct {
	message string
	causes  []error
}

func (e *remoteError) Error() string   { return e.message }
func (e *remoteError) Unwrap() []error { return e.causes }

func (w wireError) decode() error {
	out := &remoteError{message: w.Message}
	for _, f := range w.Fields {
		fe := core.FieldError(f)
		out.causes = append(out.causes, &fe)
	}
	for _, o := range w.Objects {
		out.causes = append(out.causes, &core.ObjectError{NICs: o.NICs, Groups: o.Groups, Err: errors.New(o.Message)})
	}
	for _, name := range w.Kinds {
		for _, s := range sentinels {
			if s.name == name {
				out.causes = append(out.causes, s.err)
			}
		}
	}
	return out
}
