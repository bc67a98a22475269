package nft

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/nftables/expr"
)

// ReadRules reads the chains and rules of a table, whoever made it, but not its
// sets: those of others may hold a great deal, and change while they are read.
// It gives nil and no error if there is no such table.
func (c *Conn) ReadRules(ctx context.Context, id TableID) (*Table, error) {
	var table *Table
	err := c.consistent(ctx, func(s *sock) error {
		table = NewTable(id.Family, id.Name)
		if err := s.chains(ctx, table); err != nil {
			return err
		}
		return s.rules(ctx, table)
	})
	if err != nil {
		return nil, fmt.Errorf("read rules of table %s: %w", id, err)
	}
	if len(table.Chains) == 0 {
		return nil, nil
	}
	return table, nil
}

// Extension is a match or a target of iptables, ebtables or arptables in a rule
// that their nft variants made. Info is the C structure that it is to the kernel.
type Extension struct {
	Target   bool
	Name     string
	Revision uint32
	Info     []byte
}

// Attributes of a match and of a target alike (NFTA_MATCH_*, NFTA_TARGET_*).
const (
	attrExtensionName = 1
	attrExtensionRev  = 2
	attrExtensionInfo = 3
)

// AsExtension says whether an expression that was read is an extension.
func AsExtension(e expr.Any) (Extension, bool) {
	u, ok := e.(*Unknown)
	if !ok || u.Name != "match" && u.Name != "target" {
		return Extension{}, false
	}
	return Extension{
		Target: u.Name == "target", Name: attr{data: find(u.Attrs, attrExtensionName)}.str(),
		Revision: find32(u.Attrs, attrExtensionRev), Info: find(u.Attrs, attrExtensionInfo),
	}, true
}

// String is much as nft prints an extension, with the structure as it is.
func (x Extension) String() string {
	kind := "match"
	if x.Target {
		kind = "target"
	}
	text := "xt " + kind + " " + x.Name
	if info := bytes.TrimRight(x.Info, "\x00"); len(info) > 0 {
		text += fmt.Sprintf(" 0x%x", info)
	}
	return text
}

// RuleText is a rule much as nft prints it.
func (t *Table) RuleText(r Rule) string { return t.formatRule(r) }
