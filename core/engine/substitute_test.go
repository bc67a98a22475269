package engine

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/policy"
)

func entry(d core.Direction, port uint16, peer string) core.Entry {
	return core.Entry{Direction: d, Family: core.IPv4, Protocol: core.ProtocolTCP, Span: core.Span{First: port, Last: port}, Peer: core.Peer{Group: peer}}
}

func rules(es ...core.Entry) core.GroupPolicy { return core.GroupPolicy{Entries: es} }

func members(ns ...int) core.AddressSet {
	var s core.AddressSet
	for _, n := range ns {
		s.Members = append(s.Members, ip(n))
	}
	return s
}

func onDevice(n int, dev string, groups ...string) core.NICPolicy {
	return core.NICPolicy{Key: nicKey(n), Bridge: "br0", Devices: []string{dev}, Groups: groups}
}

func rulesetOf(groups map[string]core.GroupPolicy, sets map[string]core.AddressSet, nics ...core.NICPolicy) core.Ruleset {
	r := core.Ruleset{Options: testOptions, Groups: groups, Sets: sets, NICs: map[core.NICKey]core.NICPolicy{}}
	if r.Sets == nil {
		r.Sets = map[string]core.AddressSet{}
	}
	for _, n := range nics {
		r.NICs[n.Key] = n
	}
	return r
}

type groups = map[string]core.GroupPolicy
type sets = map[string]core.AddressSet

func denying(n core.NICPolicy) core.NICPolicy { n.EgressDeny4 = true; return n }

func TestSubstitute(t *testing.T) {
	in, out := entry(core.Ingress, 80, ""), entry(core.Egress, 53, "")
	peer := func(g string) core.Entry { return entry(core.Ingress, 22, g) }
	for name, tc := range map[string]struct {
		enforced, wanted core.Ruleset
		holds            []unit
		want             core.Ruleset
		affected         []int
	}{
		"a policy that stays meets new egress rules": {
			enforced: rulesetOf(groups{"a": rules(in)}, nil, onDevice(1, "vnet1", "a")),
			wanted:   rulesetOf(groups{"a": rules(in, out), "b": rules(in)}, nil, denying(onDevice(1, "vnet1", "a", "b"))),
			holds:    []unit{{nic: nicKey(1)}},
			want:     rulesetOf(groups{"a": rules(in, out), "b": rules(in)}, nil, denying(onDevice(1, "vnet1", "a"))),
			affected: []int{1},
		},
		"a removal that is held back loses its device to the next VM": {
			enforced: rulesetOf(groups{"a": rules(in)}, nil, onDevice(1, "vnet1", "a"), onDevice(3, "vnet3", "a")),
			wanted:   rulesetOf(groups{"a": rules(in)}, nil, onDevice(2, "vnet1", "a")),
			holds:    []unit{{nic: nicKey(1)}, {nic: nicKey(3)}},
			want:     rulesetOf(groups{"a": rules(in)}, nil, onDevice(2, "vnet1", "a"), onDevice(3, "vnet3", "a")),
			affected: []int{1, 3},
		},
		"a NIC that moved to another device is closed": {
			enforced: rulesetOf(groups{"a": rules(in)}, nil, onDevice(1, "vnet1", "a")),
			wanted:   rulesetOf(groups{"a": rules(in)}, nil, onDevice(1, "vnet9", "a")),
			holds:    []unit{{nic: nicKey(1)}},
			want:     rulesetOf(groups{"a": rules(in)}, nil),
			affected: []int{1},
		},
		"rules that stay bring the members that they name back": {
			enforced: rulesetOf(groups{"a": rules(peer("old"))}, sets{"old": members(7)}, onDevice(1, "vnet1", "a")),
			wanted:   rulesetOf(groups{"a": rules(peer("new"))}, sets{"new": members(8)}, onDevice(1, "vnet1", "a")),
			holds:    []unit{{group: "a"}},
			want:     rulesetOf(groups{"a": rules(peer("old"))}, sets{"old": members(7), "new": members(8)}, onDevice(1, "vnet1", "a")),
			affected: []int{1},
		},
		"members that cannot be had keep the rules that name them back": {
			enforced: rulesetOf(groups{"a": rules(in)}, nil, onDevice(1, "vnet1", "a"), onDevice(2, "vnet2", "a")),
			wanted: rulesetOf(groups{"a": rules(peer("new")), "b": rules(in)}, sets{"new": members(8)},
				onDevice(1, "vnet1", "a"), onDevice(2, "vnet2", "b")),
			holds:    []unit{{group: "new"}},
			want:     rulesetOf(groups{"a": rules(in), "b": rules(in)}, nil, onDevice(1, "vnet1", "a"), onDevice(2, "vnet2", "b")),
			affected: []int{1},
		},
		"rules that are kept back leave the group's members alone": {
			enforced: rulesetOf(groups{"b": rules(in)}, nil, onDevice(2, "vnet2", "b")),
			wanted: rulesetOf(groups{"a": rules(peer("new")), "b": rules(peer("a"))}, sets{"a": members(1), "new": members(8)},
				onDevice(1, "vnet1", "a"), onDevice(2, "vnet2", "b")),
			holds:    []unit{{group: "new"}},
			want:     rulesetOf(groups{"b": rules(peer("a"))}, sets{"a": members(1)}, onDevice(2, "vnet2", "b")),
			affected: []int{1},
		},
		"the options stay": {
			enforced: rulesetOf(groups{}, nil),
			wanted:   func() core.Ruleset { r := rulesetOf(groups{}, nil); r.Options.AllowDNS = true; return r }(),
			holds:    []unit{{}},
			want:     rulesetOf(groups{}, nil),
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newEnforcer(nil, Timing{}, nil, nil)
			f.enforced, f.known = policy.Version(tc.enforced), true
			target := &target{Versioned: policy.Version(tc.wanted)}
			for _, u := range tc.holds {
				f.hold(target, u, coretest.ErrRefused)
			}
			got, affected := f.substitute(target)
			if d := cmp.Diff(tc.want, got.Ruleset, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("substitute is wrong (-want +got):\n%s", d)
			}
			if got.Fingerprint != got.Ruleset.Fingerprint() {
				t.Error("the fingerprint is another's")
			}
			want := map[core.NICKey]error{}
			for _, n := range tc.affected {
				want[nicKey(n)] = coretest.ErrRefused
			}
			if d := cmp.Diff(want, affected, cmpopts.EquateErrors()); d != "" {
				t.Errorf("affected NICs (-want +got):\n%s", d)
			}
		})
	}
}
