package nftables

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// bitUse is which bits of a mark a rule asks for, and which it may change.
type bitUse struct{ reads, writes uint32 }

// markUse is a rule's use of the packet mark and of the conntrack mark.
type markUse struct{ packet, ct bitUse }

// checkMarks finds who else uses our bits. Somebody who writes them changes what
// conntrack has said of a packet, or gives a revoked flow back.
func (s *surroundings) checkMarks() core.Check {
	var found []finding
	taken := uint32(0) // bits of the packet mark that others use
	ctTaken := uint32(0)
	look := func(where string, u markUse, overwritten bool) {
		for _, b := range []uint32{u.packet.reads, u.packet.writes} {
			if b != ^uint32(0) {
				taken |= b
			}
		}
		for _, b := range []uint32{u.ct.reads, u.ct.writes} {
			if b != ^uint32(0) {
				ctTaken |= b
			}
		}
		found = append(found, s.clashes(where, u, overwritten)...)
	}
	for _, t := range s.foreign {
		stamped := beforeStamp(t, s.native)
		for _, name := range sortedNames(t.Chains) {
			for _, r := range t.Chains[name].Rules {
				look(fmt.Sprintf("table %s chain %s: %s", t.TableID, name, t.RuleText(r)), marksOf(r.Exprs), stamped[name])
			}
		}
	}
	for _, t := range s.legacy {
		for _, r := range t.rules {
			look(t.title()+": "+r.text, r.marks(), r.chain == "PREROUTING" && (t.name == "mangle" || t.name == "raw"))
		}
	}
	for _, r := range s.ipRules {
		look(r.text, markUse{packet: bitUse{reads: r.mask}}, false)
	}
	for i := range found {
		found[i].by = s.way(found[i], taken, ctTaken)
	}
	return conclude("mark-bits", fmt.Sprintf("nobody else uses the bits %#08x of the packet mark and %#08x of the conntrack mark", s.marks.mask, s.marks.flow), found)
}

// clashes are a rule's overlaps with our bits. overwritten: our stamp comes
// after the rule and has the last word.
func (s *surroundings) clashes(where string, u markUse, overwritten bool) []finding {
	var found []finding
	if o := u.ct.writes & s.marks.flow; o != 0 {
		found = append(found, finding{core.StatusError, fmt.Sprintf("another rule writes the bits %#08x of the conntrack mark, by which flows are revoked", o), where, ctFix(u.ct.writes)})
	} else if o := u.ct.reads & s.marks.flow; o != 0 && u.ct.reads != ^uint32(0) {
		found = append(found, finding{core.StatusWarning, fmt.Sprintf("another rule asks for the bits %#08x of the conntrack mark, by which flows are revoked", o), where, ctFix(u.ct.reads)})
	}
	if o := u.packet.writes & s.marks.mask; o != 0 && !overwritten {
		found = append(found, finding{core.StatusError, fmt.Sprintf("another rule writes the bits %#08x of the packet mark, which carry what conntrack says", o), where, packetFix(u.packet.writes)})
	} else if o := u.packet.reads & s.marks.mask; o != 0 {
		found = append(found, finding{core.StatusWarning, fmt.Sprintf("another rule asks for the bits %#08x of the packet mark, which carry what conntrack says", o), where, packetFix(u.packet.reads)})
	}
	return found
}

// Which setting mends a clash; empty when the other rule takes all bits and must
// be mended itself.
const (
	moveMask = "mark_mask"
	moveFlow = "flow_mark"
)

func packetFix(used uint32) string {
	if used == ^uint32(0) {
		return ""
	}
	return moveMask
}

func ctFix(used uint32) string {
	if used == ^uint32(0) {
		return ""
	}
	return moveFlow
}

// way gives the setting with bits that are free.
func (s *surroundings) way(f finding, taken, ctTaken uint32) string {
	switch f.by {
	case moveMask:
		for shift := 8; shift+4 <= 32; shift++ {
			if mask := uint32(15) << shift; taken&mask == 0 {
				return fmt.Sprintf("backend: {settings: {mark_mask: \"%#08x\"}} in the config, then restart ringwalld", mask)
			}
		}
	case moveFlow:
		for shift := 32 - 3; shift >= 0; shift-- {
			if mask := uint32(7) << shift; ctTaken&mask == 0 {
				return fmt.Sprintf("backend: {settings: {flow_mark: \"%#08x\"}} in the config, then restart ringwalld", mask)
			}
		}
	}
	return "give the other rule a mask of the bits that it needs (iptables: --set-xmark VALUE/MASK, --nfmask, --ctmask; nft: meta mark set meta mark & ~MASK | VALUE)"
}

// beforeStamp lists the chains that only run before the stamp: what they write
// into our bits is overwritten. The native stamp comes after all of ip
// prerouting.
func beforeStamp(t *nft.Table, native bool) map[string]bool {
	early, late := map[string]bool{}, map[string]bool{}
	var reach func(name string, into map[string]bool)
	reach = func(name string, into map[string]bool) {
		if into[name] || t.Chains[name] == nil {
			return
		}
		into[name] = true
		for _, r := range t.Chains[name].Rules {
			for _, e := range r.Exprs {
				if v, ok := e.(*expr.Verdict); ok && v.Chain != "" {
					reach(v.Chain, into)
				}
			}
		}
	}
	for name, c := range t.Chains {
		switch {
		case c.Base == nil:
		case t.Family == nft.NetDev || c.Base.Hook != nft.Prerouting:
			reach(name, late)
		case t.Family == nft.Bridge && native && c.Base.Priority < priorityNativeStamp,
			t.Family == nft.Bridge && !native && c.Base.Priority < 0, // br_netfilter's hook
			t.Family != nft.Bridge && (native || c.Base.Priority < priorityStamp):
			reach(name, early)
		default:
			reach(name, late)
		}
	}
	for name := range late {
		delete(early, name)
	}
	return early
}

// marksOf follows marks through a rule's registers.
func marksOf(exprs []expr.Any) (u markUse) {
	type content struct {
		of   *bitUse // the mark that it was loaded from; nil = none
		mask uint32  // bits that are still as loaded, for a comparison
		kept uint32  // bits that are still as loaded, for writing back
	}
	registers := map[uint32]content{}
	write := func(reg uint32, to *bitUse) {
		c := registers[reg]
		if c.of != to {
			c.kept = 0
		}
		to.writes |= ^c.kept
	}
	use := func(reg uint32) {
		if c := registers[reg]; c.of != nil {
			c.of.reads |= c.mask
		}
	}
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			switch {
			case e.Key == expr.MetaKeyMARK && e.SourceRegister:
				write(e.Register, &u.packet)
			case e.Key == expr.MetaKeyMARK:
				registers[e.Register] = content{&u.packet, ^uint32(0), ^uint32(0)}
			case !e.SourceRegister:
				delete(registers, e.Register)
			}
		case *expr.Ct:
			switch {
			case e.Key == expr.CtKeyMARK && e.SourceRegister:
				write(e.Register, &u.ct)
			case e.Key == expr.CtKeyMARK:
				registers[e.Register] = content{&u.ct, ^uint32(0), ^uint32(0)}
			case !e.SourceRegister:
				delete(registers, e.Register)
			}
		case *expr.Bitwise:
			c := registers[e.SourceRegister]
			if len(e.Mask) == 4 && len(e.Xor) == 4 {
				mask, xor := binary.NativeEndian.Uint32(e.Mask), binary.NativeEndian.Uint32(e.Xor)
				c.mask, c.kept = c.mask&mask, c.kept&mask&^xor
			}
			registers[e.DestRegister] = c
		case *expr.Cmp:
			use(e.Register)
		case *expr.Range:
			use(e.Register)
		case *expr.Lookup:
			use(e.SourceRegister)
		case *expr.Payload:
			delete(registers, e.DestRegister)
		case *expr.Immediate:
			delete(registers, e.Register)
		default:
			if x, ok := nft.AsExtension(e); ok {
				extensionMarks(x, &u)
			} else {
				clear(registers) // an expression that is not known may write any
			}
		}
	}
	return u
}

// extensionMarks reads the structures of xt_mark and xt_connmark: all numbers
// are 32 bits in the host's order.
func extensionMarks(x nft.Extension, u *markUse) {
	word := func(i int) uint32 {
		if len(x.Info) < 4*i+4 {
			return 0
		}
		return binary.NativeEndian.Uint32(x.Info[4*i:])
	}
	switch {
	case !x.Target && x.Name == "mark": // mark, mask
		u.packet.reads |= word(1)
	case !x.Target && x.Name == "connmark":
		u.ct.reads |= word(1)
	case x.Target && x.Name == "MARK": // (mark & ~word 1) ^ word 0
		u.packet.writes |= word(0) | word(1)
	case x.Target && x.Name == "CONNMARK" && len(x.Info) > 12: // ctmark, ctmask, nfmask, mode
		switch x.Info[12] {
		case 0: // set
			u.ct.writes |= word(0) | word(1)
		case 1: // save: the packet's mark into the connection's
			u.ct.writes |= word(1) | word(2)
		case 2: // restore
			u.packet.writes |= word(1) | word(2)
		}
	}
}
