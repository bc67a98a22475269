package nl

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Message is one netlink message. Data lies in the socket's buffer: it is
// valid until the next read.
type Message struct {
	Type  uint16
	Flags uint16
	Seq   uint32
	Data  []byte // after struct nlmsghdr
}

// Body is what follows a fixed header of n bytes; empty when there is none.
func (m Message) Body(n int) []byte {
	if n = align(n); n > len(m.Data) {
		return nil
	}
	return m.Data[n:]
}

// Request is a message to send. Body starts with the subsystem's own header.
type Request struct {
	Type  uint16
	Flags uint16 // besides NLM_F_REQUEST
	Body  Buffer
}

// Error is the kernel's refusal of a request. errors.Is finds its errno.
type Error struct {
	Errno  syscall.Errno
	Detail string // the kernel's own words, where it has some
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return "netlink: " + e.Errno.Error()
	}
	return "netlink: " + e.Detail + ": " + e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

func align(n int) int { return (n + 3) &^ 3 }

// append adds the request to a datagram.
func (r Request) append(b []byte, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(r.Body)))
	b = binary.NativeEndian.AppendUint16(b, r.Type)
	b = binary.NativeEndian.AppendUint16(b, r.Flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // the kernel knows our port
	b = append(b, r.Body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// cut takes the first message off a datagram.
func cut(b []byte) (m Message, rest []byte, err error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return m, nil, fmt.Errorf("netlink: %d stray bytes", len(b))
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return m, nil, fmt.Errorf("netlink: message of %d bytes in %d", n, len(b))
	}
	m = Message{
		Type:  binary.NativeEndian.Uint16(b[4:]),
		Flags: binary.NativeEndian.Uint16(b[6:]),
		Seq:   binary.NativeEndian.Uint32(b[8:]),
		Data:  b[unix.NLMSG_HDRLEN:n],
	}
	return m, b[min(align(n), len(b)):], nil
}

// done reads NLMSG_ERROR and NLMSG_DONE; over is false for all others. The
// error is nil for an acknowledgement.
func (m Message) done() (over bool, err error) {
	if m.Type != unix.NLMSG_ERROR && m.Type != unix.NLMSG_DONE {
		return false, nil
	}
	if len(m.Data) < 4 {
		return true, fmt.Errorf("netlink: acknowledgement of %d bytes", len(m.Data))
	}
	errno := -int32(binary.NativeEndian.Uint32(m.Data))
	if errno == 0 {
		return true, nil
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 {
		skip := 4
		if m.Type == unix.NLMSG_ERROR {
			skip += unix.NLMSG_HDRLEN // of the refused message; NETLINK_CAP_ACK keeps the rest away
		}
		for t, v := range Attrs(m.Body(skip)) {
			if t == unix.NLMSGERR_ATTR_MSG {
				e.Detail = v.String()
			}
		}
	}
	return true, e
}
