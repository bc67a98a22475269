package nftables

import (
	"fmt"
	"math/bits"
	"strconv"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// word is what conntrack says of a packet, carried from the ip hooks to the
// bridge hooks in three bits of the packet mark. A bridge chain cannot ask
// conntrack itself on kernels without nf_conntrack_bridge.
type word uint32

const (
	wordNone    word = iota // no ip hook saw the packet: netfilter is off for this bridge
	wordNew                 // new or untracked
	wordEst                 // established, or related and the sender owns an end
	wordInvalid             // invalid
	wordRevoked             // the flow's conntrack mark has the revoked bit
	wordAlien               // related to a flow that the sender has no part in
	wordHost                // the host's own, set on bridge output
)

// words that pass nobody, with the reason they are counted for.
var refusedWords = []struct {
	word   word
	reason core.Reason
}{
	{wordNone, core.ReasonUnfiltered},
	{wordInvalid, core.ReasonInvalid},
	{wordRevoked, core.ReasonRevoked},
	{wordAlien, core.ReasonNotOwner},
}

// marks says which bits of the packet mark and of the conntrack mark are ours.
type marks struct {
	mask    uint32 // three adjacent bits of the packet mark
	revoked uint32 // one bit of the conntrack mark
}

// newMarks takes the lowest three adjacent set bits of mask.
func newMarks(mask, revoked uint32) (marks, error) {
	shift := bits.TrailingZeros32(mask)
	if mask>>shift&7 != 7 {
		return marks{}, &core.FieldError{Path: "backend.settings.mark_mask", Value: fmt.Sprintf("%#x", mask),
			Reason: "needs three adjacent bits"}
	}
	if bits.OnesCount32(revoked) != 1 {
		return marks{}, &core.FieldError{Path: "backend.settings.revoked_mark", Value: fmt.Sprintf("%#x", revoked),
			Reason: "needs exactly one bit"}
	}
	return marks{mask: 7 << shift, revoked: revoked}, nil
}

func (m marks) value(w word) uint32 { return uint32(w) << bits.TrailingZeros32(m.mask) }

// is matches packets that carry w.
func (m marks) is(w word) []expr.Any { return m.compare(expr.CmpOpEq, w) }

// isNot matches packets that carry another word.
func (m marks) isNot(w word) []expr.Any { return m.compare(expr.CmpOpNeq, w) }

func (m marks) compare(op expr.CmpOp, w word) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		and32(m.mask),
		&expr.Cmp{Op: op, Register: 1, Data: native32(m.value(w))},
	}
}

// set writes w and leaves the other bits alone.
func (m marks) set(w word) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(^m.mask), Xor: native32(m.value(w))},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

// isRevoked matches packets whose flow was revoked.
func (m marks) isRevoked() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		and32(m.revoked),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native32(0)},
	}
}

func and32(mask uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(mask), Xor: native32(0)}
}

// conntrack states as `ct state` loads them (NF_CT_STATE_BIT).
const (
	ctInvalid     = 1
	ctEstablished = 2
	ctRelated     = 4
	ctNew         = 8
	ctUntracked   = 64
)

// stateMap is the map that `ct state vmap` asks.
func stateMap() *nft.Set {
	s := &nft.Set{Name: "states", Key: nft.Types(nft.TypeCTState), Data: nft.TypeVerdict}
	for state, chain := range map[uint32]string{
		ctEstablished: "established", ctRelated: "related", ctNew: "new", ctUntracked: "new", ctInvalid: "invalid",
	} {
		s.Add(nft.Goto(chain), nft.Mark(state))
	}
	return s
}

func parseMask(path, s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil || v == 0 {
		return 0, &core.FieldError{Path: path, Value: s, Reason: `not a bit mask; use hexadecimal such as "0x00000700"`}
	}
	return uint32(v), nil
}
