package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"golang.org/x/sys/unix"
)

// Stack is a port, for observation only, that shows what the host's IP stack
// accepted for itself: past routing, reassembly and every INPUT rule, before any
// socket. Frames have an empty MAC header; IPv6 packets have lost their
// extension headers. Protocols: ICMP, IGMP, TCP, UDP, GRE, SCTP, ICMPv6.
func (n *Namespace) Stack() *Port {
	return &Port{spec: PortSpec{Name: "stack"}, ns: n, stack: true}
}

var stackProtocols = map[int][]int{
	unix.AF_INET:  {unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_GRE, unix.IPPROTO_SCTP},
	unix.AF_INET6: {unix.IPPROTO_ICMPV6, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_GRE, unix.IPPROTO_SCTP},
}

// stackSniffer reads raw IP sockets, one a protocol.
type stackSniffer struct {
	p       *Port
	sockets []rawSocket
}

type rawSocket struct{ fd, family, protocol int }

func newStackSniffer(p *Port) (*stackSniffer, error) {
	s := &stackSniffer{p: p}
	err := p.ns.Do(func() error {
		for family, protocols := range stackProtocols {
			for _, protocol := range protocols {
				fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
				if err != nil {
					return err
				}
				s.sockets = append(s.sockets, rawSocket{fd, family, protocol})
				err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
				if family == unix.AF_INET6 {
					err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("observe %s: %w", p, err)
	}
	return s, nil
}

func (s *stackSniffer) port() *Port { return s.p }

func (s *stackSniffer) drain(into []Captured) ([]Captured, error) {
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	for _, raw := range s.sockets {
		for {
			n, oobn, _, from, err := unix.Recvmsg(raw.fd, buf, oob, 0)
			if err == unix.EINTR {
				continue
			}
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				return into, fmt.Errorf("observe %s: %w", s.p, err)
			}
			into = append(into, Captured{Port: s.p, Frame: raw.frame(buf[:n], oob[:oobn], from)})
		}
	}
	return into, nil
}

func (s *stackSniffer) close() {
	for _, raw := range s.sockets {
		unix.Close(raw.fd)
	}
	s.sockets = nil
}

// frame puts a received packet behind a MAC header. IPv4 raw sockets give the IP
// header, IPv6 ones give the addresses beside the payload.
func (r rawSocket) frame(data, oob []byte, from unix.Sockaddr) frame.Frame {
	if r.family == unix.AF_INET {
		return frame.Build(frame.Ethernet{Type: frame.TypeIPv4}, frame.Payload(data))
	}
	ip := frame.IPv6{NextHeader: uint8(r.protocol), Src: netip.IPv6Unspecified(), Dst: netip.IPv6Unspecified()}
	if sa, ok := from.(*unix.SockaddrInet6); ok {
		ip.Src = netip.AddrFrom16(sa.Addr)
	}
	if msgs, err := unix.ParseSocketControlMessage(oob); err == nil {
		for _, m := range msgs {
			if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
				ip.Dst = netip.AddrFrom16([16]byte(m.Data))
			}
		}
	}
	return frame.Build(frame.Ethernet{Type: frame.TypeIPv6}, ip, frame.Payload(data))
}
