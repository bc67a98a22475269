package nft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says where a Conn works.
type Config struct {
	// NetNS is a file descriptor of a network namespace, which may be closed
	// after Open. 0 is the namespace of the thread that calls Open; later calls
	// may come from any thread.
	NetNS int
}

// Conn applies transactions and reads tables in one network namespace. Its
// methods may be called concurrently; transactions are sent one at a time.
type Conn struct {
	ns *namespace

	mu    sync.Mutex // held while a transaction is under way
	write *sock

	portsMu sync.Mutex
	ports   map[uint32]bool // of every socket that has sent transactions
}

// Open opens a connection.
func Open(cfg Config) (*Conn, error) {
	ns, err := openNamespace(cfg.NetNS)
	if err != nil {
		return nil, err
	}
	c := &Conn{ns: ns, ports: map[uint32]bool{}}
	s, err := ns.socket()
	if err != nil {
		ns.Close()
		return nil, err
	}
	c.setWriter(s)
	return c, nil
}

// Close closes the connection. What it enforced stays.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.dropWriter(), c.ns.Close())
}

func (c *Conn) setWriter(s *sock) {
	c.portsMu.Lock()
	defer c.portsMu.Unlock()
	c.write = s
	c.ports[s.port] = true
}

func (c *Conn) dropWriter() error {
	if c.write == nil {
		return nil
	}
	err := c.write.Close()
	c.write = nil
	return err
}

// ours tells whether a change announced from a port was made by this Conn.
func (c *Conn) ours(port uint32) bool {
	c.portsMu.Lock()
	defer c.portsMu.Unlock()
	return c.ports[port]
}

// Generation is the number that every change of nftables in the namespace,
// whoever makes it, counts up.
func (c *Conn) Generation(ctx context.Context) (uint32, error) {
	s, err := c.ns.socket()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return s.generation(ctx)
}

func (s *sock) generation(ctx context.Context) (uint32, error) {
	var gen uint32
	err := s.request(ctx, unix.NFT_MSG_GETGEN, 0, 0, nil, func(m nlMessage) error {
		if m.kind() == unix.NFT_MSG_NEWGEN {
			gen = attr{data: find(m.body(), unix.NFTA_GEN_ID)}.u32()
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	if gen == 0 {
		return 0, errors.New("read nftables generation: no answer")
	}
	return gen, nil
}

// answerTimeout bounds the wait for an answer that should be there already.
const answerTimeout = 10 * time.Second

// Apply sends a transaction: all of it is in force when it returns nil, nothing
// of it otherwise, except with ErrUnknown. It gives the generation after the
// change, which another program may have moved on if tx was not locked. Errors
// are Errors, ErrGeneration, ErrUnknown, or a failure before anything was sent.
// The context is heeded until the transaction is sent; then the outcome counts.
func (c *Conn) Apply(ctx context.Context, tx *Tx) (uint32, error) {
	if tx.err != nil {
		return 0, tx.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if c.write == nil {
		s, err := c.ns.socket()
		if err != nil {
			return 0, err
		}
		c.setWriter(s)
	}
	before, err := c.write.generation(ctx)
	if err != nil {
		c.dropWriter()
		return 0, err
	}
	if tx.locked && before != tx.lock {
		return 0, fmt.Errorf("%w: generation %d, now %d", ErrGeneration, tx.lock, before)
	}
	if tx.Empty() {
		return before, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	err = c.transact(ctx, tx, before)
	if err != nil {
		return 0, err
	}
	return c.write.generation(ctx)
}

// transact sends the batch and decides on its outcome.
func (c *Conn) transact(ctx context.Context, tx *Tx, before uint32) error {
	refused, err := c.write.exchange(ctx, tx)
	switch {
	case err == nil && len(refused) == 0:
		return nil
	case err == nil:
		return refused
	case errors.Is(err, ErrGeneration), errors.Is(err, errNotSent):
		return err
	}
	c.dropWriter()
	// The answer was lost, in part perhaps: only refusals are many enough to
	// overflow the buffer. The generation tells.
	if err := c.outcome(ctx, before, err); errors.Is(err, ErrUnknown) || len(refused) == 0 {
		return err
	}
	return refused
}

var errNotSent = errors.New("nftables transaction not sent")

// exchange sends a batch and reads the refusals.
func (s *sock) exchange(ctx context.Context, tx *Tx) (Errors, error) {
	base := s.seq + 1
	s.seq += uint32(len(tx.msgs)) + 2
	batch := tx.encode(base)
	if err := s.c.SetReadBuffer(answerBuffer); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	if err := s.send(batch); err != nil {
		return nil, fmt.Errorf("send batch of %d bytes: %w", len(batch), err)
	}
	return s.verdict(ctx, tx, base)
}

// answerBuffer holds a few thousand refusals; a success needs room for one.
const answerBuffer = 4 << 20

// verdict reads the answers up to the acknowledgement of the last message.
func (s *sock) verdict(ctx context.Context, tx *Tx, base uint32) (Errors, error) {
	var refused Errors
	last := base + uint32(len(tx.msgs))
	var lost error
	for {
		rest, err := s.answer(ctx, lost != nil)
		switch {
		case errors.Is(err, syscall.ENOBUFS):
			// Told before what did fit into the buffer; the acknowledgement of
			// the last message did not, so nothing tells the end of the answer.
			lost = err
			continue
		case err != nil:
			return refused, err
		case rest == nil:
			return refused, lost
		}
		for len(rest) > 0 {
			var m nlMessage
			if m, rest, err = nextMessage(rest); err != nil {
				return refused, err
			}
			if m.typ != unix.NLMSG_ERROR || m.seq-base > last-base {
				continue
			}
			a, err := parseAck(m)
			if err != nil {
				return refused, err
			}
			switch {
			case m.seq == base && tx.locked && a.errno == syscall.ERESTART:
				return nil, fmt.Errorf("%w: generation %d", ErrGeneration, tx.lock)
			case m.seq == base && a.errno != 0:
				// The batch as a whole: no permission, no memory, or the checks
				// at the end (a loop of jumps, a chain used from a wrong hook).
				return append(Errors{{Object: "nftables transaction", Op: "commit", Errno: a.errno, Detail: a.detail}}, refused...), nil
			case a.errno != 0:
				index := int(m.seq-base) - 1
				refused = append(refused, &Error{
					Object: tx.describe(index, a.offset), Op: tx.msgs[index].op,
					Errno: a.errno, Detail: a.detail,
				})
			}
			if m.seq == last {
				return refused, nil
			}
		}
	}
}

// answer reads a datagram of the kernel's answer to a batch. After a loss all
// that is left of it is in the buffer already.
func (s *sock) answer(ctx context.Context, afterLoss bool) ([]byte, error) {
	if afterLoss {
		return s.receiveNow()
	}
	return s.receive(ctx)
}

// outcome decides, after an answer was lost, whether the batch is in force. It
// is not if the generation is the old one; if it moved, it may be our batch or
// somebody else's.
func (c *Conn) outcome(ctx context.Context, before uint32, cause error) error {
	after, err := c.Generation(ctx)
	if err == nil && after == before {
		return fmt.Errorf("nftables transaction not applied: %w", cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, cause)
}
