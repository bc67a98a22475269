package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/source/manifest"
)

// Limits of the server.
const (
	// maxBody leaves room for a manifest as a JSON string.
	maxBody       = 2*manifest.MaxBytes + 64<<10
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	// callTimeout ends a call whose client waits for ever.
	callTimeout = 10 * time.Minute
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Path    string // of the socket
	Access  Access
	Service Service
	Log     *slog.Logger // nil = slog.Default()
}

// Server answers on the agent's socket.
type Server struct {
	listener *listener
	http     *http.Server
	log      *slog.Logger
}

// NewServer opens the socket; Serve answers on it. ErrConflict: another agent
// has it.
func NewServer(ctx context.Context, c ServerConfig) (*Server, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	who, err := c.Access.resolve()
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, c.Path, who)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, log: c.Log}
	s.http = &http.Server{
		Handler:           s.guard(who, routes(c.Service)),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withPeer,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ErrorLog:          log.New(io.Discard, "", 0), // a client that hangs up is no news
	}
	return s, nil
}

// Serve answers until Shutdown.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more calls, waits for those under way, until ctx ends, and
// removes the socket.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return s.listener.Close() // not ours any more if Serve never ran
}

type peerKey struct{}

// withPeer remembers who connected. Without that, guard turns the call away.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	cred, err := peerOf(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// guard turns strangers away, bounds a call and survives its panic.
func (s *Server) guard(who access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, ok := r.Context().Value(peerKey{}).(*unix.Ucred)
		if !ok || !who.admits(peer) {
			s.log.Warn("call refused", "peer", fmt.Sprintf("%+v", peer), "path", r.URL.Path)
			writeJSON(w, http.StatusForbidden, failure{encodeError(errors.New("the agent does not speak to you; use sudo, or see socket.owner and socket.group in its config"))})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		start := time.Now()
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("call panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				writeJSON(w, http.StatusInternalServerError, failure{encodeError(fmt.Errorf("the agent failed: %v; its log has more", p))})
			}
			s.log.Debug("call", "path", r.URL.Path, "uid", peer.Uid, "pid", peer.Pid, "took", time.Since(start))
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error wireError `json:"error"`
}

func routes(s Service) http.Handler {
	mux := http.NewServeMux()
	for verb, h := range verbs(s) {
		mux.Handle("/v"+Version1+"/"+verb, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		err := fmt.Errorf("this agent does not know %s; it speaks version %s of the API: use the ringwall that belongs to it: %w", r.URL.Path, Version1, core.ErrUnsupported)
		writeJSON(w, http.StatusNotFound, failure{encodeError(err)})
	})
	return mux
}

// handle makes a verb of a method: JSON in, JSON out. A call without a body
// gives the method the zero value.
func handle[In, Out any](method func(context.Context, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := readJSON(r, &in); err != nil {
			writeJSON(w, statusOf(err), failure{encodeError(err)})
			return
		}
		out, err := method(r.Context(), in)
		if err != nil {
			writeJSON(w, statusOf(err), failure{encodeError(err)})
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
}

func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var tooLong *http.MaxBytesError
	switch {
	case err == nil && !dec.More(), errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLong):
		return &core.FieldError{Path: "request", Reason: fmt.Sprintf("longer than %d bytes", tooLong.Limit)}
	case err == nil:
		return &core.FieldError{Path: "request", Reason: "more than one JSON value"}
	}
	return &core.FieldError{Path: "request", Reason: strings.TrimPrefix(err.Error(), "json: ")}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}
