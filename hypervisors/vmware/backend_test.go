package vmware

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", path, diff)
	}
}

func planText(t *testing.T, b *Backend, r core.Ruleset) string {
	t.Helper()
	steps, err := b.Plan(t.Context(), r)
	check(t, err)
	lines := make([]string, len(steps))
	for i, s := range steps {
		lines[i] = s.String()
	}
	return strings.Join(append(lines, ""), "\n")
}

// The life of a switch: adopted, changed, in sync, taken down.
func TestSwitch(t *testing.T) {
	v := newVCenter(t, 6)
	b := v.backend()
	if got, want := v.reach(), ".+++++ +.++++ ++.+++ +++.++ ++++.+ +++++."; got != want {
		t.Fatalf("before: %s", got)
	}
	first := v.ruleset(webAndDB, "system", "web", "web", "-", "quiet")
	golden(t, "adopt.plan", planText(t, b, first))
	if n := v.writes(); n != planned(v) {
		t.Errorf("planning wrote %d times", n)
	}
	mustSync(t, b, first)
	// The gateway meets all; web meets web; the rest nobody else; the sixth is closed.
	if got, want := v.reach(), ".++++. +.+... ++.... +..... +..... ......"; got != want {
		t.Errorf("adopted: %s, want %s", got, want)
	}
	groups, entries := v.inventory()
	if diff := cmp.Diff([]string{"ringwall-vlan100-closed", "ringwall-vlan100-community-2001", "ringwall-vlan100-isolated", "ringwall-vlan100-promiscuous"}, groups); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"private vlan 100,100 promiscuous", "private vlan 100,2000 isolated", "private vlan 100,2001 community"}, entries); diff != "" {
		t.Error(diff)
	}

	before := v.writes()
	mustSync(t, v.backend(), first) // another process, in sync
	if n := v.writes() - before; n != 0 {
		t.Errorf("in sync, and yet %d writes", n)
	}

	second := v.ruleset(webAndDB, "system", "db", "web", "db", "web", "-")
	golden(t, "change.plan", planText(t, b, second))
	d := policy.Diff(policy.Version(first), policy.Version(second))
	check(t, b.Apply(t.Context(), d))
	if got, want := v.reach(), ".+++++ +..+.. +...+. ++.... +.+... +....."; got != want {
		t.Errorf("changed: %s, want %s", got, want)
	}
	if err := b.Apply(t.Context(), d); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a delta from another ruleset: %v", err)
	}

	golden(t, "teardown.plan", teardownText(t, b))
	check(t, b.Teardown(t.Context()))
	if got, want := v.reach(), ".+++++ +.++++ ++.+++ +++.++ ++++.+ +++++."; got != want {
		t.Errorf("taken down: %s", got)
	}
	if groups, entries := v.inventory(); len(groups)+len(entries) > 0 {
		t.Errorf("left: %v %v", groups, entries)
	}
	for _, vm := range v.vms() {
		for k := range v.config(vm) {
			if strings.HasPrefix(k, "ringwall.") {
				t.Errorf("%s keeps %s", vm.Name(), k)
			}
		}
	}
}

// planned is how often the test itself has written.
func planned(v *vcenter) int { return 1 + 2*len(v.vms()) }

func teardownText(t *testing.T, b *Backend) string {
	t.Helper()
	_, sw, p, err := b.plan(t.Context(), intent{})
	check(t, err)
	var out strings.Builder
	for _, s := range p.steps(sw.groups) {
		out.WriteString(s.String() + "\n")
	}
	return out.String()
}

func rule(direction core.Direction, p core.Protocol, peers *core.Peers, ports ...core.Span) core.Rule {
	return core.Rule{Direction: direction, Protocol: p, Peers: peers, Ports: ports}
}

// What private VLANs cannot express is refused by name, and nothing is written.
func TestRefused(t *testing.T) {
	v := newVCenter(t, 2)
	everybody := []core.Group{together("web"), together("db")}
	for name, c := range map[string]struct {
		groups []core.Group
		who    string
		change func(r *core.Ruleset, n *core.NICPolicy)
		want   string
	}{
		"ports":        {groups: []core.Group{{Name: "web", Rules: []core.Rule{rule(core.Ingress, core.ProtocolTCP, nil, core.Span{First: 80, Last: 80})}}}, who: "web", want: "group web: group web: ingress ipv4 tcp 80 from 0.0.0.0/0: protocols and ports are not told apart"},
		"everybody":    {groups: []core.Group{{Name: "web", Rules: []core.Rule{rule(core.Ingress, core.AnyProtocol, nil)}}}, who: "web", want: "ingress ipv4 any from 0.0.0.0/0: addresses are not told apart"},
		"other group":  {groups: []core.Group{{Name: "web", Rules: []core.Rule{rule(core.Ingress, core.AnyProtocol, &core.Peers{Groups: []string{"db"}})}}, {Name: "db"}}, who: "web", want: "from group db: only members of one group can share a community"},
		"egress":       {groups: []core.Group{{Name: "web", Rules: []core.Rule{rule(core.Egress, core.AnyProtocol, nil)}}}, who: "web", want: "egress is not filtered"},
		"two":          {groups: everybody, who: "web,db", want: "groups db, web, each of which is a community"},
		"pair":         {groups: everybody, who: "web", change: func(_ *core.Ruleset, n *core.NICPolicy) { n.Pairs = []core.AddressPair{{MAC: macOf(99)}} }, want: "port groups let a NIC send from its own MAC only"},
		"egress deny":  {groups: everybody, who: "web", change: func(_ *core.Ruleset, n *core.NICPolicy) { n.EgressDeny4, n.EgressDeny6 = true, true }, want: "set egress_default: until-rules"},
		"another vlan": {groups: everybody, who: "web", change: func(_ *core.Ruleset, n *core.NICPolicy) { n.Bridge = "vlan200" }, want: "vlan200 is not a primary VLAN"},
		"count only":   {groups: everybody, who: "web", change: func(r *core.Ruleset, _ *core.NICPolicy) { r.Options.CountOnly = true }, want: "set enforce: true"},
		"multicast":    {groups: everybody, who: "web", change: func(r *core.Ruleset, _ *core.NICPolicy) { r.Options.Multicast = core.MulticastDrop }, want: "set multicast: by-rules"},
		"one family": {groups: everybody, who: "web", change: func(r *core.Ruleset, _ *core.NICPolicy) {
			r.Groups["web"] = core.GroupPolicy{Entries: r.Groups["web"].Entries[:1]}
		}, want: "families are not told apart"},
	} {
		t.Run(name, func(t *testing.T) {
			b := v.backend()
			r := v.ruleset(c.groups, c.who)
			for k, n := range r.NICs {
				if c.change != nil {
					c.change(&r, &n)
				}
				r.NICs[k] = n
			}
			before := v.writes()
			err := b.Sync(t.Context(), r)
			if !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, planned := b.Plan(t.Context(), r); planned == nil || planned.Error() != err.Error() {
				t.Errorf("the plan says %v, Sync %v", planned, err)
			}
			if n := v.writes() - before; n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

// Anti-spoofing that is on is refused until the operator has said that checking
// MACs is enough.
func TestAntiSpoofing(t *testing.T) {
	v := newVCenter(t, 1)
	strict := v.backend(func(s core.Settings) { delete(s, "anti_spoofing") })
	r := v.ruleset(webAndDB, "web")
	err := strict.Sync(t.Context(), r)
	var o *core.ObjectError
	if !errors.As(err, &o) || len(o.NICs) != 1 || !strings.Contains(err.Error(), "anti_spoofing: mac-only") {
		t.Errorf("got %v", err)
	}
	if slices.Contains(strict.Info().Features, core.FeatureAntiSpoof) || !slices.Contains(v.backend().Info().Features, core.FeatureAntiSpoof) {
		t.Error("features")
	}
	for k, n := range r.NICs {
		n.SpoofingAllowed = true
		r.NICs[k] = n
	}
	mustSync(t, strict, r)
	// The policy that may do nothing is always taken: what is refused is closed by it.
	for k, n := range r.NICs {
		r.NICs[k] = core.NICPolicy{Key: k, VM: n.VM, Bridge: n.Bridge, EgressDeny4: true, EgressDeny6: true}
	}
	mustSync(t, strict, r)
}

// A task that fails half way leaves everything as it was; the next Sync goes
// through.
func TestTaskFails(t *testing.T) {
	v := newVCenter(t, 4)
	b := v.backend()
	first := v.ruleset(webAndDB, "system", "web", "web", "-")
	mustSync(t, b, first)
	old := v.reach()
	second := v.ruleset(webAndDB, "system", "db", "db", "web")
	victim := v.vms()[3].Reference()
	for _, c := range [][2]string{
		{"AddDVPortgroup_Task", "creating port groups"}, {"ReconfigureDvs_Task", "private VLAN map of switch DVS0"},
		{"ReconfigureDVPortgroup_Task", "changing port group"}, {"ReconfigVM_Task", "moving NICs of VM"},
	} {
		method, want := c[0], c[1]
		v.on(&v.fail, func(m string, this types.ManagedObjectReference) types.BaseMethodFault {
			if m == method && (m != "ReconfigVM_Task" || this == victim) {
				return &types.GenericVmConfigFault{Reason: "no"}
			}
			return nil
		})
		err := b.Sync(t.Context(), second)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", method, err)
		}
		var o *core.ObjectError
		if named := errors.As(err, &o); named != (method == "ReconfigVM_Task") || named && (len(o.NICs) != 1 || o.NICs[0].MAC != macOf(4)) {
			t.Errorf("%s: names %+v", method, o)
		}
		if got := v.reach(); got != old {
			t.Errorf("%s: %s, want as before %s", method, got, old)
		}
		seen, err := b.Observe(t.Context())
		check(t, err)
		if seen.Fingerprint != first.Fingerprint() {
			t.Errorf("%s: another fingerprint than the one in force", method)
		}
	}
	v.on(&v.fail, nil)
	mustSync(t, b, second)
	if got, want := v.reach(), ".+++ +.+. ++.. +..."; got != want {
		t.Errorf("healed: %s, want %s", got, want)
	}
}

// Entries, port groups and NICs of others are left alone; their ids are not
// given away; their isolated VLAN is used, since there can be but one.
func TestForeign(t *testing.T) {
	v := newVCenter(t, 3)
	theirs := []entry{{100, 100, Promiscuous}, {100, 150, Isolated}, {100, 2000, Community}, {300, 300, Promiscuous}, {300, 301, Community}}
	v.editMap(types.ConfigSpecOperationAdd, theirs...)
	v.addPortGroup("their-net", &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 2001})
	v.connect(v.vms()[2], v.portGroup("their-net"))
	b := v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "web", "-"))
	_, entries := v.inventory()
	if diff := cmp.Diff([]string{"private vlan 100,100 promiscuous", "private vlan 100,150 isolated", "private vlan 100,2000 community",
		"private vlan 100,2002 community", "private vlan 300,300 promiscuous", "private vlan 300,301 community"}, entries); diff != "" {
		t.Error(diff)
	}
	if at := v.at(v.vms()[2]); at != "their-net" {
		t.Errorf("a NIC on a VLAN that is not managed was moved to %s", at)
	}
	check(t, b.Teardown(t.Context()))
	if groups, entries := v.inventory(); len(groups) > 0 || len(entries) != len(theirs) {
		t.Errorf("left: %v %v", groups, entries)
	}
}

// What somebody else changes is seen, named and put right.
func TestDrift(t *testing.T) {
	v := newVCenter(t, 4)
	b := v.backend()
	r := v.ruleset(webAndDB, "system", "web", "web", "-")
	mustSync(t, b, r)
	want := v.reach()
	fresh := v.portGroup("ringwall-vlan100-isolated")
	for name, c := range map[string]struct {
		change func()
		object string
	}{
		"nic moved": {func() { v.connect(v.vms()[3], v.network) }, "nic " + macOf(4).String() + " of VM " + v.vms()[3].Name()},
		"forged macs": {func() {
			v.loosen(fresh, func(s *types.VMwareDVSPortSetting) { *s.SecurityPolicy.ForgedTransmits.Value = true })
		}, "port group ringwall-vlan100-isolated"},
		"plain vlan": {func() {
			v.loosen(fresh, func(s *types.VMwareDVSPortSetting) {
				s.Vlan = &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 100}
			})
		}, "port group ringwall-vlan100-isolated"},
		"unblocked": {func() {
			v.loosen(v.portGroup("ringwall-vlan100-closed"), func(s *types.VMwareDVSPortSetting) { *s.Blocked.Value = false })
		}, "port group ringwall-vlan100-closed"},
		"entry and all": {func() {
			v.loosen(v.portGroup("ringwall-vlan100-community-2001"), func(s *types.VMwareDVSPortSetting) { s.Vlan = &types.VmwareDistributedVirtualSwitchVlanIdSpec{} })
			v.editMap(types.ConfigSpecOperationRemove, entry{100, 2001, Community})
		}, "private vlan 100,2001 community"},
	} {
		t.Run(name, func(t *testing.T) {
			c.change()
			o, err := b.Observe(t.Context())
			check(t, err)
			if !slices.ContainsFunc(o.Drift, func(d core.Drift) bool { return d.Object == c.object }) {
				t.Errorf("drift %+v does not name %s", o.Drift, c.object)
			}
			mustSync(t, b, r)
			if got := v.reach(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// Ids run out by name, and ids are kept.
func TestIDs(t *testing.T) {
	v := newVCenter(t, 2)
	b := v.backend(func(s core.Settings) { s["networks"] = []any{"100:2000-2001"} })
	mustSync(t, b, v.ruleset(webAndDB, "web"))
	err := b.Sync(t.Context(), v.ruleset(webAndDB, "web", "db"))
	var o *core.ObjectError
	if !errors.As(err, &o) || !slices.Equal(o.Groups, []string{"db"}) || !strings.Contains(err.Error(), "widen its range") {
		t.Errorf("got %v", err)
	}
	b = v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "-", "db"))
	mustSync(t, b, v.ruleset(webAndDB, "web", "db"))
	groups, _ := v.inventory()
	if diff := cmp.Diff([]string{"ringwall-vlan100-closed", "ringwall-vlan100-community-2001", "ringwall-vlan100-community-2002", "ringwall-vlan100-isolated"}, groups); diff != "" {
		t.Error(diff)
	}
}

// A NIC without a port group to go back to is named; nothing is cut.
func TestTeardownStray(t *testing.T) {
	v := newVCenter(t, 2)
	b := v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "web", "web"))
	v.setKeys(v.vms()[0], homeKey(v.card(v.vms()[0]).GetVirtualEthernetCard().Key), "")
	before := v.writes()
	err := b.Teardown(t.Context())
	if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), v.vms()[0].Name()) {
		t.Errorf("got %v", err)
	}
	if v.writes() != before {
		t.Error("something was written")
	}
	v.connect(v.vms()[0], v.network)
	check(t, b.Teardown(t.Context()))
	if groups, entries := v.inventory(); len(groups)+len(entries) > 0 {
		t.Errorf("left: %v %v", groups, entries)
	}
}
