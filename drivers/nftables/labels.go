package nftables

import (
	"slices"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/conntrack"
)

// Whose a flow is, its addresses tell, but for NICs that may spoof, and for
// allowed pairs, which several NICs may have and outsiders too. Where there is
// such a NIC, each flow's label holds the MACs that it began with: the sender's
// in the first 64 bits, and in the last the receiver's, when that is a user VM's.
//
// The kernel only ever adds bits to a label. Of a flow that began twice with
// different MACs it is the MAC of nobody, and the addresses have to tell.

// ambiguous: a NIC whose flows its addresses do not tell from others'.
func ambiguous(o core.Options, n core.NICPolicy) bool {
	return n.Kind != core.SystemVM && (n.SpoofingAllowed || len(n.Pairs) > 0) && (n.Bridge == "" || o.ManagesBridge(n.Bridge))
}

const (
	labelSize  = len(conntrack.Labels{})
	labelHalf  = labelSize / 2
	labelWords = labelHalf / 4
)

// labelSender and labelReceiver put a MAC into the flow's label.
func labelSender() []expr.Any   { return label(etherSrc, firstReg) }
func labelReceiver() []expr.Any { return label(etherDst, firstReg+uint32(labelWords)) }

func label(mac operand, at uint32) []expr.Any {
	const whole = 1 // NFT_REG_1, the 16 bytes from firstReg on
	return []expr.Any{
		&expr.Immediate{Register: whole, Data: make([]byte, labelSize)},
		mac.load(at),
		&expr.Ct{Key: expr.CtKeyLABELS, Register: whole, SourceRegister: true},
	}
}

// portMACs finds NICs by bridge and MAC. Under the bridge "" are those of all:
// flows in the host's zone have no bridge.
type portMACs map[portMAC][]core.NICKey

type portMAC struct {
	bridge string
	mac    core.MAC
}

func macsOfNICs(r core.Ruleset) portMACs {
	p := portMACs{}
	for k, n := range r.NICs {
		for _, m := range macsOf(n) {
			for _, at := range []portMAC{{n.Bridge, m}, {"", m}} {
				if !slices.Contains(p[at], k) {
					p[at] = append(p[at], k)
				}
			}
		}
	}
	return p
}

// ends are the NICs that a flow's label names, as far as just one has the MAC.
func (p portMACs) ends(bridge string, l conntrack.Labels) (from, to core.NICKey) {
	sole := func(half []byte) core.NICKey {
		if !slices.Equal(half[len(core.MAC{}):], []byte{0, 0}) {
			return core.NICKey{} // somebody else's label
		}
		if ks := p[portMAC{bridge, core.MAC(half[:len(core.MAC{})])}]; len(ks) == 1 {
			return ks[0]
		}
		return core.NICKey{}
	}
	return sole(l[:labelHalf]), sole(l[labelHalf:])
}
