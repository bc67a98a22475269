package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// PingOptions of one ping.
type PingOptions struct {
	Timeout time.Duration // default 1 s
	Size    int           // bytes of payload; default 8
	Source  netip.Addr    // default: the kernel's choice
}

// Ping sends echo requests until one is answered, and returns the round-trip
// time of that one.
func Ping(ctx context.Context, from Node, dst netip.Addr, o PingOptions) (time.Duration, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	if o.Size == 0 {
		o.Size = 8
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c, err := pingSocket(from, dst, o.Source)
	if err != nil {
		return 0, fmt.Errorf("ping from %s: %w", from.Name(), err)
	}
	defer c.Close()
	buf := make([]byte, 1<<16)
	for seq := 1; ; seq++ {
		sent := time.Now()
		if err := sendEcho(c, dst, seq, o.Size); err != nil {
			return 0, fmt.Errorf("ping %s from %s: %w", dst, from.Name(), err)
		}
		c.SetReadDeadline(time.Now().Add(repeatEvery))
		if n, _, err := c.ReadFrom(buf); err == nil && isEchoReply(buf[:n], dst) {
			return time.Since(sent), nil
		}
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("ping %s from %s: no answer to %d requests: %w", dst, from.Name(), seq, err)
		}
	}
}

// pingSocket is the kernel's own kind for this: it gets the answers to its own
// requests only (net.ipv4.ping_group_range).
func pingSocket(from Node, dst, source netip.Addr) (c *icmp.PacketConn, err error) {
	network := "udp4"
	if dst.Is6() {
		network = "udp6"
	}
	if !source.IsValid() {
		source = unspecified(dst)
	}
	err = from.Do(func() error {
		c, err = icmp.ListenPacket(network, source.String())
		return err
	})
	return c, err
}

func sendEcho(c *icmp.PacketConn, dst netip.Addr, seq, size int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: seq, Data: make([]byte, size)}}
	if dst.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil) // the kernel fills in identifier and checksum
	if err != nil {
		return err
	}
	_, err = c.WriteTo(b, &net.UDPAddr{IP: dst.AsSlice()})
	return err
}

func isEchoReply(b []byte, dst netip.Addr) bool {
	protocol := 1
	if dst.Is6() {
		protocol = 58
	}
	m, err := icmp.ParseMessage(protocol, b)
	return err == nil && (m.Type == ipv4.ICMPTypeEchoReply || m.Type == ipv6.ICMPTypeEchoReply)
}
