package wire

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// An error's tree keeps its shape on the way, so that errors.Is, errors.As
// and the text give the same on both sides. maxNodes and maxDepth bound what
// is sent and what is read; maxDetails is less than gRPC takes in a trailer.
const (
	maxNodes   = 1000
	maxDepth   = 32
	maxDetails = 2 << 20
	maxObjects = 100_000
)

var sentinels = enumOf(map[error]pb.Sentinel{
	core.ErrUnsupported:      pb.Sentinel_SENTINEL_UNSUPPORTED,
	core.ErrInvalid:          pb.Sentinel_SENTINEL_INVALID,
	core.ErrNotReady:         pb.Sentinel_SENTINEL_NOT_READY,
	core.ErrConflict:         pb.Sentinel_SENTINEL_CONFLICT,
	core.ErrNotFound:         pb.Sentinel_SENTINEL_NOT_FOUND,
	context.Canceled:         pb.Sentinel_SENTINEL_CANCELED,
	context.DeadlineExceeded: pb.Sentinel_SENTINEL_DEADLINE_EXCEEDED,
})

// EncodeError makes a status error of a driver's error.
func EncodeError(err error) error {
	if err == nil {
		return nil
	}
	nodes := maxNodes
	tree := encodeNode(err, maxDepth, &nodes)
	if proto.Size(tree) > maxDetails {
		tree = &pb.Error{Message: tree.Message, Causes: sentinelsOf(err)}
	}
	// The code is for logs of gRPC; the receiver goes by the details.
	s, detailErr := status.New(codes.Unknown, "driver error").WithDetails(tree)
	if detailErr != nil {
		return status.Error(codes.Internal, detailErr.Error())
	}
	return s.Err()
}

// encodeNode goes by what err itself is: what it wraps is a node of its own.
func encodeNode(err error, depth int, nodes *int) *pb.Error {
	*nodes--
	m := &pb.Error{Message: Text(err.Error())}
	switch e := err.(type) { //nolint:errorlint // one node at a time
	case *core.FieldError:
		m.Field = &pb.FieldError{Path: Text(e.Path), Value: Text(e.Value), Reason: Text(e.Reason)}
		return m
	case *core.ObjectError:
		m.Object = &pb.ObjectError{Nics: encodeAll(e.NICs, encodeNICKey), Groups: e.Groups}
	default:
		if s, ok := sentinelOf(err); ok {
			m.Sentinel = s
			return m
		}
	}
	for _, c := range unwrap(err) {
		if depth == 0 || *nodes <= 0 {
			m.Causes = append(m.Causes, sentinelsOf(err)...)
			break
		}
		m.Causes = append(m.Causes, encodeNode(c, depth-1, nodes))
	}
	return m
}

// sentinelOf never compares two errors of one incomparable type: no sentinel
// has such a type.
func sentinelOf(err error) (pb.Sentinel, bool) {
	for e, s := range sentinels.wire {
		if err == e { //nolint:errorlint // one node at a time
			return s, true
		}
	}
	return 0, false
}

func unwrap(err error) []error {
	switch e := err.(type) { //nolint:errorlint // one node at a time
	case interface{ Unwrap() error }:
		if c := e.Unwrap(); c != nil {
			return []error{c}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}

func sentinelsOf(err error) (out []*pb.Error) {
	for e, s := range sentinels.wire {
		if errors.Is(err, e) {
			out = append(out, &pb.Error{Message: e.Error(), Sentinel: s})
		}
	}
	return out
}

// DecodeError gives the driver's error that came in a status, if one did.
func DecodeError(s *status.Status) (error, bool) {
	for _, d := range s.Details() {
		if m, ok := d.(*pb.Error); ok {
			// The sentinels of what was left out come on top.
			nodes := 2 * maxNodes
			return decodeNode(m, maxDepth+1, &nodes), true
		}
	}
	return nil, false
}

func decodeNode(m *pb.Error, depth int, nodes *int) error {
	*nodes--
	if m.GetSentinel() != pb.Sentinel_SENTINEL_UNSPECIFIED {
		if e, err := sentinels.decode(m.GetSentinel()); err == nil {
			return e
		}
	}
	if f := m.GetField(); f != nil {
		return &core.FieldError{Path: Text(f.GetPath()), Value: Text(f.GetValue()), Reason: Text(f.GetReason())}
	}
	text := Text(m.GetMessage())
	if text == "" {
		text = "an error without a text"
	}
	var causes []error
	if depth > 0 {
		for _, c := range m.GetCauses() {
			if *nodes <= 0 {
				break
			}
			causes = append(causes, decodeNode(c, depth-1, nodes))
		}
	}
	if o := m.GetObject(); o != nil {
		if err := decodeObjects(o, text, causes); err != nil {
			return err
		}
	}
	return &remoteError{text, causes}
}

// decodeObjects is nil when the objects make no sense: the text is left then.
func decodeObjects(m *pb.ObjectError, text string, causes []error) error {
	if len(m.GetNics()) > maxObjects || len(m.GetGroups()) > maxObjects {
		return nil
	}
	nics, err := decodeAll(m.GetNics(), decodeNICKey)
	if err != nil {
		return nil
	}
	groups, err := names(m.GetGroups())
	if err != nil {
		return nil
	}
	e := &core.ObjectError{NICs: nics, Groups: groups, Err: &remoteError{text, nil}}
	if len(causes) == 1 {
		e.Err = causes[0]
	}
	return e
}

// remoteError is an error of a type that only the other process knows.
type remoteError struct {
	text   string
	causes []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.causes }

// Invalid makes a host's malformed message the caller's mistake.
func Invalid(err error) error {
	var m *Malformed
	if errors.As(err, &m) {
		return fmt.Errorf("the request is malformed: %w: %w", m, core.ErrInvalid)
	}
	return err
}

// objectError names the object that is too large to be sent, so that the
// engine can go on without it. Other errors are those of the connection.
func objectError(err error, o core.ObjectError) error {
	if errors.Is(err, core.ErrUnsupported) {
		o.Err = err
		return &o
	}
	return err
}
