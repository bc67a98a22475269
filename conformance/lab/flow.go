package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/core"
)

// FlowSpec describes a long-lived flow.
type FlowSpec struct {
	Client, Server Node
	Service        Service       // TCP or UDP
	ClientPort     uint16        // default: the kernel's choice
	Dst            netip.Addr    // default: the server's first of the family
	Interval       time.Duration // between messages of an end; default 10 ms
}

// End is one of the two ends of a flow.
type End int

const (
	Client End = iota
	Server
)

func (e End) String() string { return [...]string{"client", "server"}[e] }

// Flow is a connection on which both ends keep talking, each unasked, so that
// after a cut either may be the first to try again.
type Flow struct {
	spec   FlowSpec
	tuple  [2]netip.AddrPort // by End
	got    [2]atomic.Int64   // messages received, by End
	silent [2]atomic.Bool
	cancel context.CancelFunc
	close  []func() error
}

// StartFlow opens the flow and returns when each end has heard the other, or
// with an error when they have not within 2 s.
func StartFlow(ctx context.Context, spec FlowSpec) (*Flow, error) {
	if !spec.Dst.IsValid() {
		spec.Dst = spec.Server.Addr(spec.Service.Family)
	}
	if spec.Interval == 0 {
		spec.Interval = 10 * time.Millisecond
	}
	f := &Flow{spec: spec}
	ctx, f.cancel = context.WithCancel(ctx)
	if err := f.open(ctx); err != nil {
		f.Stop()
		return nil, fmt.Errorf("flow %s from %s to %s: %w", spec.Service, spec.Client.Name(), spec.Server.Name(), err)
	}
	return f, nil
}

func (f *Flow) open(ctx context.Context) error {
	var err error
	switch f.spec.Service.Protocol {
	case core.ProtocolTCP:
		err = f.openTCP(ctx)
	case core.ProtocolUDP:
		err = f.openUDP(ctx)
	default:
		err = fmt.Errorf("flows are tcp or udp: %w", core.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	if toServer, toClient := f.Progress(ctx, 2*time.Second); !toServer || !toClient {
		return fmt.Errorf("it does not get through (server heard the client: %v, client heard the server: %v)", toServer, toClient)
	}
	return nil
}

func (f *Flow) openTCP(ctx context.Context) error {
	s := f.spec.Service
	l, err := f.spec.Server.Listen(ctx, s.network(), s.at(f.spec.Dst))
	if err != nil {
		return err
	}
	defer l.Close()
	dialCtx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client, err := dialFrom(dialCtx, f.spec.Client, f.spec.Dst, s, ConnectOptions{SrcPort: f.spec.ClientPort})
	if err != nil {
		return err
	}
	f.close = append(f.close, client.Close)
	l.(*net.TCPListener).SetDeadline(time.Now().Add(2 * time.Second))
	server, err := l.Accept()
	if err != nil {
		return err
	}
	f.close = append(f.close, server.Close)
	f.tuple = [2]netip.AddrPort{addrPort(client.LocalAddr()), addrPort(server.LocalAddr())}
	for end, c := range []net.Conn{client, server} {
		quickRetransmit(c)
		go f.listen(ctx, End(end), c.Read)
		go f.talk(ctx, End(end), c.Write)
	}
	return nil
}

func (f *Flow) openUDP(ctx context.Context) error {
	s := f.spec.Service
	pc, err := f.spec.Server.ListenPacket(ctx, s.network(), s.at(f.spec.Dst))
	if err != nil {
		return err
	}
	server := pc.(*net.UDPConn)
	f.close = append(f.close, server.Close)
	client, err := dialFrom(ctx, f.spec.Client, f.spec.Dst, s, ConnectOptions{SrcPort: f.spec.ClientPort})
	if err != nil {
		return err
	}
	f.close = append(f.close, client.Close)
	f.tuple = [2]netip.AddrPort{addrPort(client.LocalAddr()), addrPort(server.LocalAddr())}
	go f.listen(ctx, Client, client.Read)
	go f.talk(ctx, Client, client.Write)
	// The server answers whoever it heard, as servers do, and keeps at it.
	var peer atomic.Pointer[netip.AddrPort]
	go f.listen(ctx, Server, func(b []byte) (int, error) {
		n, from, err := server.ReadFromUDPAddrPort(b)
		if err == nil {
			peer.Store(&from)
		}
		return n, err
	})
	go f.talk(ctx, Server, func(b []byte) (int, error) {
		to := peer.Load()
		if to == nil {
			return 0, nil
		}
		return server.WriteToUDPAddrPort(b, *to)
	})
	return nil
}

const messageLen = 8

// listen counts messages. An ICMP error read from a UDP socket is not the end.
func (f *Flow) listen(ctx context.Context, end End, read func([]byte) (int, error)) {
	buf := make([]byte, 4096)
	var bytes int64
	for ctx.Err() == nil {
		n, err := read(buf)
		bytes += int64(n)
		f.got[end].Store(bytes / messageLen)
		if err != nil && f.spec.Service.Protocol == core.ProtocolTCP {
			return
		}
	}
}

func (f *Flow) talk(ctx context.Context, end End, write func([]byte) (int, error)) {
	tick := time.NewTicker(f.spec.Interval)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		if !f.silent[end].Load() {
			// What cannot be sent now (a refusal, a full buffer after a cut) is
			// not sent later: what counts is what the other end hears.
			_, _ = write(binary.BigEndian.AppendUint64(nil, n))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Ends are the addresses and ports of client and server.
func (f *Flow) Ends() (client, server netip.AddrPort) { return f.tuple[Client], f.tuple[Server] }

// Silence makes an end stop talking, or talk again; it goes on listening.
func (f *Flow) Silence(end End, silent bool) { f.silent[end].Store(silent) }

// Received is how many messages an end has heard.
func (f *Flow) Received(end End) int64 { return f.got[end].Load() }

// Progress says which ends hear something new. It returns as soon as both have,
// and after d at the latest: a flow that is cut takes all of d.
func (f *Flow) Progress(ctx context.Context, d time.Duration) (atServer, atClient bool) {
	client, server := f.Received(Client), f.Received(Server)
	deadline := time.After(d)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		atServer, atClient = f.Received(Server) > server, f.Received(Client) > client
		if atServer && atClient {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// Stop ends the flow.
func (f *Flow) Stop() {
	f.cancel()
	for _, c := range f.close {
		_ = c()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmapped(a.AddrPort())
	case *net.UDPAddr:
		return unmapped(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
