// Package wire turns the types of core into messages and back.
//
// Encoding checks little: what is encoded was made in this process. Decoding
// trusts nothing: the other end may be a vendor's first attempt, an older
// release or broken. It refuses unknown fields and enum values, lengths that
// are not an address's, names that hold control characters, and streams
// without end; what it returns is as valid as the types of core can say. A
// *Malformed names the field.
package wire

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"
)

// Malformed says which field of a message is not what the protocol promises.
type Malformed struct {
	Path   string // instances[3].nics[0].mac
	Reason string
}

func (e *Malformed) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

func malformed(path, format string, args ...any) error {
	return &Malformed{path, fmt.Sprintf(format, args...)}
}

// under puts err, if it is a Malformed, under a field.
func under(field string, err error) error {
	var m *Malformed
	switch {
	case err == nil, !errors.As(err, &m):
		return err
	case m.Path == "":
		return &Malformed{field, m.Reason}
	case m.Path[0] == '[':
		return &Malformed{field + m.Path, m.Reason}
	}
	return &Malformed{field + "." + m.Path, m.Reason}
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// known refuses a message with fields that this release has no name for: they
// may be what makes the difference between allowed and denied.
func known(m proto.Message) error {
	if n := len(m.ProtoReflect().GetUnknown()); n > 0 {
		return malformed("", "%d bytes of fields that this release does not know; use matching releases of ringwall and the plugin", n)
	}
	return nil
}

// encodeAll and decodeAll map slices; nil stays nil.
func encodeAll[T, M any](in []T, encode func(T) M) []M {
	if in == nil {
		return nil
	}
	out := make([]M, len(in))
	for i, v := range in {
		out[i] = encode(v)
	}
	return out
}

func decodeAll[M, T any](in []M, decode func(M) (T, error)) ([]T, error) {
	if in == nil {
		return nil, nil
	}
	out := make([]T, len(in))
	for i, m := range in {
		v, err := decode(m)
		if err != nil {
			return nil, under(index(i), err)
		}
		out[i] = v
	}
	return out, nil
}
