package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/ringwall/ringwall/core"
	"golang.org/x/sys/unix"
)

// Node is an end of real traffic: a Station or a Host.
type Node interface {
	Name() string
	// Addr is the first address of the family, the zero Addr when there is none.
	Addr(core.Family) netip.Addr
	Do(func() error) error
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Service is what is asked of a node: a protocol, a port, a family.
type Service struct {
	Protocol core.Protocol
	Port     uint16
	Family   core.Family
}

// TCP, UDP and SCTP are services over IPv4; see Over. ICMP and ICMPv6 are ping.
func TCP(port uint16) Service  { return Service{core.ProtocolTCP, port, core.IPv4} }
func UDP(port uint16) Service  { return Service{core.ProtocolUDP, port, core.IPv4} }
func SCTP(port uint16) Service { return Service{core.ProtocolSCTP, port, core.IPv4} }
func ICMP() Service            { return Service{core.ProtocolICMP, 0, core.IPv4} }
func ICMPv6() Service          { return Service{core.ProtocolICMPv6, 0, core.IPv6} }

// Over is the same service in another family; ICMP and ICMPv6 have but one.
func (s Service) Over(f core.Family) Service {
	if s.Protocol.In(f) {
		s.Family = f
	}
	return s
}

// String is "tcp/80", "tcp/80 ipv6", "icmp".
func (s Service) String() string {
	if s.Protocol.IsICMP() {
		return s.Protocol.String()
	}
	text := s.Protocol.String() + "/" + strconv.Itoa(int(s.Port))
	if s.Family == core.IPv6 {
		text += " ipv6"
	}
	return text
}

// network is the Go name of the protocol in the family: tcp4, ip6:sctp, ...
func (s Service) network() string {
	digit := map[core.Family]string{core.IPv4: "4", core.IPv6: "6"}[s.Family]
	switch s.Protocol {
	case core.ProtocolTCP:
		return "tcp" + digit
	case core.ProtocolUDP:
		return "udp" + digit
	}
	return "ip" + digit + ":" + strconv.Itoa(int(s.Protocol))
}

func (s Service) at(a netip.Addr) string { return netip.AddrPortFrom(a, s.Port).String() }

// Echo is a server that returns what it gets. Kernels answer ping by
// themselves.
type Echo struct{ closers []func() error }

// StartEcho serves on the node's first address of the service's family.
func StartEcho(ctx context.Context, n Node, services ...Service) (*Echo, error) {
	e := &Echo{}
	for _, s := range services {
		if err := e.start(ctx, n, s); err != nil {
			e.Close()
			return nil, fmt.Errorf("serve %s on %s: %w", s, n.Name(), err)
		}
	}
	return e, nil
}

func (e *Echo) start(ctx context.Context, n Node, s Service) error {
	if s.Protocol.IsICMP() {
		return nil
	}
	a := n.Addr(s.Family)
	if !a.IsValid() {
		return fmt.Errorf("no %s address: %w", s.Family, core.ErrInvalid)
	}
	switch s.Protocol {
	case core.ProtocolTCP:
		l, err := n.Listen(ctx, s.network(), s.at(a))
		if err != nil {
			return err
		}
		e.closers = append(e.closers, l.Close)
		go acceptEcho(l)
	case core.ProtocolUDP:
		c, err := n.ListenPacket(ctx, s.network(), s.at(a))
		if err != nil {
			return err
		}
		e.closers = append(e.closers, c.Close)
		go answerPackets(c, func(b []byte) []byte { return b })
	case core.ProtocolSCTP:
		c, err := n.ListenPacket(ctx, s.network(), a.String())
		if err != nil {
			return err
		}
		e.closers = append(e.closers, c.Close)
		go answerPackets(c, func(b []byte) []byte { return sctpAnswer(b, s.Port) })
	default:
		return fmt.Errorf("no echo for protocol %s: %w", s.Protocol, core.ErrUnsupported)
	}
	return nil
}

// Close ends the servers. Connections accepted before end with their clients.
func (e *Echo) Close() error {
	var err error
	for _, c := range e.closers {
		err = errors.Join(err, c())
	}
	return err
}

func acceptEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				// A client that a firewall cut off never says goodbye.
				c.SetReadDeadline(time.Now().Add(30 * time.Second))
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func answerPackets(c net.PacketConn, answer func([]byte) []byte) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		if out := answer(buf[:n]); out != nil {
			c.WriteTo(out, from)
		}
	}
}

// ConnectOptions narrow a connection attempt.
type ConnectOptions struct {
	Timeout time.Duration // default 1 s
	SrcPort uint16        // default: the kernel's choice
	Source  netip.Addr    // default: the kernel's choice
	Payload int           // bytes to echo; default 8
}

// Connect asks a service at dst and returns nil when the echo came back.
// Datagrams are repeated until the timeout, as one may be lost to address
// resolution.
func Connect(ctx context.Context, from Node, dst netip.Addr, s Service, o ConnectOptions) error {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Payload == 0 {
		o.Payload = 8
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var err error
	switch {
	case s.Protocol.IsICMP():
		_, err = Ping(ctx, from, dst, PingOptions{Timeout: o.Timeout, Size: o.Payload, Source: o.Source})
	case s.Protocol == core.ProtocolSCTP:
		err = sctpConnect(ctx, from, dst, s, o)
	default:
		err = connectEcho(ctx, from, dst, s, o)
	}
	if err != nil {
		return fmt.Errorf("%s from %s to %s: %w", s, from.Name(), dst, err)
	}
	return nil
}

// repeatEvery is how often an unanswered datagram is sent again.
const repeatEvery = 40 * time.Millisecond

func connectEcho(ctx context.Context, from Node, dst netip.Addr, s Service, o ConnectOptions) error {
	c, err := dialFrom(ctx, from, dst, s, o)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	message, buf := make([]byte, o.Payload), make([]byte, o.Payload)
	if s.Protocol == core.ProtocolTCP {
		if _, err := c.Write(message); err != nil {
			return err
		}
		for got := 0; got < o.Payload; {
			n, err := c.Read(buf)
			if err != nil {
				return err
			}
			got += n
		}
		return nil
	}
	for {
		if _, err := c.Write(message); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(repeatEvery))
		n, err := c.Read(buf)
		if err == nil && n == o.Payload {
			return nil
		}
		if e := ctx.Err(); e != nil {
			return e
		}
		if err != nil && !isTimeout(err) {
			return err // such as "port unreachable"
		}
	}
}

// dialFrom connects with a reusable source port, so that a test can come again
// with the same one.
func dialFrom(ctx context.Context, from Node, dst netip.Addr, s Service, o ConnectOptions) (c net.Conn, err error) {
	var local net.Addr
	if o.SrcPort != 0 || o.Source.IsValid() {
		source := netip.AddrPortFrom(o.Source, o.SrcPort)
		if !o.Source.IsValid() {
			source = netip.AddrPortFrom(unspecified(dst), o.SrcPort)
		}
		if s.Protocol == core.ProtocolTCP {
			local = net.TCPAddrFromAddrPort(source)
		} else {
			local = net.UDPAddrFromAddrPort(source)
		}
	}
	d := net.Dialer{LocalAddr: local, Control: func(_, _ string, raw rawConn) error {
		return setOption(raw, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}}
	err = from.Do(func() error {
		c, err = d.DialContext(ctx, s.network(), s.at(dst))
		return err
	})
	return c, err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
