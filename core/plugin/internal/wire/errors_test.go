package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

func errorsAs[T error](err error, target *T) bool { return errors.As(err, target) }

// throughError sends an error as gRPC does: as bytes.
func throughError(t *testing.T, err error) error {
	t.Helper()
	s, _ := status.FromError(EncodeError(err))
	out, ok := DecodeError(status.FromProto(overWire(t, s.Proto())))
	if !ok {
		t.Fatalf("%v came without its details", err)
	}
	return out
}

func TestErrorsCrossIntact(t *testing.T) {
	k := core.NICKey{VM: "i-2-7-VM", MAC: core.MAC{2}}
	field := &core.FieldError{Path: "settings.uri", Value: "x", Reason: "not a URI"}
	object := &core.ObjectError{NICs: []core.NICKey{k}, Groups: []string{"web"}, Err: fmt.Errorf("kernel: %w", core.ErrUnsupported)}
	all := []error{core.ErrUnsupported, core.ErrInvalid, core.ErrNotReady, core.ErrConflict, core.ErrNotFound, context.Canceled, context.DeadlineExceeded}
	cases := []error{
		errors.New("plain"),
		fmt.Errorf("state moved on: %w", core.ErrConflict),
		fmt.Errorf("open: %w", field),
		errors.Join(field, &core.FieldError{Path: "settings.mask", Reason: "missing"}),
		fmt.Errorf("apply: %w", object),
		fmt.Errorf("%w and %w", object, core.ErrNotReady),
		fmt.Errorf("%w", context.DeadlineExceeded),
		incomparable{"a", "b"},
	}
	for _, s := range all {
		cases = append(cases, s, fmt.Errorf("deep: %w", fmt.Errorf("deeper: %w", s)))
	}
	for _, want := range cases {
		got := throughError(t, want)
		if got.Error() != want.Error() {
			t.Errorf("text %q became %q", want, got)
		}
		for _, s := range all {
			if errors.Is(want, s) != errors.Is(got, s) {
				t.Errorf("%q: errors.Is %v was %v and is %v", want, s, errors.Is(want, s), errors.Is(got, s))
			}
		}
		var f1, f2 *core.FieldError
		if errors.As(want, &f1) != errors.As(got, &f2) || f1 != nil && *f1 != *f2 {
			t.Errorf("%q: field %v became %v", want, f1, f2)
		}
		var o1, o2 *core.ObjectError
		if errors.As(want, &o1) != errors.As(got, &o2) {
			t.Errorf("%q: object %v became %v", want, o1, o2)
		} else if o1 != nil && (!cmp.Equal(o1.NICs, o2.NICs) || !cmp.Equal(o1.Groups, o2.Groups) || o1.Err.Error() != o2.Err.Error()) {
			t.Errorf("%q: object %v became %v", want, o1, o2)
		}
	}
}

// Both fields of a joined error are still there, each with its path.
func TestJoinedFieldErrors(t *testing.T) {
	got := throughError(t, errors.Join(&core.FieldError{Path: "a", Reason: "x"}, &core.FieldError{Path: "b", Reason: "y"}))
	joined, ok := got.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %#v", got)
	}
	for i, path := range []string{"a", "b"} {
		var f *core.FieldError
		if !errors.As(joined.Unwrap()[i], &f) || f.Path != path {
			t.Errorf("%d: %v", i, joined.Unwrap()[i])
		}
	}
}

type incomparable []string

func (e incomparable) Error() string { return strings.Join(e, ",") }

func TestErrorsOfAnySizeAreSent(t *testing.T) {
	deep := core.ErrConflict
	for range 200 {
		deep = fmt.Errorf("x: %w", deep)
	}
	if got := throughError(t, deep); !errors.Is(got, core.ErrConflict) {
		t.Errorf("a deep error lost its sentinel: %v", got)
	}
	var wide []error
	for range 2 * maxNodes {
		wide = append(wide, fmt.Errorf("%s: %w", strings.Repeat("y", 100), core.ErrInvalid))
	}
	got := throughError(t, errors.Join(wide...))
	if !errors.Is(got, core.ErrInvalid) || len(got.Error()) > maxText+100 {
		t.Errorf("a wide error: %d bytes, %v", len(got.Error()), errors.Is(got, core.ErrInvalid))
	}
}

// What a hostile peer may send instead.
func TestHostileErrors(t *testing.T) {
	deep := &pb.Error{Message: "bottom"}
	for range 5000 {
		deep = &pb.Error{Message: "x", Causes: []*pb.Error{deep}}
	}
	nodes := maxNodes
	if err := decodeNode(deep, maxDepth, &nodes); err == nil || maxNodes-nodes > maxDepth+1 {
		t.Errorf("%v after %d nodes", err, maxNodes-nodes)
	}
	wide := &pb.Error{Message: "x"}
	for range 100_000 {
		wide.Causes = append(wide.Causes, &pb.Error{Message: "y"})
	}
	nodes = maxNodes
	if err := decodeNode(wide, maxDepth, &nodes); err == nil || nodes < -1 {
		t.Errorf("%v, %d nodes left", err, nodes)
	}
	odd := &pb.Error{Sentinel: 99, Object: &pb.ObjectError{Nics: []*pb.NICKey{{Mac: []byte{1}}}}, Message: "a\x1b[31m"}
	nodes = maxNodes
	if err := decodeNode(odd, maxDepth, &nodes); err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %q", err)
	}
}
