package nftables

import (
	"context"
	"fmt"

	"github.com/google/nftables/expr"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/nftables/internal/nft"
)

// This file is what the native datapath has in place of br_netfilter:
// nf_conntrack_bridge tracks frames in the bridge's own hooks, so that the word
// (word.go) is set there and no frame needs to visit the ip hooks. Everything
// else is shared: who reads the word does not ask who wrote it.
//
// br_netfilter may run beside it, because the host-wide switches are on or some
// other software wants it. It finds the packets tracked and leaves them so.

// Hook priorities in bridge prerouting. nf_conntrack_bridge puts fragments
// together and tracks at -200.
const (
	priorityNativeZone  = -250
	priorityNativeStamp = 5 // after br_netfilter (0), whose ip hooks let the host's rules write marks
)

// bridgeName is nft_meta_bridge's; the ip hooks show the bridge as iifname.
var bridgeName = meta(expr.MetaKeyBRIIIFNAME, 16)

// loads matches when every field is there.
func loads(fields ...operand) []expr.Any {
	var exprs []expr.Any
	for _, f := range fields {
		exprs = append(exprs, f.load(1))
	}
	return exprs
}

// addNative adds to the bridge table what the ip tables do under br_netfilter.
func (s skeleton) addNative(t *nft.Table) {
	t.AddSet(entryMap())
	t.AddSet(stateMap())
	// Asked by the type in the frame, so that no tagged frame gets a zone. Nor
	// must any that is not IP: nf_conntrack_bridge makes those untracked without
	// giving the zone's template back (kernel 6.1), which leaks it.
	ip := func(then []expr.Any) []nft.Rule {
		return []nft.Rule{rule(isEtherType(typeIPv4), then), rule(isEtherType(typeIPv6), then)}
	}
	t.AddChain(&nft.Chain{Name: "zones", Base: filter(nft.Prerouting, priorityNativeZone),
		Rules: ip(dispatch("entry", bridgeName))})
	t.AddChain(&nft.Chain{Name: "stamp", Base: filter(nft.Prerouting, priorityNativeStamp), Rules: join(
		// nf_conntrack_bridge passes malformed packets on with the template of
		// their zone, which `ct state` takes for a new connection. A template has
		// no address, so that the rules that load one are not for it.
		[]nft.Rule{
			rule(isEtherType(typeIPv6), isL4(core.ProtocolICMPv6), equal(ctState, native32(ctUntracked)), goTo("new")), // ND, MLD
			rule(isEtherType(typeIPv4), loads(ip4Dst, fam4.ctSrc), dispatch("states", ctState)),
			rule(isEtherType(typeIPv6), loads(ip6Dst, fam6.ctSrc), dispatch("states", ctState)),
		},
		ip(goTo("invalid")),
	)})
	t.AddChain(&nft.Chain{Name: "leaving", Base: filter(nft.Postrouting, priorityLeaving), Rules: s.leaving()})
	// Who owns an end of a flow is known here by the port.
	related := []nft.Rule{
		rule(notIn("nics", inName), goTo("established")),
		rule(in("system", inName), goTo("established")),
		rule(in("open", inName), goTo("established")),
	}
	for _, own := range []struct {
		set string
		end operand
	}{{"src4", fam4.ctSrc}, {"src4", fam4.ctDst}, {"src6", fam6.ctSrc}, {"src6", fam6.ctDst}} {
		related = append(related,
			rule(in(own.set, inName, etherSrc, own.end), goTo("established")),
			rule(in(own.set+"-prefix", inName, etherSrc, own.end), goTo("established")))
	}
	s.addWords(t, append(related, rule(goTo("alien"))))
}

func entryMap() *nft.Set {
	return &nft.Set{Name: "entry", Key: nft.Types(nft.TypeIfName), Data: nft.TypeVerdict}
}

// addNativeZones puts the zones of bridges into the bridge table.
func (d defs) addNativeZones(e elements, t topology) {
	table := d[bridgeTable]
	table.AddSet(entryMap())
	for name, b := range t.bridges {
		table.AddChain(zoneChain(name, b))
		e.add(bridgeTable, table.Sets["entry"], nft.Goto("zone/"+name), nft.IfName(name))
	}
}

// probeNative asks the kernel for what the native datapath is made of.
func probeNative(ctx context.Context, conn *nft.Conn, m marks) error {
	s := skeleton{options: core.Options{Bridges: []core.Pattern{"probe*"}, VMPorts: []core.Pattern{"probe*"}}, marks: m, native: true}
	t := s.bridge()
	d := defs{bridgeTable: t}
	elems := elements{}
	d.addNativeZones(elems, topology{bridges: map[string]bridge{"probe": {zone: 1}}})
	fill(nft.State{bridgeTable: t}, elems)
	return conn.Probe(ctx, t)
}

// chooseDatapath says whether the native datapath is to be used.
func chooseDatapath(ctx context.Context, conn *nft.Conn, s settings) (native bool, err error) {
	if s.datapath != datapathNative {
		return false, nil
	}
	if err := probeNative(ctx, conn, s.marks); err != nil {
		return false, fmt.Errorf("datapath native: the kernel cannot track connections on bridges "+
			"(modprobe nf_conntrack_bridge nft_meta_bridge, or set datapath: br_netfilter): %w: %w", core.ErrUnsupported, err)
	}
	return true, nil
}
