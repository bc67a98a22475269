package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/conformance/lab/frame"
)

// SCTP is spoken over raw IP sockets, since kernels rarely have it: an INIT that
// is answered by an INIT ACK counts as connected. That is what a firewall and
// conntrack look at.

const sctpInitAck = 2

// sctpAnswer is the INIT ACK to an INIT for port, else nil.
func sctpAnswer(packet []byte, port uint16) []byte {
	if len(packet) < 20 || packet[12] != frame.SCTPInit || binary.BigEndian.Uint16(packet[2:]) != port {
		return nil
	}
	return frame.Build(frame.SCTP{
		SrcPort: port, DstPort: binary.BigEndian.Uint16(packet),
		Tag:   binary.BigEndian.Uint32(packet[16:]), // the initiate tag of the INIT
		Chunk: sctpInitAck,
		// tag, window, streams out and in, first TSN, and the state cookie that
		// RFC 9260 demands
		Value: []byte{0, 0, 0, 2, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1, 0, 7, 0, 8, 1, 2, 3, 4},
	})
}

func sctpConnect(ctx context.Context, from Node, dst netip.Addr, s Service, o ConnectOptions) error {
	local := unspecified(dst)
	if o.Source.IsValid() {
		local = o.Source
	}
	c, err := from.ListenPacket(ctx, s.network(), local.String())
	if err != nil {
		return err
	}
	defer c.Close()
	port := o.SrcPort
	if port == 0 {
		port = uint16(32768 + time.Now().UnixNano()%28000)
	}
	init := frame.Build(frame.SCTP{SrcPort: port, DstPort: s.Port, Chunk: frame.SCTPInit})
	buf := make([]byte, 1<<12)
	for {
		if _, err := c.WriteTo(init, &net.IPAddr{IP: dst.AsSlice()}); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(repeatEvery))
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil && !isTimeout(err) {
				return err
			}
			if err != nil {
				break
			}
			if n >= 13 && binary.BigEndian.Uint16(buf[2:]) == port && buf[12] == sctpInitAck {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("no INIT ACK: %w", err)
		}
	}
}
