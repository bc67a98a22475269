package nft

import (
	"errors"
	"syscall"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A probe finds what the kernel cannot and leaves no trace, not even a
// generation.
func TestProbe(t *testing.T) {
	c := enterNamespace(t)
	gen, err := c.Generation(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{bridgeSample(), ipSample(IPv4), ipSample(IPv6), netdevSample("lo")} {
		if err := c.Probe(testContext(t), table); err != nil {
			t.Errorf("%s: %v", table.TableID, err)
		}
	}

	// No kernel has this hook, this expression, this conntrack key.
	refused := []*Table{
		{TableID: TableID{Bridge, "x"}, Chains: map[string]*Chain{"c": {Name: "c", Base: &Base{Type: TypeFilter, Hook: 9}}}},
		withRule(Bridge, &Unknown{Name: "wishful"}),
		withRule(IPv4, &expr.Ct{Key: 250, Register: reg1}),
	}
	for _, table := range refused {
		var errs Errors
		if err := c.Probe(testContext(t), table); !errors.As(err, &errs) {
			t.Errorf("%s: %v, want a refusal", table, err)
		} else if errs[0].Errno == 0 {
			t.Errorf("%s: refusal without a reason", table)
		}
	}

	// The kernel of the tests may or may not track connections in bridges; the
	// probe must say what an attempt says.
	for name, table := range map[string]*Table{
		"bridge ct state":     withRule(Bridge, &expr.Ct{Key: expr.CtKeySTATE, Register: reg1}),
		"bridge meta ibrname": withRule(Bridge, &expr.Meta{Key: expr.MetaKeyBRIIIFNAME, Register: reg1}),
		"bridge reject":       withRule(Bridge, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH}),
		"netdev egress":       {TableID: TableID{NetDev, "x"}, Chains: map[string]*Chain{"c": {Name: "c", Base: &Base{Type: TypeFilter, Hook: NetDevEgress, Devices: []string{"lo"}}}}},
	} {
		probed := c.Probe(testContext(t), table)
		if now, _ := c.Generation(testContext(t)); now != gen {
			t.Errorf("%s: the probe moved the generation", name)
		}
		_, tried := c.Apply(testContext(t), Diff(nil, State{}.Add(table)))
		if (probed == nil) != (tried == nil) || errno(probed) != errno(tried) {
			t.Errorf("%s: probe says %v, the attempt %v", name, probed, tried)
		}
		t.Logf("%s: %v", name, probed)
		if tried == nil {
			gen = apply(t, c, Diff(State{}.Add(table), nil))
		}
	}
	if ids, err := c.Tables(testContext(t)); err != nil || len(ids) != 0 {
		t.Errorf("tables left: %v, %v", ids, err)
	}
}

func withRule(f Family, exprs ...expr.Any) *Table {
	t := NewTable(f, "x")
	t.AddChain(&Chain{Name: "c", Rules: []Rule{rule(exprs...)}})
	return t
}

func errno(err error) syscall.Errno {
	var e *Error
	if errors.As(err, &e) {
		return e.Errno
	}
	return 0
}
