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
// The nftables driver takes the lowest three bits of the same mask, these are
// taken from the top: both drivers stand side by side while one hands over to
// the other.
type marks struct {
	from   uint32 // IP of a NIC that is held to rules
	seen   uint32 // the ip hooks saw it: the bridge's netfilter is on
	home   uint32 // to the bridge's own MAC, so that conntrack's default zone is its own
	dest   uint32 // its MAC and destination address are the receiver's
	pass   uint32 // judged, on its way from port to port
	host   uint32 // the host's own
	routed uint32 // the host routes it
	// slots say for which receivers a routed packet was judged. Receivers that
	// share no address share the first one.
	slots []uint32

	all     uint32
	revoked uint32 // one bit of the conntrack mark
}

const (
	namedMarks  = 7
	sparedMarks = 3 // for the nftables driver
)

func newMarks(mask, revoked uint32) (marks, error) {
	if n := bits.OnesCount32(mask); n < sparedMarks+namedMarks+1 {
		return marks{}, &core.FieldError{Path: "backend.settings.mark_mask", Value: fmt.Sprintf("%#x", mask),
			Reason: fmt.Sprintf("needs at least %d bits", sparedMarks+namedMarks+1)}
	}
	if bits.OnesCount32(revoked) != 1 {
		return marks{}, &core.FieldError{Path: "backend.settings.revoked_mark", Value: fmt.Sprintf("%#x", revoked),
			Reason: "needs exactly one bit"}
	}
	m := marks{revoked: revoked}
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
	for i, field := range []*uint32{&m.from, &m.seen, &m.home, &m.dest, &m.pass, &m.host, &m.routed} {
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
