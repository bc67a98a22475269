package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
)

// Probe asks the kernel whether it can hold a table, by making it: the table is
// built under another name in a transaction that ends with a request which
// always fails, so that nothing of it ever is in force, no packet meets it and
// no generation passes. nil means that the kernel took every object; Errors
// name those it did not. Checks that the kernel makes at the very end (loops,
// and expressions that are bound to certain hooks, as reject is) are not seen.
func (c *Conn) Probe(ctx context.Context, t *Table) error {
	probe := *t
	probe.Name = fmt.Sprintf("probe-%d", os.Getpid())
	tx := Diff(nil, State{}.Add(&probe))
	if tx.err != nil {
		return tx.err
	}
	tx.DeleteTable(TableID{probe.Family, probe.Name + "-not-there"})
	s, err := c.ns.socket()
	if err != nil {
		return err
	}
	defer s.Close()
	refused, err := s.exchange(ctx, tx)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	end := tx.describe(len(tx.msgs)-1, 0)
	for i, e := range refused {
		if e.Object == end && errors.Is(e, syscall.ENOENT) {
			if rest := slices.Concat(refused[:i], refused[i+1:]); len(rest) > 0 {
				return rest
			}
			return nil
		}
	}
	// Not even refused as a whole: the table may be there now.
	if len(refused) > 0 {
		return refused
	}
	return errors.New("probe: the kernel took a transaction that must fail")
}
