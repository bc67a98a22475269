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
// bridge hooks in four bits of the packet mark. A bridge chain cannot ask
// conntrack itself on kernels without nf_conntrack_bridge.
type word uint32

const (
	wordNone    word = iota // the host has it, or has made it; no bridge hook saw it come in
	wordUnseen              // came in by a bridge's port, and no ip hook has seen it
	wordNew                 // new or untracked
	wordInvalid             // invalid
	// wordEst and wordAstray differ in the lowest bit alone: both are
	// established at the sender's port, which asks for either in one go.
	wordEst         // established, or related and the sender owns an end
	wordAstray      // established, and went astray: new at the receiver's port
	wordAstrayReply // the same in the other direction: new at the sender's port
	wordRevoked     // the flow's conntrack mark has the revoked bit
	wordAlien       // related to a flow that the sender has no part in
	wordHost        // the host's own, set on bridge output
	wordTaken       // set at the receiver's port: its NIC is the one that the frame is for
	wordStray       // set at the receiver's port: its NIC takes what is another's
)

// words that pass nobody, with the reason they are counted for.
var refusedWords = []struct {
	word   word
	reason core.Reason
}{
	{wordNone, core.ReasonUnfiltered}, // somebody else has cleared it
	{wordUnseen, core.ReasonUnfiltered},
	{wordInvalid, core.ReasonInvalid},
	{wordRevoked, core.ReasonRevoked},
	{wordAlien, core.ReasonNotOwner},
}

// marks says which bits of the packet mark and of the conntrack mark are ours.
type marks struct {
	mask uint32 // four adjacent bits of the packet mark
	flow uint32 // three adjacent bits of the conntrack mark
}

// newMarks takes the lowest four adjacent set bits of mask, and the three of flow.
func newMarks(mask, flow uint32) (marks, error) {
	shift := bits.TrailingZeros32(mask)
	if mask>>shift&15 != 15 {
		return marks{}, &core.FieldError{Path: "backend.settings.mark_mask", Value: fmt.Sprintf("%#x", mask),
			Reason: "needs four adjacent bits"}
	}
	if flow>>bits.TrailingZeros32(flow) != 7 {
		return marks{}, &core.FieldError{Path: "backend.settings.flow_mark", Value: fmt.Sprintf("%#x", flow),
			Reason: "needs exactly three adjacent bits"}
	}
	return marks{mask: 15 << shift, flow: flow}, nil
}

// The bits of the conntrack mark. A flow whose first packet was let out by a
// port that is not its receiver's has astray; taken says that the receiver's NIC
// has let a packet of it in as well. docs/semantics.md, "Flows".
func (m marks) taken() uint32   { return 1 << bits.TrailingZeros32(m.flow) }
func (m marks) astray() uint32  { return m.taken() << 1 }
func (m marks) revoked() uint32 { return m.taken() << 2 }

func (m marks) value(w word) uint32 { return uint32(w) << bits.TrailingZeros32(m.mask) }

// is matches packets that carry w.
func (m marks) is(w word) []expr.Any { return m.compare(expr.CmpOpEq, w, m.mask) }

// isNot matches packets that carry another word.
func (m marks) isNot(w word) []expr.Any { return m.compare(expr.CmpOpNeq, w, m.mask) }

// isSenders matches packets that are established at the sender's port.
func (m marks) isSenders() []expr.Any {
	return m.compare(expr.CmpOpEq, wordEst, m.mask&^m.value(wordEst^wordAstray))
}

func (m marks) compare(op expr.CmpOp, w word, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		and32(mask),
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

// ctMark matches packets of flows whose conntrack mark has these of the bits.
func ctMark(bits, value uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		and32(bits),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(value)},
	}
}

// setCTMark sets bits of the conntrack mark.
func setCTMark(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(^bits), Xor: native32(bits)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}

// isRevoked matches packets whose flow was revoked.
func (m marks) isRevoked() []expr.Any { return ctMark(m.revoked(), m.revoked()) }

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
		ctEstablished: "flow", ctRelated: "related", ctNew: "new", ctUntracked: "new", ctInvalid: "invalid",
	} {
		s.Add(nft.Goto(chain), nft.Mark(state))
	}
	return s
}

func parseMask(path, s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil || v == 0 {
		return 0, &core.FieldError{Path: path, Value: s, Reason: `not a bit mask; use hexadecimal such as "0x00000f00"`}
	}
	return uint32(v), nil
}
