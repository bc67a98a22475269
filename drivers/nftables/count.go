package nftables

import (
	"strings"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// Denied packets are counted in dynamic sets, one for each direction and
// reason, whose elements are devices: the packet path makes an element at a
// device's first packet, so nothing is paid for the reasons that never occur
// and nothing at all on the path of packets that pass.

// countedDevices bounds each set; a packet of one device more is dropped all
// the same, uncounted.
const countedDevices = 65535

var countedReasons = map[core.Direction][]core.Reason{
	core.Egress: {
		core.ReasonClosedPort, core.ReasonVLAN, core.ReasonEtherType, core.ReasonMACSpoof, core.ReasonARPSpoof,
		core.ReasonIPSpoof, core.ReasonUnfiltered, core.ReasonRevoked, core.ReasonInvalid, core.ReasonNotOwner,
		core.ReasonNDSpoof, core.ReasonRAGuard, core.ReasonDHCPGuard, core.ReasonEgressRules, core.ReasonSystem,
	},
	core.Ingress: {
		core.ReasonClosedPort, core.ReasonVLAN, core.ReasonEtherType, core.ReasonDestination, core.ReasonUnfiltered,
		core.ReasonRevoked, core.ReasonInvalid, core.ReasonNotOwner, core.ReasonDHCPGuard, core.ReasonMulticast,
		core.ReasonIngressRules, core.ReasonSystem,
	},
}

// counterSet names the set that counts a reason: out/ip-spoof, in/ingress-rules.
func counterSet(d core.Direction, r core.Reason) string {
	if d == core.Egress {
		return "out/" + string(r)
	}
	return "in/" + string(r)
}

// parseCounterSet is the reverse of counterSet.
func parseCounterSet(name string) (core.Direction, core.Reason, bool) {
	side, reason, ok := strings.Cut(name, "/")
	switch {
	case ok && side == "out":
		return core.Egress, core.Reason(reason), true
	case ok && side == "in":
		return core.Ingress, core.Reason(reason), true
	}
	return 0, "", false
}

func newCounterSet(name string) *nft.Set {
	return &nft.Set{Name: name, Key: nft.Types(nft.TypeIfName), Dynamic: true, Counter: true, Size: countedDevices}
}

// count adds a packet to a reason's set. It stands in a rule of its own: when
// the set is full, nft_dynset breaks off the rule (kernel 6.18 does), and a
// drop behind it would not be reached.
func count(d core.Direction, r core.Reason) []expr.Any {
	device := inName
	if d == core.Ingress {
		device = outName
	}
	return []expr.Any{
		device.load(1),
		&expr.Dynset{SrcRegKey: 1, SetName: counterSet(d, r), Operation: uint32(nftDynsetAdd), Exprs: []expr.Any{&expr.Counter{}}},
	}
}

const nftDynsetAdd = 0 // NFT_DYNSET_OP_ADD

// denial makes the chain that counts a reason and drops.
type denial struct{ countOnly bool }

// chains holds a chain for each counted reason; rules go to them by denyChain.
func (d denial) chains() []*nft.Chain {
	var out []*nft.Chain
	for _, dir := range []core.Direction{core.Egress, core.Ingress} {
		for _, r := range countedReasons[dir] {
			if r == core.ReasonSystem {
				continue
			}
			end := drop()
			if d.countOnly {
				end = accept()
			}
			out = append(out, &nft.Chain{Name: denyChain(dir, r), Rules: []nft.Rule{rule(count(dir, r)), rule(end)}})
		}
	}
	return out
}

func denyChain(d core.Direction, r core.Reason) string {
	if d == core.Egress {
		return "deny/out/" + string(r)
	}
	return "deny/in/" + string(r)
}

func denyOut(r core.Reason) []expr.Any { return goTo(denyChain(core.Egress, r)) }
func denyIn(r core.Reason) []expr.Any  { return goTo(denyChain(core.Ingress, r)) }
