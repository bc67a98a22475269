package iptables

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/ipset"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// about ties an object to what it is made for, in errors and drift.
type about struct {
	nic   core.NICKey
	group string
}

// nicView is a NIC that is plugged in on a managed bridge, with all that its
// chains are made of.
type nicView struct {
	policy     core.NICPolicy
	names      names
	options    core.Options
	groups     map[string]core.GroupPolicy
	marks      marks
	layout     layout
	slotNumber int
	slot       uint32
	shared     bool
	owners     bool // flows bear whose they are
}

func (v nicView) set(t *xtables.Table, chain string, rules ...xtables.Rule) {
	t.Set(chain, about{nic: v.policy.Key}, rules...)
}

func (v nicView) egress() side {
	return side{nic: v.policy.Key, direction: core.Egress, countOnly: v.options.CountOnly}
}

func (v nicView) ingress() side {
	return side{nic: v.policy.Key, direction: core.Ingress, countOnly: v.options.CountOnly}
}

func (v nicView) system() bool { return v.policy.Kind == core.SystemVM }

// objects are all that stands in the kernel for a ruleset.
type objects struct {
	rules xtables.State
	sets  ipset.Sets
	views []nicView
}

// renderer makes objects of a ruleset.
type renderer struct {
	settings settings
	topo     topology
}

// nics gives the views of the NICs to be rendered, in order.
func (r renderer) nics(rs core.Ruleset) ([]nicView, error) {
	var plugged []core.NICPolicy
	for _, n := range rs.NICs {
		if len(n.Devices) > 0 && r.topo.has(n.Bridge) {
			plugged = append(plugged, n)
		}
	}
	slices.SortFunc(plugged, func(a, b core.NICPolicy) int {
		return cmp.Or(cmp.Compare(a.Key.VM, b.Key.VM), slices.Compare(a.Key.MAC[:], b.Key.MAC[:]))
	})
	slots, err := assignSlots(plugged, len(r.settings.marks.slots))
	if err != nil {
		return nil, err
	}
	called := assignNames(plugged)
	views := make([]nicView, len(plugged))
	for i, n := range plugged {
		number := slots.slot[n.Key]
		views[i] = nicView{policy: n, names: called[n.Key], options: rs.Options, groups: rs.Groups, marks: r.settings.marks,
			layout: r.settings.layout, slotNumber: number, slot: r.settings.marks.slots[number], shared: slots.shared[n.Key], owners: ambiguous(rs)}
	}
	return views, nil
}

// all renders everything.
func (r renderer) all(rs core.Ruleset) (objects, error) {
	views, err := r.nics(rs)
	if err != nil {
		return objects{}, err
	}
	o := objects{rules: xtables.State{}, sets: ipset.Sets{}, views: views}
	r.frames(o.rules, rs.Options, views, nil)
	for _, f := range core.Families {
		r.packets(o, rs, f, views)
	}
	for name, s := range rs.Sets {
		addMembers(name, s, o.sets)
	}
	return o, nil
}

// frames renders ebtables. shut are devices that pass nothing, whatever their
// names.
func (r renderer) frames(state xtables.State, o core.Options, views []nicView, shut []string) {
	m := r.settings.marks
	nat, filter := xtables.NewTable(), xtables.NewTable()
	state[xtables.TableID{Family: xtables.Bridge, Name: "nat"}] = nat
	state[xtables.TableID{Family: xtables.Bridge, Name: "filter"}] = filter
	nat.Set(chainMine, nil)
	filter.Set(chainMine, nil)

	nat.Set(chainBefore, nil, rule(frameUnmark(m.all)))
	for _, b := range r.topo.bridges {
		nat.Add(chainBefore, rule(frameTo(b.mac), frameMark(m.home, "CONTINUE")))
	}
	filter.Set(chainForward, nil, rule(frameUnmark(m.home)))
	for _, macs := range macsHere(views) {
		filter.Add(chainForward, rule(opt("--among-dst", macs), frameMark(m.home, "CONTINUE")))
	}
	filter.Set(chainInput, nil)
	// What the host sends on its own behalf bears no mark of ours when it comes
	// to the bridge; what it routes does.
	filter.Set(chainOutput, nil, rule(frameMarked(0, m.routed), jump(chainHost)))
	filter.Set(chainHost, nil, rule(frameUnmark(m.all)), rule(frameMark(m.host, "ACCEPT")))

	nat.Hook("PREROUTING", rule(jump(chainBefore)))
	known := map[string]bool{}
	for _, v := range views {
		v.addFrames(nat, filter, known)
	}
	nat.Hook("PREROUTING", rule(jump(chainEntry)))
	nat.Hook("POSTROUTING", rule(jump(chainExit)))
	filter.Hook("FORWARD", rule(jump(chainForward)))
	filter.Hook("OUTPUT", rule(jump(chainOutput)))
	filter.Hook("INPUT", rule(jump(chainInput)))
	// The host's own rules by mark are not disturbed by our bits.
	filter.Add(chainInput, rule(frameUnmark(m.all)))
	r.closedPorts(nat, o, views, known, shut)
}

// addFrames makes a NIC's part of ebtables.
func (v nicView) addFrames(nat, filter *xtables.Table, known map[string]bool) {
	for _, device := range v.policy.Devices {
		known[device] = true
	}
	if v.system() {
		return
	}
	v.addSource(nat)
	v.addDestination(filter)
	v.addExit(nat)
	out := v.egress()
	unseen := frameMarked(v.marks.from, v.marks.from|v.marks.seen)
	for _, device := range v.policy.Devices {
		nat.Hook("PREROUTING", rule(opt("-i", device), jump(v.names.frame(partIn))))
		nat.Hook("POSTROUTING", rule(opt("-o", device), jump(v.names.frame(partOut))))
		filter.Add(chainForward,
			out.denyFrame(core.ReasonUnfiltered, "CONTINUE", opt("-i", device), unseen),
			rule(opt("-o", device), jump(v.names.frame(partTo))))
		filter.Add(chainInput,
			out.denyFrame(core.ReasonLinkLocal, "CONTINUE", opt("-i", device), opt("-d", reservedMAC)),
			out.denyFrame(core.ReasonUnfiltered, "CONTINUE", opt("-i", device), unseen))
		filter.Add(chainOutput, rule(opt("-o", device), jump(v.names.frame(partTo))))
	}
}

// closedPorts renders what becomes of ports that no NIC policy names. Those that
// are known are counted each; the patterns close what comes up a moment later.
func (r renderer) closedPorts(nat *xtables.Table, o core.Options, views []nicView, known map[string]bool, shut []string) {
	m := r.settings.marks
	nat.Set(chainEntry, nil)
	// Of a NIC's IP, nothing leaves that the ip hooks have not passed.
	if !o.CountOnly {
		nat.Set(chainExit, nil, rule(frameMarked(m.from, m.from|m.pass|m.routed), drop()))
	} else {
		nat.Set(chainExit, nil)
	}
	pass := func(option, device string) xtables.Rule { return rule(opt(option, device), giveBack()) }
	for _, device := range r.topo.unmanaged {
		if !known[device] {
			nat.Add(chainEntry, pass("-i", device))
			nat.Add(chainExit, pass("-o", device))
		}
	}
	for _, v := range views {
		for _, device := range v.policy.Devices {
			if v.system() {
				nat.Add(chainEntry, pass("-i", device))
				nat.Add(chainExit, pass("-o", device))
			}
		}
	}
	for _, device := range closed(r.topo.guarded, shut) {
		if known[device] {
			continue
		}
		out := side{device: device, direction: core.Egress, countOnly: o.CountOnly}
		in := side{device: device, direction: core.Ingress, countOnly: o.CountOnly}
		nat.Add(chainEntry, out.denyFrame(core.ReasonClosedPort, "RETURN", opt("-i", device)))
		nat.Add(chainExit, in.denyFrame(core.ReasonClosedPort, "RETURN", opt("-o", device)))
	}
	if o.CountOnly {
		return
	}
	for _, p := range o.Uplinks {
		nat.Add(chainEntry, rule(device("-i", p), giveBack()))
		nat.Add(chainExit, rule(device("-o", p), giveBack()))
	}
	patterns := o.VMPorts
	if len(o.Uplinks) > 0 {
		patterns = []core.Pattern{"*"}
	}
	for _, p := range patterns {
		nat.Add(chainEntry, rule(device("-i", p), drop()))
		nat.Add(chainExit, rule(device("-o", p), drop()))
	}
}

func closed(guarded, shut []string) []string {
	all := slices.Concat(guarded, shut)
	slices.Sort(all)
	return slices.Compact(all)
}

// device matches a pattern, whose * the programs write +.
func device(option string, p core.Pattern) options {
	if p == "*" {
		return nil
	}
	name, wild := strings.CutSuffix(string(p), "*")
	if wild {
		name += "+"
	}
	return opt(option, name)
}

// packets renders iptables or ip6tables.
func (r renderer) packets(o objects, rs core.Ruleset, f core.Family, views []nicView) {
	m := r.settings.marks
	family := map[core.Family]xtables.Family{core.IPv4: xtables.IPv4, core.IPv6: xtables.IPv6}[f]
	raw, mangle, filter := xtables.NewTable(), xtables.NewTable(), xtables.NewTable()
	o.rules[xtables.TableID{Family: family, Name: "raw"}] = raw
	o.rules[xtables.TableID{Family: family, Name: "mangle"}] = mangle
	o.rules[xtables.TableID{Family: family, Name: "filter"}] = filter

	raw.Hook("PREROUTING", rule(jump(chainZones)))
	raw.Set(chainZones, nil)
	mangle.Hook("PREROUTING", rule(jump(chainSeen)))
	mangle.Set(chainSeen, nil)
	mangle.Set(chainSend, nil)
	for _, b := range r.topo.bridges {
		raw.Add(chainZones,
			// What goes up without br_netfilter having seen it is the host's.
			rule(opt("-i", b.name), module("physdev", xtables.Opt("--physdev-is-in")), marked(0, m.home), jump("CT"), opt("--zone", zoneText(b.zone))),
			rule(opt("-i", b.name), giveBack()))
		mangle.Add(chainSeen, rule(opt("-i", b.name), module("physdev", xtables.Opt("--physdev-is-in")), jump(chainSend)),
			// Only what the sender's rows have passed is seen.
			rule(opt("-i", b.name), setMark(m.seen, m.seen)))
	}
	r.notBridged(raw, rs.Options, views)

	for i, slot := range m.slots {
		filter.Set(okChain(i), nil, rule(setMark(m.pass|slot, m.pass|slot)))
	}
	filter.Set(chainReceive, nil)
	filter.Set(chainBridged, nil,
		rule(jump(chainReceive)),
		rule(state("NEW"), jump(chainBegin)),
		rule(established("ORIGINAL"), flowMarked(m.astray, m.astray|m.taken), jump(chainTake)),
		rule(setMark(m.pass, m.pass)), rule(accept()))
	r.beginnings(filter, f, views, o.sets)
	byBridge := map[string][]nicView{}
	for _, v := range views {
		byBridge[v.policy.Bridge] = append(byBridge[v.policy.Bridge], v)
		v.addPackets(mangle, filter, f, o.sets)
	}
	// A NIC of which only ebtables knows, or does not know any more, while a
	// change is under way or after somebody's edit.
	if !rs.Options.CountOnly {
		mangle.Add(chainSend, rule(marked(m.from, m.from), drop()))
		filter.Add(chainReceive, rule(marked(m.dest, m.dest), drop()), rule(marked(m.mine, m.mine), drop()))
	}
	for _, b := range r.topo.bridges {
		r.settings.layout.addBridge(filter, f, b, byBridge[b.name])
	}
	for _, b := range r.topo.bridges {
		filter.Hook("FORWARD", rule(opt("-o", b.name), jump(routedChain(b.name))))
		filter.Set(routedChain(b.name), nil, r.routed(f, byBridge[b.name])...)
	}
	r.settings.layout.addDefaults(filter, f, views)
}

// beginnings notes, in the conntrack mark, who lets out a packet that begins a
// flow: its receiver's port, or another one although a NIC here has the MAC or
// the address. docs/semantics.md, "Flows".
func (r renderer) beginnings(filter *xtables.Table, f core.Family, views []nicView, sets ipset.Sets) {
	m := r.settings.marks
	here := ipset.New(ipset.HashNet, f)
	for _, v := range views {
		if !v.system() && hasFamily(v.policy, f) {
			for _, p := range prefixes(identities(v.policy, f)) {
				here.Add(p)
			}
		}
	}
	name := hereSet(f)
	sets[name] = here
	taken, astray := markFlow(m.taken, m.taken), markFlow(m.astray, m.astray)
	own := marked(m.dest|m.mine, m.dest|m.mine)
	// A NIC that is not checked takes all that its MAC is sent.
	nobodys := join(marked(m.mine, m.dest|m.mine), notInSet(name, "dst"))
	filter.Set(chainTake, nil, rule(own, taken), rule(nobodys, taken))
	filter.Set(chainBegin, nil,
		rule(own, taken), rule(own, giveBack()),
		rule(nobodys, taken), rule(nobodys, giveBack()),
		rule(marked(m.dest, m.dest), astray),
		rule(marked(m.mine, m.mine), astray),
		rule(marked(m.home, m.home), astray),
		rule(inSet(name, "dst"), astray),
		rule(toGroup(), astray))
}

// notBridged drops IP that a VM port hands up itself: frames to 01:80:c2:00:00:0X,
// which meet no hook of ebtables.
func (r renderer) notBridged(raw *xtables.Table, o core.Options, views []nicView) {
	var rules []xtables.Rule
	add := func(device string, d side, reason core.Reason) {
		if !o.IsVMPort(device) {
			raw.Add(chainZones, rule(opt("-i", device), jump(chainPorts)))
		}
		rules = append(rules, d.deny(reason, opt("-i", device)))
	}
	known := map[string]bool{}
	for _, v := range views {
		for _, device := range v.policy.Devices {
			if known[device] = true; !v.system() {
				add(device, v.egress(), core.ReasonLinkLocal)
			}
		}
	}
	for _, device := range r.topo.guarded {
		if !known[device] {
			add(device, side{device: device, direction: core.Egress, countOnly: o.CountOnly}, core.ReasonClosedPort)
		}
	}
	raw.Set(chainPorts, nil, rules...)
	if len(o.Uplinks) > 0 {
		raw.Add(chainZones, rule(jump(chainPorts)))
		return
	}
	for _, p := range o.VMPorts {
		raw.Add(chainZones, rule(device("-i", p), jump(chainPorts)))
	}
}

// addPackets makes a NIC's part of iptables or ip6tables, and its sets.
func (v nicView) addPackets(mangle, filter *xtables.Table, f core.Family, sets ipset.Sets) {
	for _, device := range v.policy.Devices {
		if v.system() {
			mangle.Add(chainSend, v.egress().count(core.ReasonSystem, fromPort(device), giveBack()))
			filter.Add(chainReceive, v.ingress().count(core.ReasonSystem, toPort(device), giveBack()))
			continue
		}
		mangle.Add(chainSend, rule(fromPort(device), goTo(v.names.own(partSend))))
		filter.Add(chainReceive, rule(toPort(device), goTo(v.names.own(partReceive))))
	}
	v.addSets(f, sets)
	if v.system() {
		return
	}
	v.addSender(mangle, f)
	v.addReceiver(filter, f)
	v.addRules(mangle, filter, f, sets)
}

// addSets makes the sets of the NIC's addresses.
func (v nicView) addSets(f core.Family, sets ipset.Sets) {
	kind := ipset.HashIP
	if f == core.IPv6 {
		kind = ipset.HashNet
	}
	own, pairs := ipset.New(kind, f), ipset.New(ipset.HashNet, f)
	own.About, pairs.About = about{nic: v.policy.Key}, about{nic: v.policy.Key}
	for _, p := range prefixes(identities(v.policy, f)) {
		if p.IsSingleIP() || f == core.IPv6 {
			own.Add(p)
		} else {
			pairs.Add(p)
		}
	}
	sets[v.names.set(f)] = own
	if len(pairs.Members) > 0 {
		sets[v.names.pairSet()] = pairs
	}
}

// routed judges what the host routes to a bridge, by destination: the port that
// it will leave by is not known yet.
func (r renderer) routed(f core.Family, views []nicView) []xtables.Rule {
	m := r.settings.marks
	rules := []xtables.Rule{rule(setMark(m.routed, m.all))}
	var last []xtables.Rule
	for _, v := range views {
		if v.system() {
			continue
		}
		matches := []options{inSet(v.names.set(f), "dst")}
		if f == core.IPv4 && slices.ContainsFunc(identities(v.policy, f), func(id identity) bool { return !id.prefix.IsSingleIP() }) {
			matches = append(matches, inSet(v.names.pairSet(), "dst"))
		}
		then := goTo(v.names.own(partRouted))
		if v.shared {
			then = jump(v.names.own(partRouted))
		}
		if v.policy.SpoofingAllowed {
			matches = []options{nil} // whatever arrives at the port is for it
		}
		for _, match := range matches {
			if v.shared {
				rules = append(rules, rule(match, then))
			} else {
				last = append(last, rule(match, then))
			}
		}
	}
	return append(rules, last...)
}
