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
	sniffers []sniffer
	senders  map[*Port]*sender
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
	o := &Observatory{senders: map[*Port]*sender{}}
	var err error
	if o.fence, err = newFence(); err != nil {
		return nil, err
	}
	for _, p := range ports {
		var s sniffer
		if p.stack {
			s, err = newStackSniffer(p)
		} else {
			s, err = newPacketSniffer(p)
		}
		if err != nil {
			o.Close()
			return nil, err
		}
		o.sniffers = append(o.sniffers, s)
	}
	return o, nil
}

// Close ends the captures.
func (o *Observatory) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.sniffers {
		s.close()
	}
	for _, s := range o.senders {
		s.close()
	}
	o.fence.close()
	o.sniffers, o.senders = nil, nil
}

// Send sends the probes in order and says where each was seen; the result has
// the order of the probes. An error means that there is no verdict.
//
// Probes that look alike on arrival are told apart by time: the later one is
// sent when the earlier has arrived or died.
func (o *Observatory) Send(ctx context.Context, probes ...Probe) ([]Sighting, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.senders == nil {
		return nil, errors.New("the observatory is closed")
	}
	seen := make([]Sighting, len(probes))
	keys := make([]string, len(probes))
	for i, p := range probes {
		seen[i].Probe = p
		keys[i] = signature(p.Frame)
		if err := o.openSender(p); err != nil {
			return nil, fmt.Errorf("probe %q: %w", p.Name, err)
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
			if err := o.sendWave(seen[first:last], keys[first:last], cpu); err != nil {
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

func (o *Observatory) openSender(p Probe) error {
	if p.From == nil || p.From.stack {
		return errors.New("it has no port to be sent from")
	}
	if o.senders[p.From] != nil {
		return nil
	}
	s, err := newSender(p.From)
	o.senders[p.From] = s
	if err != nil {
		delete(o.senders, p.From)
	}
	return err
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

// sendWave sends probes that can be told apart. What was not seen while the
// backlog overflowed is sent again: it may have been lost there.
func (o *Observatory) sendWave(wave []Sighting, keys []string, cpu int) error {
	for range waveAttempts {
		before, err := backlogDrops(cpu)
		if err != nil {
			return err
		}
		if err := o.sendUnseen(wave); err != nil {
			return err
		}
		captured, err := o.drain(nil)
		if err != nil {
			return err
		}
		assign(captured, wave, keys)
		if after, err := backlogDrops(cpu); err != nil || after == before {
			return err
		}
	}
	return fmt.Errorf("the backlog of CPU %d overflowed in %d attempts, and frames were lost: flood fewer ports than net.core.netdev_max_backlog, or keep other load away; no verdict can be given", cpu, waveAttempts)
}

func (o *Observatory) sendUnseen(wave []Sighting) error {
	n := 0
	for _, s := range wave {
		if len(s.Packets) > 0 {
			continue
		}
		if err := o.senders[s.Probe.From].send(s.Probe.Frame); err != nil {
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
func assign(captured []Captured, wave []Sighting, keys []string) {
	byKey := map[string]int{}
	var byMatch []int
	for i, s := range wave {
		if s.Probe.Match != nil {
			byMatch = append(byMatch, i)
		} else {
			byKey[keys[i]] = i
		}
	}
	for _, c := range captured {
		if i, ok := byKey[signature(c.Frame)]; ok {
			wave[i].Packets = append(wave[i].Packets, c)
		}
		for _, i := range byMatch {
			if wave[i].Probe.Match(c) {
				wave[i].Packets = append(wave[i].Packets, c)
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
