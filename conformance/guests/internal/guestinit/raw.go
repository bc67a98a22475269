package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openRaw brings the NIC up and opens it for whole frames.
func openRaw(born core.MAC) (*packet.Conn, error) {
	n, err := findNIC(born)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(n.link); err != nil {
		return nil, err
	}
	ifi, err := net.InterfaceByIndex(n.link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	return packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
}

// writeFrame sends the frame as it is; the address is only there for the
// kernel's argument check.
func writeFrame(c *packet.Conn, frame []byte) error {
	if len(frame) < 14 {
		return fmt.Errorf("a frame of %d bytes has no Ethernet header", len(frame))
	}
	_, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])})
	return err
}

func send(s probe.Send) error {
	c, err := openRaw(s.NIC)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, f := range s.Frames {
		if err := writeFrame(c, f); err != nil {
			return err
		}
	}
	return nil
}

// floods are the senders that run.
type floods struct {
	sent atomic.Uint64

	mu   sync.Mutex
	quit chan struct{} // closed to stop those that run
}

func newFloods() *floods { return &floods{quit: make(chan struct{})} }

func (f *floods) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.quit)
	f.quit = make(chan struct{})
}

func (a *agent) startFlood(spec probe.Flood) error {
	c, err := openRaw(spec.NIC)
	if err != nil {
		return err
	}
	a.floods.mu.Lock()
	quit := a.floods.quit
	a.floods.mu.Unlock()
	if spec.Interval == 0 {
		spec.Interval = time.Microsecond // leave the processor to others now and then
	}
	go func() {
		defer c.Close()
		for tick := time.NewTicker(spec.Interval); ; {
			if writeFrame(c, spec.Frame) == nil {
				a.floods.sent.Add(1)
			}
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return nil
}

// capture records frames of one NIC.
type capture struct {
	conn *packet.Conn
	mu   sync.Mutex
	got  probe.Captured
}

func (a *agent) startCapture(born core.MAC) error {
	c, err := openRaw(born)
	if err != nil {
		return err
	}
	if err := errors.Join(c.SetPromiscuous(true), ignoreOutgoing(c)); err != nil {
		c.Close()
		return err
	}
	fresh := &capture{conn: c}
	a.mu.Lock()
	old := a.captures[born]
	a.captures[born] = fresh
	a.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	go fresh.run()
	return nil
}

func ignoreOutgoing(c *packet.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	return errors.Join(err, failed)
}

func (c *capture) run() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := c.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		if len(c.got.Frames) < probe.MaxCaptured {
			c.got.Frames = append(c.got.Frames, append([]byte(nil), buf[:min(n, probe.MaxCaptureBytes)]...))
		} else {
			c.got.Lost++
		}
		c.mu.Unlock()
	}
}

func (a *agent) captured(born core.MAC) (probe.Captured, error) {
	a.mu.Lock()
	c := a.captures[born]
	a.mu.Unlock()
	if c == nil {
		return probe.Captured{}, fmt.Errorf("nothing is captured at NIC %s; start it first", born)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = probe.Captured{}
	return got, nil
}
