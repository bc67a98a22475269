package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A fence tells when a frame that has not arrived will not arrive.
//
// Frames between veths wait in one queue per CPU, the backlog, which the kernel
// works off first in, first out, on the CPU that sent. A fence frame sent over a
// loopback from the same CPU stands in the same queue, behind every probe; no
// firewall of the host sees it. When it comes back, everything ahead of it has
// moved one hop: a probe that needs another is queued again, in front of the
// next fence. So after as many fences as a frame can have hops, with those of
// the ARP or ND exchange that a routed frame waits for, everything has arrived.
//
// This holds where the path works on the frames themselves. A backend that hands
// them to a process needs Observatory.Settle besides, and so does a machine that
// steers packets to other CPUs (RPS).
type fence struct {
	ns      *Namespace
	fd      int
	seq     uint64
	steered bool
}

// fenceHops covers: VM, bridge, VM (2); routed into a second bridge (2); both
// with an ARP exchange on each side (8). The rest is margin; a hop takes some
// 10 microseconds.
const fenceHops = 16

// steeredSettle is waited in place of certainty on machines with RPS.
const steeredSettle = 50 * time.Millisecond

func newFence() (*fence, error) {
	ns, err := newNamespace("fence", func() error { return nil })
	if err != nil {
		return nil, err
	}
	f := &fence{ns: ns, fd: -1, steered: packetsAreSteered()}
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f.fd = fd
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return bindPacket(fd, "lo", fenceType)
	})
	if err != nil {
		f.close()
		return nil, fmt.Errorf("fence: %w", err)
	}
	return f, nil
}

// fenceType is the EtherType for local experiments (IEEE 802).
const fenceType = 0x88b5

// pass sends a fence and waits until it is through. It runs on the thread that
// sent the probes, which must not change its CPU.
func (f *fence) pass() error {
	// A full backlog drops fences as well: then once more, still behind all else.
	for range 10 {
		f.seq++
		var b [60]byte
		binary.BigEndian.PutUint16(b[12:], fenceType)
		binary.BigEndian.PutUint64(b[14:], f.seq)
		if _, err := unix.Write(f.fd, b[:]); err != nil {
			return fmt.Errorf("send a fence: %w", err)
		}
		if through, err := f.await(300 * time.Millisecond); through || err != nil {
			return err
		}
	}
	return errors.New("no fence came back within 3 s: the backlog of this CPU is stuck or overflows (see /proc/net/softnet_stat), and no verdict can be given")
}

// await reads fences until the last one sent.
func (f *fence) await(patience time.Duration) (bool, error) {
	var in [64]byte
	for deadline := time.Now().Add(patience); ; {
		fds := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(time.Until(deadline), 0)/time.Millisecond))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, fmt.Errorf("wait for a fence: %w", err)
		case n == 0:
			return false, nil
		}
		k, err := unix.Read(f.fd, in[:])
		if err != nil && err != unix.EINTR {
			return false, fmt.Errorf("receive a fence: %w", err)
		}
		if k >= 22 && binary.BigEndian.Uint64(in[14:]) == f.seq {
			return true, nil
		}
	}
}

// settle waits until all that was sent from this thread has arrived or died.
func (f *fence) settle(extra time.Duration) error {
	hops := func() error {
		for range fenceHops {
			if err := f.pass(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := hops(); err != nil {
		return err
	}
	if f.steered {
		extra = max(extra, steeredSettle)
	}
	if extra <= 0 {
		return nil
	}
	time.Sleep(extra)
	return hops()
}

func (f *fence) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
	f.ns.close()
}
