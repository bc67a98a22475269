package iptables

import (
	"hash/fnv"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Whose a flow is, its addresses tell, but for NICs that may spoof, and for
// allowed pairs, which several NICs may have and outsiders too. Where there is
// such a NIC, the conntrack mark of each flow bears a sum of its sender's MAC and
// of its receiver's. NICs of one sum are told by address all the same.

// ambiguous says whether flows are to bear whose they are.
func ambiguous(rs core.Ruleset) bool {
	for _, n := range rs.NICs {
		if n.Kind != core.SystemVM && (n.SpoofingAllowed || len(n.Pairs) > 0) && (n.Bridge == "" || rs.Options.ManagesBridge(n.Bridge)) {
			return true
		}
	}
	return false
}

// ownerOf is the sum of a MAC in the bits of mask, never zero.
func (m marks) ownerOf(mac core.MAC, mask uint32) uint32 {
	h := fnv.New32a()
	h.Write(mac[:])
	n := uint32(bits.OnesCount32(mask))
	return (h.Sum32()%(1<<n-1) + 1) << bits.TrailingZeros32(mask)
}

// owners finds NICs by bridge and sum. Under the bridge "" are those of all:
// flows in the host's zone have no bridge.
type owners struct {
	marks marks
	nics  map[owner][]core.NICKey
}

type owner struct {
	bridge string
	sum    uint32 // in the receiver's bits
}

func (m marks) owners(rs core.Ruleset) owners {
	o := owners{m, map[owner][]core.NICKey{}}
	for k, n := range rs.NICs {
		sum := m.ownerOf(k.MAC, m.receiver)
		for _, at := range []owner{{n.Bridge, sum}, {"", sum}} {
			o.nics[at] = append(o.nics[at], k)
		}
	}
	return o
}

// ends are the NICs that a flow's mark names, as far as just one has the sum.
func (o owners) ends(bridge string, mark uint32) (from, to core.NICKey) {
	sole := func(sum uint32) core.NICKey {
		if ks := o.nics[owner{bridge, sum}]; len(ks) == 1 {
			return ks[0]
		}
		return core.NICKey{}
	}
	shift := bits.TrailingZeros32(o.marks.sender) - bits.TrailingZeros32(o.marks.receiver)
	return sole(mark & o.marks.sender >> shift), sole(mark & o.marks.receiver)
}

// maxAmong bounds a list of MACs in one rule: ebtables-restore 1.8.9 takes no
// word of more than 1,023 bytes.
const maxAmong = 50

// macsHere lists the MACs of user VMs' NICs and their pairs, as ebtables' match
// "among" takes them, cut into as many lists as it needs.
func macsHere(views []nicView) (lists []string) {
	all := map[string]bool{}
	for _, v := range views {
		if !v.system() {
			for _, m := range macsOf(v.policy) {
				all[m.String()] = true
			}
		}
	}
	for macs := range slices.Chunk(slices.Sorted(maps.Keys(all)), maxAmong) {
		lists = append(lists, strings.Join(macs, ","))
	}
	return lists
}
