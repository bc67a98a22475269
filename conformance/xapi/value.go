package xapi

import (
	"fmt"
	"strconv"
)

// Ref is an opaque reference.
type Ref = string

// Null is the reference to nothing.
const Null Ref = "OpaqueRef:NULL"

// Record is an object's fields. Values are string, bool, float64, int64, []any
// and Record. XAPI writes its integers as strings of digits.
type Record = map[string]any

// Failure is XAPI's error: a code and its parameters.
type Failure []string

func (f Failure) Error() string { return fmt.Sprint([]string(f)) }

func fail(code string, params ...string) Failure { return append(Failure{code}, params...) }

// plain turns integers into what goes over the wire, and copies.
func plain(v any) any {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case int:
		return strconv.Itoa(v)
	case []string:
		out := make([]any, len(v))
		for i, s := range v {
			out[i] = s
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e)
		}
		return out
	case map[string]string:
		out := Record{}
		for k, s := range v {
			out[k] = s
		}
		return out
	case Record:
		out := make(Record, len(v))
		for k, e := range v {
			out[k] = plain(e)
		}
		return out
	case nil:
		return ""
	}
	return v
}
