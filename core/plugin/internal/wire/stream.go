package wire

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
)

// Sizes of what crosses the boundary, in bytes. A chunk is sent when it holds
// chunkSize; one element may add up to maxElement to it, which keeps every
// message below MaxMessage. maxStream bounds what one call may deliver: it
// holds some 2,000,000 entries.
const (
	chunkSize  = 256 << 10
	maxElement = 512 << 10
	MaxMessage = 1 << 20
	maxStream  = 64 << 20
)

// chunker gathers elements into a message of type P until it is full.
type chunker[P any] struct {
	part *P
	size int
	send func(part *P, last bool) error
}

func newChunker[P any](send func(*P, bool) error) *chunker[P] {
	return &chunker[P]{part: new(P), send: send}
}

// room makes place for an element of n bytes. When it reports fresh, part is
// a new message.
func (c *chunker[P]) room(n int) (fresh bool, err error) {
	if n > maxElement {
		return false, fmt.Errorf("%d bytes in one object, at most %d pass the plugin boundary: %w", n, maxElement, core.ErrUnsupported)
	}
	if c.size > 0 && c.size+n > chunkSize {
		if err := c.send(c.part, false); err != nil {
			return false, err
		}
		c.part, c.size, fresh = new(P), 0, true
	}
	c.size += n
	return fresh, nil
}

// last sends what is left.
func (c *chunker[P]) last() error { return c.send(c.part, true) }

// encodeList sends a list of messages that live in one repeated field.
func encodeList[T any, M proto.Message, P any](in []T, encode func(T) M, field func(*P) *[]M, send func(*P, bool) error) error {
	c := newChunker(send)
	for _, v := range in {
		m := encode(v)
		if _, err := c.room(proto.Size(m) + 8); err != nil {
			return err
		}
		l := field(c.part)
		*l = append(*l, m)
	}
	return c.last()
}

// Receive reads a stream of parts to the one that says it is the last. A
// stream that ends before was cut, and is no answer.
func Receive[M interface {
	proto.Message
	GetLast() bool
}](recv func() (M, error), take func(M) error) error {
	for total := 0; ; {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return malformed("", "the stream ended before its last part")
		}
		if err != nil {
			return err
		}
		// Empty messages count as well, or they would never end.
		if total += proto.Size(m) + 64; total > maxStream {
			return malformed("", "more than %d MiB in one stream", maxStream>>20)
		}
		if err := known(m); err != nil {
			return err
		}
		if err := take(m); err != nil {
			return err
		}
		if m.GetLast() {
			return nil
		}
	}
}
