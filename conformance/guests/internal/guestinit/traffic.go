package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/ringwall/ringwall/conformance/guests/probe"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ping uses the kernel's own echo sockets, which hand each its own replies.
func ping(p probe.Ping) (probe.PingResult, error) {
	network, echo, proto, any := "udp4", icmp.Type(ipv4.ICMPTypeEcho), 1, "0.0.0.0"
	if p.To.Is6() {
		network, echo, proto, any = "udp6", ipv6.ICMPTypeEchoRequest, 58, "::"
	}
	if p.From.IsValid() {
		any = p.From.String()
	}
	c, err := icmp.ListenPacket(network, any)
	if err != nil {
		return probe.PingResult{}, err
	}
	defer c.Close()
	var r probe.PingResult
	for seq := range max(p.Count, 1) {
		m := icmp.Message{Type: echo, Body: &icmp.Echo{Seq: seq, Data: []byte("ringwall guest")}}
		b, err := m.Marshal(nil)
		if err != nil {
			return r, err
		}
		deadline := time.Now().Add(p.Timeout)
		c.SetDeadline(deadline)
		if _, err := c.WriteTo(b, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.To, 0))); err != nil {
			time.Sleep(time.Until(deadline)) // no route, or no neighbour yet
			continue
		}
		r.Sent++
		if awaitReply(c, proto, seq) {
			r.Received++
		}
	}
	return r, nil
}

func awaitReply(c *icmp.PacketConn, proto, seq int) bool {
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return false
		}
		m, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.Seq == seq {
			return true
		}
	}
}

func dial(d probe.Dial) probe.DialResult {
	dialer := net.Dialer{Timeout: d.Timeout}
	if d.From.IsValid() {
		if d.Network == "tcp" {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(d.From)
		} else {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(d.From)
		}
	}
	deadline := time.Now().Add(d.Timeout)
	c, err := dialer.Dial(d.Network, d.To.String())
	if err != nil {
		return probe.DialResult{Failure: err.Error()}
	}
	defer c.Close()
	r := probe.DialResult{Connected: d.Network == "tcp"}
	buf := make([]byte, len(d.Payload))
	for time.Now().Before(deadline) {
		// A datagram may be lost while neighbours find each other: repeat it.
		wait := deadline
		if d.Network == "udp" {
			wait = time.Now().Add(d.Timeout / 4)
		}
		c.SetDeadline(wait)
		if _, err = io.WriteString(c, d.Payload); err == nil {
			if _, err = io.ReadFull(c, buf); err == nil {
				r.Reply = string(buf)
				if r.Reply != d.Payload {
					r.Failure = "the reply is not the payload"
				}
				return r
			}
		}
		if d.Network != "udp" || !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	r.Failure = fmt.Sprint(err)
	return r
}

func listen(l probe.Listen) error {
	address := fmt.Sprintf(":%d", l.Port)
	switch l.Network {
	case "tcp":
		ln, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
		return nil
	case "udp":
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo(buf[:n], from)
			}
		}()
		return nil
	}
	return fmt.Errorf("network %q: use tcp or udp", l.Network)
}
