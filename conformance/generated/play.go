// Package generated plays policies drawn at random, with changes and packets of
// all kinds, on a backend: whatever the reference evaluator says must be so at
// every port. What scenarios forgot is found here.
package generated

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/policy/policytest"
)

// Play is a world and what happens in it.
type Play struct {
	World  policytest.World
	Events []Event
}

// Event is a frame, its fragments, or a change of the world, with a restart of
// the backend behind it perhaps.
type Event struct {
	Passage *policytest.Passage
	Split   split
	World   *policytest.World
	Restart bool
}

// split says how a packet is sent.
type split uint8

const (
	whole split = iota
	inPieces
	inPiecesBackwards
	forgedPiece // one with a foreign source
	missingPiece
)

// lengths of plays; a play that fails is first tried with the first.
var lengths = []int{10, 60, 60, 60, 60}

// Plays draws worlds of a shape, and what happens in them.
func Plays(s policytest.Shape) *rapid.Generator[Play] {
	return rapid.Custom(func(t *rapid.T) Play {
		p := Play{World: policytest.Worlds(s).Draw(t, "world")}
		n := rapid.SampledFrom(lengths).Draw(t, "length")
		for _, e := range policytest.Sequences(p.World, n).Draw(t, "events") {
			x := Event{Passage: e.Passage, World: e.World}
			x.Restart = e.World != nil && rapid.IntRange(0, 7).Draw(t, "restart") == 0
			if e.Passage != nil && rapid.IntRange(0, 7).Draw(t, "split") == 0 && canSplit(e.Passage.Frame) {
				x.Split = rapid.SampledFrom([]split{inPieces, inPieces, inPiecesBackwards, forgedPiece, missingPiece}).Draw(t, "how")
			}
			p.Events = append(p.Events, x)
		}
		return p
	})
}

// canSplit: packets that can have as much payload as it takes.
func canSplit(f policy.Frame) bool {
	if f.Family() == 0 || len(f.Tags) > 0 {
		return false
	}
	return carriesPayload(f.IP.Transport)
}

func carriesPayload(t policy.Transport) bool {
	switch m := t.(type) {
	case policy.TCP, policy.UDP, policy.Raw:
		return true
	case policy.ICMP:
		return m.Quote == nil
	case policy.ICMPv6:
		return m.Type == policy.ICMPv6Echo || m.Type == policy.ICMPv6EchoReply
	}
	return false
}

// frames splits the frame as the event says. id tells its fragments from others.
func (e Event) frames(f policy.Frame, id uint32) []policy.Frame {
	if e.Split == whole {
		return []policy.Frame{f}
	}
	const size, total = 64, 160
	fs := f.Fragments(id, size, total)
	switch e.Split {
	case inPiecesBackwards:
		slices.Reverse(fs)
	case forgedPiece:
		ip := *fs[1].IP
		ip.Src = netip.MustParseAddr("198.51.100.9")
		if f.Family() == core.IPv6 {
			ip.Src = netip.MustParseAddr("2001:db8:bad::9")
		}
		fs[1].IP = &ip
	case missingPiece:
		fs = slices.Delete(fs, 1, 2)
	}
	return fs
}

// GoString keeps rapid's log of what it drew short: Run prints the play itself.
func (p Play) GoString() string { return fmt.Sprintf("a play of %d events", len(p.Events)) }

// String prints a play the way a person can follow it.
func (p Play) String() string {
	var b strings.Builder
	b.WriteString(describe(p.World))
	for i, e := range p.Events {
		switch {
		case e.World != nil:
			and := map[bool]string{true: ", and the backend restarts"}[e.Restart]
			fmt.Fprintf(&b, "event %d: the world changes%s\n%s", i, and, indent(describe(*e.World)))
		default:
			how := [...]string{"", " (in pieces)", " (in pieces, backwards)", " (one piece forged)", " (one piece missing)"}[e.Split]
			fmt.Fprintf(&b, "event %d: %s to %s: %s%s\n", i, e.Passage.From, e.Passage.To, e.Passage.Frame, how)
		}
	}
	return b.String()
}

func describe(w policytest.World) string {
	m, err := scenarios.NewModel(world(w))
	if err != nil {
		return err.Error()
	}
	return m.Describe()
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n  ") + "\n"
}
