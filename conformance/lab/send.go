package lab

import (
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"golang.org/x/sys/unix"
)

// sendSocket puts frames on any interface of the namespace. There is one, kept
// until the namespace closes: to close a packet socket costs an RCU grace period,
// some 10 ms. It has protocol 0 and so never receives.
func (n *Namespace) sendSocket() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.out >= 0 {
		return n.out, nil
	}
	err := n.Do(func() (err error) {
		n.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		n.out = -1
		return -1, fmt.Errorf("open a packet socket in %s: %w", n.name, err)
	}
	return n.out, nil
}

// sender is a port's interface as a destination of frames.
type sender struct {
	p  *Port
	fd int
	to unix.SockaddrLinklayer
}

// newSender looks the interface up: its index changes when a station restarts.
func newSender(p *Port) (*sender, error) {
	if p.stack {
		return nil, fmt.Errorf("send at %s: a stack only observes; use Host.Port", p)
	}
	fd, err := p.ns.sendSocket()
	if err != nil {
		return nil, err
	}
	index, err := interfaceIndex(fd, p.spec.Name)
	if err != nil {
		return nil, fmt.Errorf("send at %s: %w", p, err)
	}
	return &sender{p: p, fd: fd, to: unix.SockaddrLinklayer{Ifindex: index}}, nil
}

func (s *sender) send(f frame.Frame) error {
	for {
		err := unix.Sendto(s.fd, f, 0, &s.to)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send at %s: %s: %w", s.p, f, err)
		}
		return nil
	}
}

// SendFrames puts frames on a port's wire, in order, and does not look where
// they go. Use an Observatory to see.
func (p *Port) SendFrames(frames ...frame.Frame) error {
	s, err := newSender(p)
	if err != nil {
		return err
	}
	for _, f := range frames {
		if err := s.send(f); err != nil {
			return err
		}
	}
	return nil
}
