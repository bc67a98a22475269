package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// sock is one netlink socket. The kernel answers a request while it is being
// sent: when send returns, the whole answer waits in the receive buffer, or it
// was lost there. Dumps go on as they are read.
type sock struct {
	c        *socket.Conn
	rc       syscall.RawConn
	port     uint32 // how the kernel names the socket
	seq      uint32
	sendRoom int    // that the kernel was asked for
	buf      []byte // of the last datagram received
}

// openSocket opens a socket in the network namespace of fd, or of the calling
// thread if it is 0, and joins it to multicast groups.
func openSocket(netns int, groups ...int) (*sock, error) {
	c, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "netlink", &socket.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := &sock{c: c}
	if err := s.setup(groups); err != nil {
		c.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return s, nil
}

func (s *sock) setup(groups []int) error {
	if err := s.c.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var err error
	if s.rc, err = s.c.SyscallConn(); err != nil {
		return err
	}
	sa, err := s.c.Getsockname()
	if err != nil {
		return err
	}
	s.port = sa.(*unix.SockaddrNetlink).Pid
	// The reason of a refusal and the place in the message, but not the message
	// itself, which may be 64 KiB long and would fill the buffer.
	if err := s.c.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1); err != nil {
		return err
	}
	if err := s.c.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	for _, g := range groups {
		if err := s.c.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return err
		}
	}
	return nil
}

func (s *sock) Close() error { return s.c.Close() }

// send sends bytes as they are, in one call. It does not wait: the kernel works
// in the call and takes all or nothing.
func (s *sock) send(b []byte) error {
	if room := len(b) + sendSlack; room > s.sendRoom {
		if err := s.c.SetWriteBuffer(room); err != nil {
			return fmt.Errorf("make room for %d bytes: %w", len(b), err)
		}
		s.sendRoom = room
	}
	_, err := s.c.Sendmsg(context.Background(), b, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
	return err
}

// sendSlack is what the kernel wants free beside the message.
const sendSlack = 64 << 10

// receiveBuffer is what a reader offers; the kernel fills up to 32 KiB of it at
// a time with a dump.
const receiveBuffer = 64 << 10

// receive reads one datagram of messages, which are valid until the next call.
// It waits only if there is none yet, which is rare and costs more: the answer
// is made while the request is sent.
func (s *sock) receive(ctx context.Context) ([]byte, error) {
	b, err := s.receiveNow()
	if b != nil || err != nil {
		return b, err
	}
	n, _, flags, _, err := s.c.Recvmsg(ctx, s.buf, nil, 0)
	if err != nil {
		return nil, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, errTruncated
	}
	return s.buf[:n], nil
}

// errTruncated means a message longer than any that the kernel makes today.
var errTruncated = fmt.Errorf("netlink message longer than the buffer: %w", syscall.EMSGSIZE)

// receiveNow reads one datagram if there is one: nil and no error if not.
func (s *sock) receiveNow() ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, receiveBuffer)
	}
	var n int
	var failed error
	err := s.rc.Read(func(fd uintptr) bool {
		// With MSG_TRUNC, n is the datagram's own length.
		n, _, failed = unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case errors.Is(failed, syscall.EAGAIN):
		return nil, nil
	case failed != nil:
		return nil, os.NewSyscallError("recvfrom", failed)
	case n > len(s.buf):
		return nil, errTruncated
	}
	return s.buf[:n], nil
}

// nlMessage is one message of a datagram. Its data lie in the buffer.
type nlMessage struct {
	typ, flags uint16
	seq, port  uint32
	data       []byte // after nlmsghdr
}

// body is what follows nfgenmsg.
func (m nlMessage) body() []byte {
	if len(m.data) < nfHeaderLen {
		return nil
	}
	return m.data[nfHeaderLen:]
}

// family is the address family of nfgenmsg.
func (m nlMessage) family() Family {
	if len(m.data) < nfHeaderLen {
		return 0
	}
	return Family(m.data[0])
}

// kind is the nftables message type, -1 for others.
func (m nlMessage) kind() int {
	if m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return -1
	}
	return int(m.typ & 0xff)
}

// nextMessage cuts the first message off a datagram.
func nextMessage(b []byte) (m nlMessage, rest []byte, err error) {
	if len(b) < nlHeaderLen {
		return m, nil, fmt.Errorf("netlink: %d stray bytes", len(b))
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < nlHeaderLen || n > len(b) {
		return m, nil, fmt.Errorf("netlink: message of %d bytes in %d", n, len(b))
	}
	m = nlMessage{
		typ:   binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		port:  binary.NativeEndian.Uint32(b[12:]),
		data:  b[nlHeaderLen:n],
	}
	return m, b[min((n+3)&^3, len(b)):], nil
}

// ack is what NLMSG_ERROR says: an errno, 0 for success.
type ack struct {
	errno  syscall.Errno
	detail string
	offset int // in the message that was refused
}

// parseAck decodes NLMSG_ERROR and NLMSG_DONE.
func parseAck(m nlMessage) (ack, error) {
	if len(m.data) < 4 {
		return ack{}, errors.New("netlink: short acknowledgement")
	}
	a := ack{errno: syscall.Errno(-int32(binary.NativeEndian.Uint32(m.data)))}
	if m.typ != unix.NLMSG_ERROR || m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return a, nil
	}
	// The errno, the header of the refused message (capped), then attributes.
	rest := m.data[4:]
	if len(rest) < nlHeaderLen {
		return a, nil
	}
	skip := nlHeaderLen
	if m.flags&unix.NLM_F_CAPPED == 0 {
		skip = min(int(binary.NativeEndian.Uint32(rest)+3)&^3, len(rest))
	}
	for t := range attrs(rest[skip:]) {
		switch t.typ {
		case unix.NLMSGERR_ATTR_MSG:
			a.detail = t.str()
		case unix.NLMSGERR_ATTR_OFFS:
			if len(t.data) >= 4 {
				a.offset = int(binary.NativeEndian.Uint32(t.data))
			}
		}
	}
	return a, nil
}

// errInterrupted means that what a dump walked over has changed meanwhile.
var errInterrupted = errors.New("dump interrupted by a change")

// request sends one request and hands every answer to f, whose messages are
// valid only during the call. A dump ends by itself, everything else is
// acknowledged.
func (s *sock) request(ctx context.Context, kind, flags int, family Family, body buffer, f func(nlMessage) error) error {
	s.seq++
	seq := s.seq
	if flags&unix.NLM_F_DUMP == 0 {
		flags |= unix.NLM_F_ACK
	}
	b := make(buffer, 0, nlHeaderLen+nfHeaderLen+len(body))
	appendHeader(&b, unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, seq, family, 0)
	b = append(b, body...)
	setLen(b, 0)
	if err := s.send(b); err != nil {
		return err
	}
	interrupted := false
	for {
		rest, err := s.receive(ctx)
		if err != nil {
			return err
		}
		for len(rest) > 0 {
			var m nlMessage
			if m, rest, err = nextMessage(rest); err != nil {
				return err
			}
			if m.seq != seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			if m.typ == unix.NLMSG_ERROR || m.typ == unix.NLMSG_DONE {
				a, err := parseAck(m)
				switch {
				case err != nil:
					return err
				case a.errno == syscall.EINTR || interrupted:
					return errInterrupted
				case a.errno != 0:
					return os.NewSyscallError("netlink", a.errno)
				}
				return nil
			}
			if err := f(m); err != nil {
				return err
			}
		}
	}
}
