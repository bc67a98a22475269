package iptables

import (
	"fmt"
	"math/bits"
	"strconv"

	"github.com/ringwall/ringwall/core"
)

// marks are the bits of the packet mark by which the hooks tell each other what
// a frame has been through. None of them opens anything by being absent: a frame
// that lacks what its port asks for is dropped, so that a flushed table or a
// bridge whose netfilter is off closes ports.
//
// The nftables driver takes the lowest four bits of the same mask, these are
// taken from the top: both drivers stand side by side while one hands over to
// the other.
type marks struct {
	from uint32 // IP of a NIC that is held to rules
	seen uint32 // the ip hooks saw it: the bridge's netfilter is on
	// home, on the way in: to the bridge's own MAC, so that conntrack's default
	// zone is its own. On the way from port to port: to the MAC of some NIC here.
	home   uint32
	dest   uint32 // its MAC and destination address are for the NIC at the port
	mine   uint32 // its MAC is that NIC's
	pass   uint32 // judged, on its way from port to port
	host   uint32 // the host's own
	routed uint32 // the host routes it
	// slots say for which receivers a routed packet was judged. Receivers that
	// share no address share the first one.
	slots []uint32

	all uint32

	// Bits of the conntrack mark: the flow was revoked; its first packet was let
	// out by a port that is not its receiver's; its receiver's has let one out.
	// docs/semantics.md, "Flows".
	revoked, astray, taken uint32
	// Whose a flow is, where addresses do not tell: a sum of the sender's MAC,
	// and one of the receiver's.
	sender, receiver uint32
}

const (
	namedMarks  = 8
	sparedMarks = 4 // for the nftables driver
	flowMarks   = 3
)

func newMarks(mask, flow, owner uint32) (marks, error) {
	if n := bits.OnesCount32(mask); n < sparedMarks+namedMarks+1 {
		return marks{}, &core.FieldError{Path: "backend.settings.mark_mask", Value: fmt.Sprintf("%#x", mask),
			Reason: fmt.Sprintf("needs at least %d bits", sparedMarks+namedMarks+1)}
	}
	if flow>>bits.TrailingZeros32(flow) != 1<<flowMarks-1 {
		return marks{}, &core.FieldError{Path: "backend.settings.flow_mark", Value: fmt.Sprintf("%#x", flow),
			Reason: "needs exactly three adjacent bits"}
	}
	low, n := bits.TrailingZeros32(owner), bits.OnesCount32(owner)
	if n%2 != 0 || n < 16 || owner>>low != 1<<n-1 || owner&flow != 0 {
		return marks{}, &core.FieldError{Path: "backend.settings.owner_mark", Value: fmt.Sprintf("%#x", owner),
			Reason: "needs an even number of adjacent bits, at least 16, none of them in flow_mark"}
	}
	taken := uint32(1) << bits.TrailingZeros32(flow)
	half := (uint32(1)<<(n/2) - 1) << low
	m := marks{taken: taken, astray: taken << 1, revoked: taken << 2, receiver: half, sender: half << (n / 2)}
	var ours []uint32
	for b := 31; b >= 0; b-- {
		if mask&(1<<b) != 0 {
			ours = append(ours, 1<<b)
		}
	}
	ours = ours[:len(ours)-sparedMarks]
	for _, b := range ours {
		m.all |= b
	}
	for i, field := range []*uint32{&m.from, &m.seen, &m.home, &m.dest, &m.mine, &m.pass, &m.host, &m.routed} {
		*field = ours[i]
	}
	m.slots = ours[namedMarks:]
	return m, nil
}

// hex is a mark as the programs print it.
func hex(v uint32) string { return "0x" + strconv.FormatUint(uint64(v), 16) }

func parseMask(path, s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil || v == 0 {
		return 0, &core.FieldError{Path: path, Value: s, Reason: `not a bit mask; use hexadecimal such as "0x00ffff00"`}
	}
	return uint32(v), nil
}
