package pathbench

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// trackOnly loads one rule that asks for conntrack's state, which is what turns
// connection tracking on in a namespace, and decides nothing.
func trackOnly() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t := c.AddTable(&nftables.Table{Name: "tracked", Family: family})
		chain := c.AddChain(&nftables.Chain{Name: "on", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xff, 0xff, 0xff, 0xff}},
		}})
	}
	return c.Flush()
}
