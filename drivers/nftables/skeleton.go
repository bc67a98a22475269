package nftables

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// TableName is the name of all our tables, in the families bridge, ip, ip6 and
// netdev. Whatever bears it is ours.
const TableName = "ringwall"

var (
	bridgeTable = nft.TableID{Family: nft.Bridge, Name: TableName}
	ip4Table    = nft.TableID{Family: nft.IPv4, Name: TableName}
	ip6Table    = nft.TableID{Family: nft.IPv6, Name: TableName}
	netdevTable = nft.TableID{Family: nft.NetDev, Name: TableName}
)

// Hook priorities. br_netfilter hands frames to the ip hooks at priority 0 of
// bridge prerouting, so that -300 is before and 10 is after all of them.
const (
	priorityFirst = -300 // bridge prerouting: raw frames, fragments too
	priorityZone  = -450 // ip prerouting: before defragmentation (-400), or two bridges' fragments merge
	priorityStamp = -140 // ip prerouting: after conntrack (-200) and whatever mangle (-150) does to the mark
	priorityRoute = -1   // ip forward
	// ip postrouting, where br_netfilter shows a frame that the bridge's own
	// postrouting (0) has let out. Native: bridge postrouting.
	priorityLeaving = 10
	priorityLast    = 10 // bridge prerouting: defragmented, with conntrack's word
)

// skeleton is what stands whatever the policies are: base chains, guards and
// the definitions of the shared sets. It depends on options alone.
type skeleton struct {
	options core.Options
	marks   marks
	native  bool // nf_conntrack_bridge in br_netfilter's place: native.go
	// oddPorts: some NIC's device is no VM port by its name, so that the
	// dispatch must look names up as well.
	oddPorts bool
	// labels: some NIC is ambiguous, so that flows are labelled.
	labels bool
}

// toVMPort gives the rules that send frames of VM ports to chain; others says
// what becomes of those of other ports. Names that patterns cover cost a compare
// of bytes; only odd ones cost a look-up.
func (s skeleton) toVMPort(device operand, chain string, others []expr.Any) []nft.Rule {
	var rules []nft.Rule
	if s.oddPorts {
		rules = append(rules, rule(in("odd-ports", device), goTo(chain)))
	}
	if len(s.options.Uplinks) > 0 {
		for _, p := range s.options.Uplinks {
			rules = append(rules, rule(name(device, p), others))
		}
		return append(rules, rule(goTo(chain)))
	}
	for _, p := range s.options.VMPorts {
		rules = append(rules, rule(name(device, p), goTo(chain)))
	}
	return append(rules, rule(others))
}

// bridge builds the bridge table without policies.
func (s skeleton) bridge() *nft.Table {
	t := nft.NewTable(bridgeTable.Family, bridgeTable.Name)
	for _, set := range bridgeSets() {
		t.AddSet(set)
	}
	for d, reasons := range countedReasons {
		for _, r := range reasons {
			t.AddSet(newCounterSet(counterSet(d, r)))
		}
	}
	for _, c := range (denial{s.options.CountOnly}).chains() {
		t.AddChain(c)
	}
	for _, c := range s.sourceChains() {
		t.AddChain(c)
	}
	for _, c := range s.egressChains() {
		t.AddChain(c)
	}
	for _, c := range s.ingressChains() {
		t.AddChain(c)
	}

	t.AddChain(&nft.Chain{Name: "prerouting-first", Base: filter(nft.Prerouting, priorityFirst),
		Rules: append([]nft.Rule{rule(s.marks.set(wordUnseen))}, s.toVMPort(inName, "source", accept())...)})
	t.AddChain(&nft.Chain{Name: "prerouting-last", Base: filter(nft.Prerouting, priorityLast),
		Rules: append([]nft.Rule{rule(s.marks.isSenders(), toUnicastMAC(), accept())}, s.toVMPort(inName, "egress", accept())...)})
	t.AddChain(&nft.Chain{Name: "postrouting", Base: filter(nft.Postrouting, 0), Rules: s.toVMPort(outName, "ingress", goTo("elsewhere"))})
	// What goes up to the host, to be routed perhaps, leaves our bits behind:
	// the host's own rules by mark are not disturbed, and what comes down again
	// without a word is the host's own.
	t.AddChain(&nft.Chain{Name: "input", Base: filter(nft.Input, 0),
		Rules: []nft.Rule{rule(s.marks.isNot(wordNone), s.marks.set(wordNone))}})
	t.AddChain(&nft.Chain{Name: "output", Base: filter(nft.Output, 0),
		Rules: []nft.Rule{rule(s.marks.is(wordNone), s.marks.set(wordHost))}})
	// Out by a port that is no user VM's. A flow that begins so may be for a NIC
	// all the same: see leaving.
	t.AddChain(&nft.Chain{Name: "elsewhere", Rules: []nft.Rule{
		rule(s.marks.isNot(wordNew), accept()),
		rule(in("here", etherDst), s.marks.set(wordStray), accept()),
		rule(toGroupMAC(), s.marks.set(wordStray), accept()),
		rule(isProtocol(typeIPv4), in("here4", ip4Dst), s.marks.set(wordStray), accept()),
		rule(isProtocol(typeIPv4), in("here4-prefix", ip4Dst), s.marks.set(wordStray), accept()),
		rule(isProtocol(typeIPv6), in("here6", ip6Dst), s.marks.set(wordStray), accept()),
		rule(isProtocol(typeIPv6), in("here6-prefix", ip6Dst), s.marks.set(wordStray), accept()),
	}})
	if s.native {
		s.addNative(t)
	}
	return t
}

// sharedSets are those of the bridge table that several NICs may put one element
// into: the MACs and addresses that user VMs' NICs have, their pairs' too, on
// whatever bridge. All others are keyed by device.
var sharedSets = []string{"here", "here4", "here6"}

// bridgeSets defines the shared sets; NICs fill them.
func bridgeSets() []*nft.Set {
	dev, mac, ip4, ip6 := nft.TypeIfName, nft.TypeEtherAddr, nft.TypeIPv4, nft.TypeIPv6
	set := func(name string, key ...nft.DataType) *nft.Set { return &nft.Set{Name: name, Key: key} }
	ranges := func(name string, key ...nft.DataType) *nft.Set { return &nft.Set{Name: name, Key: key, Interval: true} }
	verdicts := func(name string) *nft.Set {
		return &nft.Set{Name: name, Key: nft.Types(dev), Data: nft.TypeVerdict}
	}
	return []*nft.Set{
		set("nics", dev), set("system", dev), set("open", dev), set("bare4", dev), set("bare6", dev),
		set("odd-ports", dev), set("unmanaged", dev), set("here", mac),
		set("here4", ip4), set("here6", ip6), ranges("here4-prefix", ip4), ranges("here6-prefix", ip6),
		set("own-mac", dev, mac), set("macs", dev, mac),
		set("src4", dev, mac, ip4), set("src6", dev, mac, ip6), set("link-local6", dev, mac, ip6),
		ranges("src4-prefix", dev, mac, ip4), ranges("src6-prefix", dev, mac, ip6),
		set("arp4", dev, mac, mac, ip4), ranges("arp4-prefix", dev, mac, mac, ip4),
		set("rarp", dev, mac, mac, mac),
		set("dad6", dev, ip6, ip6), set("nd6", dev, ip6), ranges("nd6-prefix", dev, ip6),
		verdicts("out4"), verdicts("out6"), verdicts("in4"), verdicts("in6"),
	}
}

// family is what differs between the ip and the ip6 table.
type family struct {
	core.Family
	table    nft.TableID
	addr     nft.DataType
	src, dst operand
	// of the original direction of a flow
	ctSrc, ctDst operand
	etherType    uint16
}

var (
	fam4 = family{core.IPv4, ip4Table, nft.TypeIPv4, ip4Src, ip4Dst,
		ctTuple(unix.NFT_CT_SRC_IP, 4), ctTuple(unix.NFT_CT_DST_IP, 4), typeIPv4}
	fam6 = family{core.IPv6, ip6Table, nft.TypeIPv6, ip6Src, ip6Dst,
		ctTuple(unix.NFT_CT_SRC_IP6, 16), ctTuple(unix.NFT_CT_DST_IP6, 16), typeIPv6}
	families = []family{fam4, fam6}
)

func familyOf(f core.Family) family {
	if f == core.IPv4 {
		return fam4
	}
	return fam6
}

// ip builds the ip or ip6 table: the zone, and the stamp with conntrack's word.
func (s skeleton) ip(f family) *nft.Table {
	t := nft.NewTable(f.table.Family, f.table.Name)
	for _, set := range ipSets(f) {
		t.AddSet(set)
	}
	t.AddSet(stateMap())

	t.AddChain(&nft.Chain{Name: "zones", Base: filter(nft.Prerouting, priorityZone),
		Rules: []nft.Rule{
			rule(dispatch("entry", inName)),
			// Of another bridge: whoever looks at its marks sees none of ours.
			rule(s.marks.is(wordUnseen), s.marks.set(wordNone)),
		}})
	// Frames to 01:80:c2:00:00:0X go up on the port itself and meet no bridge
	// hook; the netdev chain drops them, this one until that is in place.
	notBridged := drop()
	if s.options.CountOnly {
		notBridged = accept()
	}
	t.AddChain(&nft.Chain{Name: "not-bridged", Rules: []nft.Rule{rule(notBridged)}})

	if !s.native {
		t.AddChain(&nft.Chain{Name: "stamp", Base: filter(nft.Prerouting, priorityStamp),
			Rules: []nft.Rule{
				rule(s.marks.is(wordUnseen), equal(ctState, native32(ctEstablished)),
					ctMark(s.marks.revoked()|s.marks.astray(), 0), s.marks.set(wordEst), accept()),
				rule(s.marks.is(wordUnseen), dispatch("states", ctState)),
			}})
		t.AddChain(&nft.Chain{Name: "leaving", Base: filter(nft.Postrouting, priorityLeaving), Rules: s.leaving()})
	}
	s.addWords(t, []nft.Rule{
		rule(in("owner", inName, etherSrc, f.ctSrc), goTo("established")),
		rule(in("owner", inName, etherSrc, f.ctDst), goTo("established")),
		rule(in("owner-prefix", inName, etherSrc, f.ctSrc), goTo("established")),
		rule(in("owner-prefix", inName, etherSrc, f.ctDst), goTo("established")),
		rule(in("checked", inName, etherSrc), goTo("alien")),
		// What comes out of a tunnel has no MAC to look up, and no NIC sent it.
		rule(goTo("established")),
	})

	// br_netfilter shows bridged frames to ip forward too: those come from a
	// managed bridge and carry a word. The others are routed.
	var routed []nft.Rule
	for _, p := range s.options.Bridges {
		routed = append(routed, rule(name(inName, p), s.marks.isNot(wordNone), accept()))
	}
	routed = append(routed, rule(in("bridges", outName), dispatch("states", ctState)))
	t.AddChain(&nft.Chain{Name: "routed", Base: filter(nft.Forward, priorityRoute), Rules: routed})
	return t
}

// addWords adds the chains that the map "states" leads to: each sets a word.
// related tells those who may speak of a related flow, who go to established,
// from those who may not.
func (s skeleton) addWords(t *nft.Table, related []nft.Rule) {
	revoked := rule(s.marks.isRevoked(), goTo("revoked"))
	// A flow without an answer is new by every packet, also when it was revoked.
	fresh := []nft.Rule{revoked, rule(s.marks.set(wordNew))}
	if s.labels {
		// Behind the word: what has no label, as it is not tracked, ends the rule.
		fresh = append(fresh, rule(labelSender()))
	}
	for _, c := range []*nft.Chain{
		{Name: "new", Rules: fresh},
		{Name: "invalid", Rules: []nft.Rule{rule(s.marks.set(wordInvalid))}},
		{Name: "established", Rules: []nft.Rule{revoked, rule(s.marks.set(wordEst))}},
		{Name: "flow", Rules: []nft.Rule{
			revoked,
			rule(ctMark(s.marks.astray()|s.marks.taken(), s.marks.astray()), goTo("astray")),
			rule(s.marks.set(wordEst)),
		}},
		{Name: "astray", Rules: []nft.Rule{
			rule(equal(ctDirection, []byte{1}), s.marks.set(wordAstrayReply), accept()),
			rule(s.marks.set(wordAstray)),
		}},
		{Name: "revoked", Rules: []nft.Rule{rule(s.marks.set(wordRevoked))}},
		{Name: "alien", Rules: []nft.Rule{rule(s.marks.set(wordAlien))}},
		{Name: "related", Rules: join([]nft.Rule{revoked}, related)},
	} {
		t.AddChain(c)
	}
}

// leaving remembers, in the conntrack mark, who has let the first packet of a
// flow out. A bridge floods what it does not know the port of, and conntrack
// takes a flow for begun when any port lets it out, though its receiver's may
// not. Packets that are let out by none never come here.
func (s skeleton) leaving() []nft.Rule {
	rules := []nft.Rule{
		rule(s.marks.isSenders(), accept()),
		rule(s.marks.is(wordTaken), setCTMark(s.marks.taken())),
		rule(s.marks.is(wordStray), setCTMark(s.marks.astray())),
	}
	if s.labels {
		rules = append(rules, rule(s.marks.is(wordTaken), labelReceiver()))
	}
	return rules
}

// ipSets defines the sets of the ip or ip6 table that links and NICs fill.
func ipSets(f family) []*nft.Set {
	dev, mac := nft.TypeIfName, nft.TypeEtherAddr
	return []*nft.Set{
		{Name: "entry", Key: nft.Types(dev), Data: nft.TypeVerdict},
		{Name: "bridges", Key: nft.Types(dev)},
		{Name: "checked", Key: nft.Types(dev, mac)},
		{Name: "owner", Key: nft.Types(dev, mac, f.addr)},
		{Name: "owner-prefix", Key: nft.Types(dev, mac, f.addr), Interval: true},
	}
}

// emptySets are tables with just the sets that links and NICs fill.
func emptySets() nft.State {
	bridge := nft.NewTable(bridgeTable.Family, TableName)
	for _, s := range bridgeSets() {
		bridge.AddSet(s)
	}
	tables := nft.State{}.Add(bridge)
	for _, f := range families {
		t := nft.NewTable(f.table.Family, TableName)
		for _, s := range ipSets(f) {
			t.AddSet(s)
		}
		tables.Add(t)
	}
	return tables
}

func filter(hook nft.Hook, priority int32) *nft.Base {
	return &nft.Base{Type: nft.TypeFilter, Hook: hook, Priority: priority, Policy: nft.Accept}
}
