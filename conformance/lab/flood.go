package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FloodSpec describes a paced stream of UDP datagrams, whose numbers show what
// was lost and when: to see whether a change of rules interrupts allowed traffic.
type FloodSpec struct {
	From, To Node
	Service  Service    // UDP
	Dst      netip.Addr // default: To's first of the family
	Rate     int        // datagrams a second; default 5000
	Size     int        // bytes of payload, at least 8; default 64
	SrcPort  uint16     // default: the kernel's choice
}

// FloodStats is what came of a flood.
type FloodStats struct {
	Sent       int
	Refused    int // the sender's own kernel did not take them
	Received   int // without duplicates
	Duplicates int
	Reordered  int // arrived after a later one
	// Lost are the runs of numbers that never arrived, in order.
	Lost []LostRun
	// LongestPause is the longest time between two arrivals.
	LongestPause time.Duration
}

// LostRun is a run of datagrams that did not arrive. At is when the first of
// them was due, from the start of the flood.
type LostRun struct {
	At    time.Duration
	Count int
}

// LostTotal is how many did not arrive.
func (s FloodStats) LostTotal() int {
	n := 0
	for _, r := range s.Lost {
		n += r.Count
	}
	return n
}

// String is one line, with the first runs lost.
func (s FloodStats) String() string {
	text := fmt.Sprintf("sent %d, received %d, lost %d, duplicates %d, reordered %d, longest pause %v",
		s.Sent, s.Received, s.LostTotal(), s.Duplicates, s.Reordered, s.LongestPause.Round(time.Millisecond))
	for i, r := range s.Lost {
		if i == 5 {
			return text + ", ..."
		}
		text += fmt.Sprintf("; %d at %v", r.Count, r.At.Round(time.Millisecond))
	}
	return text
}

// Flood is a running stream.
type Flood struct {
	spec   FloodSpec
	cancel context.CancelFunc
	in     *net.UDPConn
	out    *net.UDPConn
	sender sync.WaitGroup
	reader sync.WaitGroup

	mu      sync.Mutex
	stats   FloodStats
	seen    []bool // by number
	highest int
	last    time.Time
}

// StartFlood starts the stream and returns when the first datagram has arrived,
// or with an error when none has within 2 s.
func StartFlood(ctx context.Context, spec FloodSpec) (*Flood, error) {
	if spec.Rate == 0 {
		spec.Rate = 5000
	}
	if spec.Size == 0 {
		spec.Size = 64
	}
	if !spec.Dst.IsValid() {
		spec.Dst = spec.To.Addr(spec.Service.Family)
	}
	f := &Flood{spec: spec, highest: -1}
	if err := f.open(ctx); err != nil {
		return nil, fmt.Errorf("flood from %s to %s: %w", spec.From.Name(), spec.To.Name(), err)
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.reader.Go(f.receive)
	f.sender.Go(func() { f.send(ctx) })
	for deadline := time.Now().Add(2 * time.Second); f.Stats().Received == 0; {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("flood from %s to %s: nothing arrives: %s", spec.From.Name(), spec.To.Name(), f.Stop())
		}
		time.Sleep(time.Millisecond)
	}
	return f, nil
}

func (f *Flood) open(ctx context.Context) error {
	s := f.spec.Service
	in, err := f.spec.To.ListenPacket(ctx, s.network(), s.at(f.spec.Dst))
	if err != nil {
		return err
	}
	f.in = in.(*net.UDPConn)
	if err := setConnOption(f.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return errors.Join(err, in.Close())
	}
	// Not connected: an ICMP error must not stop the sender.
	out, err := f.spec.From.ListenPacket(ctx, s.network(), netip.AddrPortFrom(unspecified(f.spec.Dst), f.spec.SrcPort).String())
	if err != nil {
		return errors.Join(err, in.Close())
	}
	f.out = out.(*net.UDPConn)
	// What waits for address resolution counts against the send buffer: a small
	// one would stall the sender, which then catches up in a burst.
	if err := setConnOption(f.out, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveBuffer); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	return nil
}

func (f *Flood) send(ctx context.Context) {
	defer f.out.Close()
	stop := context.AfterFunc(ctx, func() { f.out.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	to := netip.AddrPortFrom(f.spec.Dst, f.spec.Service.Port)
	message := make([]byte, max(f.spec.Size, messageLen))
	start := time.Now()
	n := 0
	for ctx.Err() == nil {
		for due := int(time.Since(start).Seconds() * float64(f.spec.Rate)); n <= due; n++ {
			binary.BigEndian.PutUint64(message, uint64(n))
			_, err := f.out.WriteToUDPAddrPort(message, to)
			if err != nil && ctx.Err() != nil {
				return // stopped in the middle: it was never sent
			}
			f.mu.Lock()
			f.stats.Sent++
			if err != nil {
				f.stats.Refused++
			}
			f.mu.Unlock()
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func (f *Flood) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := f.in.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < messageLen {
			continue
		}
		f.count(int(binary.BigEndian.Uint64(buf)), time.Now())
	}
}

func (f *Flood) count(number int, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number < 0 || number > f.stats.Sent+f.spec.Rate {
		return // not one of ours
	}
	for len(f.seen) <= number {
		f.seen = append(f.seen, false)
	}
	if f.seen[number] {
		f.stats.Duplicates++
		return
	}
	f.seen[number] = true
	f.stats.Received++
	if number < f.highest {
		f.stats.Reordered++
	}
	f.highest = max(f.highest, number)
	if !f.last.IsZero() {
		f.stats.LongestPause = max(f.stats.LongestPause, now.Sub(f.last))
	}
	f.last = now
}

// Stats is the state of a running flood. What is under way counts as lost.
func (f *Flood) Stats() FloodStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Lost = nil
	for i := range s.Sent {
		if i < len(f.seen) && f.seen[i] {
			continue
		}
		if k := len(s.Lost) - 1; k >= 0 && i > 0 && (i > len(f.seen) || !f.seen[i-1]) {
			s.Lost[k].Count++
			continue
		}
		s.Lost = append(s.Lost, LostRun{At: time.Duration(i) * time.Second / time.Duration(f.spec.Rate), Count: 1})
	}
	return s
}

// Stop ends the flood and gives what is under way 200 ms to arrive.
func (f *Flood) Stop() FloodStats {
	f.cancel()
	f.sender.Wait()
	for deadline := time.Now().Add(200 * time.Millisecond); time.Now().Before(deadline); {
		f.mu.Lock()
		done := f.stats.Received >= f.stats.Sent
		f.mu.Unlock()
		if done {
			break
		}
		time.Sleep(time.Millisecond)
	}
	f.in.Close()
	f.reader.Wait()
	return f.Stats()
}
