package lab

import (
	"syscall"

	"golang.org/x/sys/unix"
)

type rawConn = syscall.RawConn

func setOption(raw rawConn, level, option, value int) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); e != nil {
		return e
	}
	return err
}

// setConnOption sets an option of an open socket.
func setConnOption(c any, level, option, value int) error {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return setOption(raw, level, option, value)
}

// quickRetransmit keeps TCP from waiting minutes after a cut: kernels from 6.15
// take TCP_RTO_MAX_MS, others retransmit when they do.
func quickRetransmit(c any) {
	const tcpRTOMaxMs = 44
	_ = setConnOption(c, unix.IPPROTO_TCP, tcpRTOMaxMs, 1000)
}
