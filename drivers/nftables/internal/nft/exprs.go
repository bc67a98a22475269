package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Unknown is an expression read from the kernel that has no type in expr. It
// goes back to the kernel as it came.
type Unknown struct {
	expr.Any // nil; for the interface's unexported methods
	Name     string
	Attrs    []byte
}

// appendExpr appends the name and data of an expression. The common ones are
// written in place: a large ruleset is some hundred thousand of them, and the
// collector's share is most of the cost if each allocates. All others go
// through expr.Marshal.
func appendExpr(b *buffer, family Family, e expr.Any) error {
	switch e := e.(type) {
	case *expr.Meta:
		at := openExpr(b, "meta")
		b.u32(unix.NFTA_META_KEY, uint32(e.Key))
		register(b, e.SourceRegister, unix.NFTA_META_SREG, unix.NFTA_META_DREG, e.Register)
		b.end(at)
	case *expr.Ct:
		at := openExpr(b, "ct")
		b.u32(unix.NFTA_CT_KEY, uint32(e.Key))
		if isDirected(e.Key) { // expr sends 32 bits, the kernel tells 8 back
			b.u8(unix.NFTA_CT_DIRECTION, uint8(e.Direction))
		}
		register(b, e.SourceRegister, unix.NFTA_CT_SREG, unix.NFTA_CT_DREG, e.Register)
		b.end(at)
	case *expr.Payload:
		if e.OperationType != expr.PayloadLoad {
			return marshalExpr(b, family, e)
		}
		at := openExpr(b, "payload")
		b.u32(unix.NFTA_PAYLOAD_DREG, e.DestRegister)
		b.u32(unix.NFTA_PAYLOAD_BASE, uint32(e.Base))
		b.u32(unix.NFTA_PAYLOAD_OFFSET, e.Offset)
		b.u32(unix.NFTA_PAYLOAD_LEN, e.Len)
		b.end(at)
	case *expr.Cmp:
		at := openExpr(b, "cmp")
		b.u32(unix.NFTA_CMP_SREG, e.Register)
		b.u32(unix.NFTA_CMP_OP, uint32(e.Op))
		value(b, unix.NFTA_CMP_DATA, e.Data)
		b.end(at)
	case *expr.Bitwise:
		at := openExpr(b, "bitwise")
		b.u32(unix.NFTA_BITWISE_SREG, e.SourceRegister)
		b.u32(unix.NFTA_BITWISE_DREG, e.DestRegister)
		b.u32(unix.NFTA_BITWISE_LEN, e.Len)
		value(b, unix.NFTA_BITWISE_MASK, e.Mask)
		value(b, unix.NFTA_BITWISE_XOR, e.Xor)
		b.end(at)
	case *expr.Lookup:
		at := openExpr(b, "lookup")
		b.u32(unix.NFTA_LOOKUP_SREG, e.SourceRegister)
		if e.IsDestRegSet {
			b.u32(unix.NFTA_LOOKUP_DREG, e.DestRegister)
		}
		if e.Invert {
			b.u32(unix.NFTA_LOOKUP_FLAGS, unix.NFT_LOOKUP_F_INV)
		}
		b.str(unix.NFTA_LOOKUP_SET, e.SetName)
		b.end(at)
	case *expr.Counter:
		at := openExpr(b, "counter")
		b.u64(unix.NFTA_COUNTER_BYTES, e.Bytes)
		b.u64(unix.NFTA_COUNTER_PACKETS, e.Packets)
		b.end(at)
	case *expr.Immediate:
		at := openExpr(b, "immediate")
		b.u32(unix.NFTA_IMMEDIATE_DREG, e.Register)
		value(b, unix.NFTA_IMMEDIATE_DATA, e.Data)
		b.end(at)
	case *expr.Verdict:
		at := openExpr(b, "immediate")
		b.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		appendVerdict(b, unix.NFTA_IMMEDIATE_DATA, Verdict{e.Kind, e.Chain})
		b.end(at)
	case *expr.Dynset:
		return appendDynset(b, family, e)
	case *Unknown:
		b.str(unix.NFTA_EXPR_NAME, e.Name)
		raw(b, unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, e.Attrs)
	case nil:
		return fmt.Errorf("expression is nil")
	default:
		return marshalExpr(b, family, e)
	}
	return nil
}

// appendDynset stands for expr's own encoding, which leaves the flag of nested
// attributes out and always sends a set id; the kernel then looks for a set of
// the same transaction when the name is gone.
func appendDynset(b *buffer, family Family, e *expr.Dynset) error {
	if len(e.Exprs) > 1 {
		return fmt.Errorf("dynset on %s: more than one expression is not supported", e.SetName)
	}
	at := openExpr(b, "dynset")
	b.str(unix.NFTA_DYNSET_SET_NAME, e.SetName)
	b.u32(unix.NFTA_DYNSET_OP, e.Operation)
	b.u32(unix.NFTA_DYNSET_SREG_KEY, e.SrcRegKey)
	if e.SrcRegData != 0 {
		b.u32(unix.NFTA_DYNSET_SREG_DATA, e.SrcRegData)
	}
	if e.Timeout != 0 {
		b.u64(unix.NFTA_DYNSET_TIMEOUT, uint64(e.Timeout.Milliseconds()))
	}
	for _, inner := range e.Exprs {
		in := b.nest(unix.NFTA_DYNSET_EXPR)
		if err := appendExpr(b, family, inner); err != nil {
			return err
		}
		b.end(in)
	}
	if e.Invert {
		b.u32(unix.NFTA_DYNSET_FLAGS, unix.NFT_DYNSET_F_INV)
	}
	b.end(at)
	return nil
}

func openExpr(b *buffer, name string) int {
	b.str(unix.NFTA_EXPR_NAME, name)
	return b.nest(unix.NFTA_EXPR_DATA)
}

func register(b *buffer, isSource bool, source, dest uint16, reg uint32) {
	if isSource {
		b.u32(source, reg)
	} else {
		b.u32(dest, reg)
	}
}

// isDirected tells whether a conntrack key needs a direction; the kernel refuses
// it for most others.
func isDirected(k expr.CtKey) bool {
	switch k {
	case expr.CtKeySRC, expr.CtKeyDST, expr.CtKeyPROTOSRC, expr.CtKeyPROTODST:
		return true
	}
	return k >= ctKeySrcIP && k <= ctKeyDstIP6
}

// The keys of addresses by family, which expr does not name (kernel 4.17).
const (
	ctKeySrcIP  expr.CtKey = 19 // NFT_CT_SRC_IP
	ctKeyDstIP6 expr.CtKey = 22 // NFT_CT_DST_IP6
)

func marshalExpr(b *buffer, family Family, e expr.Any) error {
	enc, err := expr.Marshal(byte(family), e)
	if err != nil {
		return fmt.Errorf("%T: %w", e, err)
	}
	*b = append(*b, enc...)
	b.pad()
	return nil
}

// appendVerdict appends a verdict as data.
func appendVerdict(b *buffer, typ uint16, v Verdict) {
	at := b.nest(typ)
	in := b.nest(unix.NFTA_DATA_VERDICT)
	b.u32(unix.NFTA_VERDICT_CODE, uint32(v.Kind))
	if v.Chain != "" {
		b.str(unix.NFTA_VERDICT_CHAIN, v.Chain)
	}
	b.end(in)
	b.end(at)
}
