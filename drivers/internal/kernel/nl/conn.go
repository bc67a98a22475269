package nl

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// Config describes a socket.
type Config struct {
	Protocol   int   // unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER
	Groups     []int // multicast groups to join
	ReadBuffer int   // bytes; 0 = 1 MiB. A batch's refusals and a burst of events must fit
}

const (
	defaultReadBuffer = 1 << 20
	// datagram is what reading offers. Dumps fill 32 KiB of it at most, and
	// only a single message with thousands of virtual functions is longer.
	datagram = 64 << 10
	// chunk is how much of a batch is sent at once: small enough that the
	// refusal of every message in it fits a read buffer of the default size
	// (net.core.rmem_default), should raising it not be allowed.
	chunk = 16 << 10
)

// Conn is a netlink socket. One request at a time.
type Conn struct {
	s   *socket.Conn
	seq uint32
	buf []byte
}

func dial(cfg Config, netns int) (*Conn, error) {
	s, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, cfg.Protocol, "netlink", &socket.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := setup(s, cfg); err != nil {
		s.Close()
		return nil, fmt.Errorf("set up a netlink socket: %w", err)
	}
	return &Conn{s: s, buf: make([]byte, datagram)}, nil
}

func setup(s *socket.Conn, cfg Config) error {
	if err := s.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Refusals with a reason (4.12) and without a copy of the request (4.3).
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		if err := s.SetsockoptInt(unix.SOL_NETLINK, opt, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
	}
	size := cfg.ReadBuffer
	if size == 0 {
		size = defaultReadBuffer
	}
	if err := s.SetReadBuffer(size); err != nil {
		return err
	}
	for _, g := range cfg.Groups {
		if err := s.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("join group %d: %w", g, err)
		}
	}
	return nil
}

// Close ends every wait on the socket.
func (c *Conn) Close() error { return c.s.Close() }

func (c *Conn) send(ctx context.Context, b []byte) error {
	_, err := c.s.Sendmsg(ctx, b, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	return err
}

// Receive waits for the next datagram and walks over its messages.
func (c *Conn) Receive(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		n, _, flags, from, err := c.s.Recvmsg(ctx, c.buf, nil, 0)
		if err == nil && flags&unix.MSG_TRUNC != 0 {
			err = fmt.Errorf("netlink: message longer than %d bytes: %w", len(c.buf), unix.EMSGSIZE)
		}
		if err != nil {
			yield(Message{}, err)
			return
		}
		// Any process may send to our port; only the kernel is port 0.
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			return
		}
		for rest := c.buf[:n]; len(rest) > 0; {
			var m Message
			if m, rest, err = cut(rest); err != nil {
				yield(Message{}, err)
				return
			}
			if !yield(m, nil) {
				return
			}
		}
	}
}

// Do sends one request and waits until the kernel has done or refused it.
func (c *Conn) Do(ctx context.Context, r Request) error {
	failed, err := c.Batch(ctx, []Request{r})
	if err != nil {
		return err
	}
	return failed[0]
}

// Batch sends requests many at a time and gives back the refused ones by their
// place in the list. The second error says that the fate of some is not known.
func (c *Conn) Batch(ctx context.Context, requests []Request) (refused map[int]error, err error) {
	refused = map[int]error{}
	var b []byte
	for first, n := 0, 0; first < len(requests); first += n {
		n = fitting(requests[first:])
		b = b[:0]
		for i, r := range requests[first : first+n] {
			// The kernel works in order and always reports a refusal, so the
			// acknowledgement of the last one speaks for all that were silent.
			if i == n-1 {
				r.Flags |= unix.NLM_F_ACK
			}
			b = r.append(b, c.seq+1+uint32(i))
		}
		base := c.seq + 1
		c.seq += uint32(n)
		if err := c.send(ctx, b); err != nil {
			return refused, err
		}
		if err := c.outcomes(ctx, base, n, func(i int, err error) { refused[first+i] = err }); err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// fitting is how many requests go into a chunk, at least one.
func fitting(requests []Request) int {
	size := 0
	for i, r := range requests {
		if size += unix.NLMSG_HDRLEN + align(len(r.Body)); size > chunk && i > 0 {
			return i
		}
	}
	return len(requests)
}

// outcomes reads the answers to n requests, the last of which has one for sure.
func (c *Conn) outcomes(ctx context.Context, base uint32, n int, refused func(int, error)) error {
	for {
		for m, err := range c.Receive(ctx) {
			if err != nil {
				return err
			}
			i := m.Seq - base
			over, err := m.done()
			if !over || i >= uint32(n) {
				continue
			}
			if err != nil {
				refused(int(i), err)
			}
			if i == uint32(n-1) {
				return nil
			}
		}
	}
}

// ErrInterrupted ends a dump during which what it walks over has changed: it
// may lack objects. Start again.
var ErrInterrupted = errors.New("netlink: dump interrupted by a change")

// Dump asks for all objects of a kind. Leaving the loop early spoils the Conn
// for other requests.
func (c *Conn) Dump(ctx context.Context, r Request) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		r.Flags |= unix.NLM_F_DUMP
		c.seq++
		if err := c.send(ctx, r.append(nil, c.seq)); err != nil {
			yield(Message{}, err)
			return
		}
		interrupted := false
		for {
			for m, err := range c.Receive(ctx) {
				if err != nil {
					yield(Message{}, err)
					return
				}
				if m.Seq != c.seq {
					continue
				}
				interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
				over, err := m.done()
				switch {
				case !over:
					if !yield(m, nil) {
						return
					}
					continue
				case err == nil && interrupted:
					err = ErrInterrupted
				}
				if err != nil {
					yield(Message{}, err)
				}
				return
			}
		}
	}
}

// dumpTries bounds how often an interrupted dump is started again.
const dumpTries = 32

// Collect dumps one kind of object, and again when a change came between.
func Collect[T any](ctx context.Context, c *Conn, r Request, parse func(Message) (T, bool)) ([]T, error) {
	for try := 1; ; try++ {
		var out []T
		var failure error
		for m, err := range c.Dump(ctx, r) {
			if err != nil {
				failure = err
				break
			}
			if v, ok := parse(m); ok {
				out = append(out, v)
			}
		}
		if failure == nil {
			return out, nil
		}
		if !errors.Is(failure, ErrInterrupted) || try == dumpTries {
			return nil, failure
		}
	}
}

// Get sends a request that is no dump, and shows its answers until the kernel
// has acknowledged it.
func (c *Conn) Get(ctx context.Context, r Request, visit func(Message)) error {
	r.Flags |= unix.NLM_F_ACK
	c.seq++
	if err := c.send(ctx, r.append(nil, c.seq)); err != nil {
		return err
	}
	for {
		for m, err := range c.Receive(ctx) {
			if err != nil {
				return err
			}
			if m.Seq != c.seq {
				continue
			}
			over, err := m.done()
			if over {
				return err
			}
			visit(m)
		}
	}
}
