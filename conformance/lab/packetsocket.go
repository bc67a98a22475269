package lab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"golang.org/x/sys/unix"
)

// receiveBuffer of sniffers and flood receivers, in bytes; the FORCE option
// takes it past net.core.rmem_max.
const receiveBuffer = 16 << 20

// Captured is a frame that came in at a port. Frames that the port itself sent
// are not captured.
type Captured struct {
	Port  *Port
	Frame frame.Frame
}

// sniffer yields what has arrived, without waiting.
type sniffer interface {
	port() *Port
	drain(into []Captured) ([]Captured, error)
	close()
}

// packetSniffer reads an interface before its IP stack does. A veth hands up
// every frame, whatever its destination. Interfaces are not made promiscuous: on
// a bridge that would make the host receive what merely passes by.
type packetSniffer struct {
	p   *Port
	fd  int
	buf []byte
	oob []byte
}

func newPacketSniffer(p *Port) (*packetSniffer, error) {
	s := &packetSniffer{p: p, fd: -1, buf: make([]byte, 1<<16), oob: make([]byte, unix.CmsgSpace(auxDataLen))}
	err := p.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.fd = fd
		// Bound last: until then protocol 0 receives nothing.
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
			bindPacket(fd, p.spec.Name, unix.ETH_P_ALL),
		)
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("capture at %s: %w", p, err)
	}
	return s, nil
}

// bindPacket acts in the namespace of the calling thread.
func bindPacket(fd int, device string, protocol uint16) error {
	index, err := interfaceIndex(fd, device)
	if err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: htons(protocol)})
}

func interfaceIndex(fd int, device string) (int, error) {
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("interface %s: %w", device, err)
	}
	return int(ifr.Uint32()), nil
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (s *packetSniffer) port() *Port { return s.p }

func (s *packetSniffer) drain(into []Captured) ([]Captured, error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.fd, s.buf, s.oob, 0)
		switch {
		case err == unix.EAGAIN:
			return into, s.checkOverflow()
		case err == unix.EINTR:
			continue
		case err == unix.ENETDOWN: // the interface went down meanwhile; what came before is still queued
			continue
		case err != nil:
			return into, fmt.Errorf("capture at %s: %w", s.p, err)
		}
		into = append(into, Captured{Port: s.p, Frame: restoreTag(s.buf[:n], s.oob[:oobn])})
	}
}

// checkOverflow keeps a full buffer from passing for "nothing arrived".
// PACKET_STATISTICS resets when it is read.
func (s *packetSniffer) checkOverflow() error {
	st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("capture at %s: statistics: %w", s.p, err)
	}
	if st.Drops > 0 {
		return fmt.Errorf("capture at %s: %d frames did not fit in the buffer; send less at once", s.p, st.Drops)
	}
	return nil
}

func (s *packetSniffer) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// auxDataLen is the size of struct tpacket_auxdata: status, length, captured
// length (32 bits each), MAC and network offset, VLAN tag and its TPID (16 each).
const auxDataLen = 20

// restoreTag copies a received frame and puts back the outer VLAN tag, which the
// kernel takes off and reports beside the data.
func restoreTag(data, oob []byte) frame.Frame {
	f := append(make(frame.Frame, 0, len(data)+4), data...)
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return f
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxDataLen {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tci := binary.NativeEndian.Uint16(m.Data[16:])
		tag := frame.VLAN{ID: tci & 0xfff, Priority: uint8(tci >> 13), DropEligible: tci&0x1000 != 0}
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tag.TPID = binary.NativeEndian.Uint16(m.Data[18:])
		}
		return f.Tagged(tag)
	}
	return f
}
