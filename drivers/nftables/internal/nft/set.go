package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
)

// Set is a named set or map with its elements.
type Set struct {
	Name string
	// Key lists the key's fields; more than one make a concatenation.
	Key []DataType
	// Data makes the set a map: TypeVerdict for a verdict map. Its zero value
	// is a plain set.
	Data DataType
	// Interval sets hold inclusive ranges; concatenated ones need kernel 5.6.
	Interval bool
	// Dynamic sets are filled by rules from the packet path (dynset). What they
	// hold is no part of the ruleset: Diff and Compare leave it alone. They
	// need a Size.
	Dynamic bool
	// Counter gives every element a counter of its own.
	Counter bool
	// Size bounds the number of elements; 0 is without bound.
	Size    uint32
	Comment string
	// Flags are flags that this package does not set but the kernel told.
	Flags uint32

	Elements map[Key]Value
}

// Key is an element's key: raw bytes as the kernel compares them. In interval
// sets To is the inclusive end, else it is empty. The zero Key is the element
// that catches all other keys (kernel 5.13).
type Key struct {
	From, To string
}

// Value is what an element maps to: nothing, data bytes, or a verdict, as the
// set's Data says. The zero value in a verdict map is drop.
type Value struct {
	Data    string
	Verdict Verdict
}

// Verdict is a verdict, with the chain for a jump or goto.
type Verdict struct {
	Kind  expr.VerdictKind
	Chain string
}

// Jump is the value of a verdict map that jumps to a chain.
func Jump(chain string) Value { return Value{Verdict: Verdict{expr.VerdictJump, chain}} }

// Goto is the value of a verdict map that goes to a chain.
func Goto(chain string) Value { return Value{Verdict: Verdict{expr.VerdictGoto, chain}} }

// VerdictValue is the value of a verdict map: accept, drop, return or continue.
func VerdictValue(kind expr.VerdictKind) Value { return Value{Verdict: Verdict{Kind: kind}} }

// Data is the value of a data map.
func Data(f Field) Value { return Value{Data: f.lo} }

// IsMap tells whether elements carry values.
func (s *Set) IsMap() bool { return s.Data.ID != 0 }

// IsVerdictMap tells whether elements carry verdicts.
func (s *Set) IsVerdictMap() bool { return s.Data.ID == TypeVerdict.ID }

// keyLen is the length of a key in bytes: fields of a concatenation are padded.
func (s *Set) keyLen() int {
	if len(s.Key) == 1 {
		return s.Key[0].Size
	}
	n := 0
	for _, t := range s.Key {
		n += padded(t.Size)
	}
	return n
}

// keyType is nft's id of the key: six bits for each field.
func (s *Set) keyType() uint32 {
	var id uint32
	for _, t := range s.Key {
		id = id<<6 | t.ID
	}
	return id
}

// MakeKey builds a key of this set from one field for each of its types. A
// field of the wrong length is found when the set is sent.
func (s *Set) MakeKey(fields ...Field) Key {
	if len(fields) == 1 {
		if !s.Interval {
			return Key{From: fields[0].lo}
		}
		return Key{From: fields[0].lo, To: fields[0].hi}
	}
	n := s.keyLen()
	from := make([]byte, 0, n)
	for _, f := range fields {
		from = appendPadded(from, f.lo)
	}
	key := Key{From: string(from)}
	if s.Interval {
		to := from[:0]
		for _, f := range fields {
			to = appendPadded(to, f.hi)
		}
		key.To = string(to)
	}
	return key
}

func appendPadded(b []byte, s string) []byte {
	b = append(b, s...)
	for n := len(s); n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}

// Add puts an element into the set.
func (s *Set) Add(v Value, fields ...Field) {
	if s.Elements == nil {
		s.Elements = map[Key]Value{}
	}
	s.Elements[s.MakeKey(fields...)] = v
}

// sameDefinition tells whether two sets differ in their elements only.
func (s *Set) sameDefinition(o *Set) bool { return s.definition() == o.definition() }

// definition is everything of a set but its name and elements, as the kernel
// tells it back. The comment is in it: an edit needs a new set.
type definition struct {
	keyType          uint32
	keyLen           int
	fields           [maxFields]uint8
	dataType         uint32
	dataLen          int
	interval         bool
	dynamic, counter bool
	size, flags      uint32
	comment          string
}

const maxFields = 16 // NFT_REG32_COUNT

func (s *Set) definition() definition {
	d := definition{
		keyType: s.keyType(), keyLen: s.keyLen(),
		dataType: s.Data.ID, dataLen: s.Data.Size,
		interval: s.Interval, dynamic: s.Dynamic, counter: s.Counter,
		size: s.Size, flags: s.Flags, comment: s.Comment,
	}
	// Only the concatenated interval set knows where fields end.
	for i, t := range s.Key {
		if s.Interval && len(s.Key) > 1 && i < maxFields {
			d.fields[i] = uint8(t.Size)
		}
	}
	return d
}

// validate finds what the kernel would refuse without saying why.
func (s *Set) validate() error {
	switch {
	case len(s.Key) == 0:
		return fmt.Errorf("set %s: no key type", s.Name)
	case len(s.Key) > 5:
		return fmt.Errorf("set %s: key of %d fields, nft's type id holds 5", s.Name, len(s.Key))
	case s.keyLen() > 64:
		return fmt.Errorf("set %s: key of %d bytes, the kernel has 64", s.Name, s.keyLen())
	case s.Dynamic && s.Size == 0:
		return fmt.Errorf("set %s: a dynamic set needs a size", s.Name)
	}
	return nil
}

// checkKey finds a key that does not fit the set.
func (s *Set) checkKey(k Key) error {
	n := s.keyLen()
	switch {
	case k == Key{}:
	case len(k.From) != n:
		return fmt.Errorf("set %s: key of %d bytes, want %d", s.Name, len(k.From), n)
	case s.Interval && len(k.To) != n:
		return fmt.Errorf("set %s: end of interval of %d bytes, want %d", s.Name, len(k.To), n)
	case !s.Interval && k.To != "":
		return fmt.Errorf("set %s: a range in a set without intervals", s.Name)
	case k.To != "" && k.To < k.From && len(s.Key) == 1:
		return fmt.Errorf("set %s: range ends before it starts", s.Name)
	}
	return nil
}

// checkValue finds a value that does not fit the map.
func (s *Set) checkValue(v Value) error {
	if s.IsMap() && !s.IsVerdictMap() && len(v.Data) != s.Data.Size {
		return fmt.Errorf("set %s: data of %d bytes, want %d", s.Name, len(v.Data), s.Data.Size)
	}
	return nil
}
