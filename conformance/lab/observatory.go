package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/conformance/lab/frame"
	"golang.org/x/sync/errgroup"
)

// Observatory watches a set of ports while probes are sent. Everything that
// comes in at any of them is seen, so that a frame that leaks to a third port is
// noticed. It goes blind to a station that is stopped: make a new one after
// Start.
type Observatory struct {
	// Settle is waited after each wave, besides the fence: set it for a backend
	// that decides on packets outside the kernel.
	Settle time.Duration

	mu       sync.Mutex
	closed   bool
	sniffers []sniffer
	fence    *fence
}

// Probe is one frame to send.
type Probe struct {
	Name  string // for messages
	From  *Port
	Frame frame.Frame
	// Match tells whether a captured frame is this one. By default it is when
	// the packet is the same but for what bridging and routing change: see
	// HasToken for packets that change more.
	Match func(Captured) bool
}

// Sighting says where a probe was seen.
type Sighting struct {
	Probe   Probe
	Packets []Captured // in order for each port; duplicates included
}

// Observe opens a capture at every port. Close it.
func Observe(ports ...*Port) (*Observatory, error) {
	f, err := newFence()
	if err != nil {
		return nil, err
	}
	o := &Observatory{fence: f}
	for _, p := range ports {
		s, err := newSniffer(p)
		if err != nil {
			o.Close()
			return nil, err
		}
		o.sniffers = append(o.sniffers, s)
	}
	return o, nil
}

func newSniffer(p *Port) (sniffer, error) {
	if p.stack {
		return newStackSniffer(p)
	}
	return newPacketSniffer(p)
}

// Close ends the captures.
func (o *Observatory) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	var g errgroup.Group
	g.SetLimit(closeAtOnce)
	g.Go(func() error { o.fence.close(); return nil })
	for _, s := range o.sniffers {
		g.Go(func() error { s.close(); return nil })
	}
	g.Wait()
}

// closeAtOnce: every packet socket waits for an RCU grace period when it is
// closed, but all that wait at the same time wait for the same one.
const closeAtOnce = 128

// Send sends the probes in order and says where each was seen; the result has
// the order of the probes. An error means that there is no verdict.
//
// Probes that look alike on arrival are told apart by time: the later one is
// sent when the earlier has arrived or died.
func (o *Observatory) Send(ctx context.Context, probes ...Probe) ([]Sighting, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, errors.New("the observatory is closed")
	}
	seen := make([]Sighting, len(probes))
	senders := map[*Port]*sender{}
	keys := make([]string, len(probes))
	for i, p := range probes {
		seen[i].Probe = p
		keys[i] = signature(p.Frame)
		if p.From == nil {
			return nil, fmt.Errorf("probe %q: From is missing", p.Name)
		}
		if senders[p.From] == nil {
			s, err := newSender(p.From)
			if err != nil {
				return nil, fmt.Errorf("probe %q: %w", p.Name, err)
			}
			senders[p.From] = s
		}
	}
	if _, err := o.drain(nil); err != nil { // what came in before is none of theirs
		return nil, err
	}
	err := onOneCPU(func(cpu int) error {
		for first := 0; first < len(probes); {
			if err := ctx.Err(); err != nil {
				return err
			}
			last := waveEnd(keys, first)
			w := wave{seen: seen[first:last], keys: keys[first:last], senders: senders}
			if err := o.sendWave(w, cpu); err != nil {
				return err
			}
			first = last
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return seen, nil
}

// waveEnd is the end of the longest run of different keys from first on.
func waveEnd(keys []string, first int) int {
	in := map[string]bool{}
	for i := first; i < len(keys); i++ {
		if in[keys[i]] {
			return i
		}
		in[keys[i]] = true
	}
	return len(keys)
}

// fenceEvery bounds what is under way at once: the kernel's backlog holds 1000
// frames a CPU (net.core.netdev_max_backlog), and a flooded one counts as many
// times as there are ports.
const fenceEvery = 8

// waveAttempts is how often a wave is sent when the backlog overflows meanwhile,
// for which others on the machine may be the reason.
const waveAttempts = 5

// wave is a run of probes that can be told apart.
type wave struct {
	seen    []Sighting
	keys    []string // signatures
	senders map[*Port]*sender
}

// sendWave sends a wave. What was not seen while the
// backlog overflowed is sent again: it may have been lost there.
func (o *Observatory) sendWave(w wave, cpu int) error {
	for range waveAttempts {
		before, err := backlogDrops(cpu)
		if err != nil {
			return err
		}
		if err := o.sendUnseen(w); err != nil {
			return err
		}
		captured, err := o.drain(nil)
		if err != nil {
			return err
		}
		w.assign(captured)
		if after, err := backlogDrops(cpu); err != nil || after == before {
			return err
		}
	}
	return fmt.Errorf("the backlog of CPU %d overflowed in %d attempts, and frames were lost: flood fewer ports than net.core.netdev_max_backlog, or keep other load away; no verdict can be given", cpu, waveAttempts)
}

func (o *Observatory) sendUnseen(w wave) error {
	n := 0
	for _, s := range w.seen {
		if len(s.Packets) > 0 {
			continue
		}
		if err := w.senders[s.Probe.From].send(s.Probe.Frame); err != nil {
			return fmt.Errorf("probe %q: %w", s.Probe.Name, err)
		}
		if n++; n%fenceEvery == 0 {
			if err := o.fence.pass(); err != nil {
				return err
			}
		}
	}
	return o.fence.settle(o.Settle)
}

// assign gives each captured frame to the probe that it is.
func (w wave) assign(captured []Captured) {
	byKey := map[string]int{}
	var byMatch []int
	for i, s := range w.seen {
		if s.Probe.Match != nil {
			byMatch = append(byMatch, i)
		} else {
			byKey[w.keys[i]] = i
		}
	}
	for _, c := range captured {
		if i, ok := byKey[signature(c.Frame)]; ok {
			w.seen[i].Packets = append(w.seen[i].Packets, c)
		}
		for _, i := range byMatch {
			if w.seen[i].Probe.Match(c) {
				w.seen[i].Packets = append(w.seen[i].Packets, c)
			}
		}
	}
}

func (o *Observatory) drain(into []Captured) (_ []Captured, err error) {
	for _, s := range o.sniffers {
		if into, err = s.drain(into); err != nil {
			return into, err
		}
	}
	return into, nil
}

// Collect returns whatever arrives within d, port by port, and what has come in
// since the last Send or Collect: to watch traffic that others make.
func (o *Observatory) Collect(ctx context.Context, d time.Duration) ([]Captured, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drain(nil)
}

// At says whether the probe was seen at a port.
func (s Sighting) At(p *Port) bool {
	return slices.ContainsFunc(s.Packets, func(c Captured) bool { return c.Port == p })
}

// Ports lists where it was seen, sorted by name.
func (s Sighting) Ports() []*Port {
	var ports []*Port
	for _, c := range s.Packets {
		if !slices.Contains(ports, c.Port) {
			ports = append(ports, c.Port)
		}
	}
	slices.SortFunc(ports, func(a, b *Port) int { return strings.Compare(a.String(), b.String()) })
	return ports
}

// String says in one line what was sent and where it arrived.
func (s Sighting) String() string {
	where := "nowhere"
	if ports := s.Ports(); len(ports) > 0 {
		where = strings.Trim(fmt.Sprint(ports), "[]")
	}
	return fmt.Sprintf("%s: %s from %s: seen at %s", s.Probe.Name, s.Probe.Frame, s.Probe.From, where)
}

// Arrives sends one frame and says whether it came in at to.
func Arrives(ctx context.Context, from, to *Port, f frame.Frame) (bool, error) {
	o, err := Observe(to)
	if err != nil {
		return false, err
	}
	defer o.Close()
	seen, err := o.Send(ctx, Probe{Name: "frame", From: from, Frame: f})
	if err != nil {
		return false, err
	}
	return seen[0].At(to), nil
}
