package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Read reads a table with all that it holds, at one generation. It gives nil
// and no error if there is no such table, and ErrBusy if nftables changed under
// every attempt until the context ended.
func (c *Conn) Read(ctx context.Context, id TableID) (*Table, error) {
	var table *Table
	err := c.consistent(ctx, func(s *sock) (err error) {
		table, err = s.table(ctx, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", id, err)
	}
	return table, nil
}

// ReadState reads several tables at one generation, which it gives too. Tables
// that are not there are not in the state.
func (c *Conn) ReadState(ctx context.Context, ids ...TableID) (State, uint32, error) {
	state := State{}
	var gen uint32
	err := c.consistent(ctx, func(s *sock) (err error) {
		clear(state)
		if gen, err = s.generation(ctx); err != nil {
			return err
		}
		for _, id := range ids {
			t, err := s.table(ctx, id)
			if err != nil {
				return fmt.Errorf("table %s: %w", id, err)
			}
			if t != nil {
				state[id] = t
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read tables: %w", err)
	}
	return state, gen, nil
}

// consistent repeats f, on a socket of its own each time, until no change of
// nftables fell into it.
func (c *Conn) consistent(ctx context.Context, f func(*sock) error) error {
	pause := time.Millisecond
	for {
		err := c.attempt(ctx, f)
		if !errors.Is(err, errInterrupted) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

func (c *Conn) attempt(ctx context.Context, f func(*sock) error) error {
	s, err := c.ns.socket()
	if err != nil {
		return err
	}
	defer s.Close()
	before, err := s.generation(ctx)
	if err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	after, err := s.generation(ctx)
	if err == nil && after != before {
		return errInterrupted
	}
	return err
}

// table reads one table; nil if it is not there.
func (s *sock) table(ctx context.Context, id TableID) (*Table, error) {
	t := NewTable(id.Family, id.Name)
	var body buffer
	body.str(unix.NFTA_TABLE_NAME, id.Name)
	err := s.request(ctx, unix.NFT_MSG_GETTABLE, 0, id.Family, body, func(m nlMessage) error {
		flags := attr{data: find(m.body(), unix.NFTA_TABLE_FLAGS)}.u32()
		t.Dormant = flags&tableDormant != 0
		return nil
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, *Table) error{s.chains, s.rules, s.sets, s.objects} {
		if err := read(ctx, t); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(t.Sets) {
		set := t.Sets[name]
		if set.Dynamic {
			continue
		}
		set.Elements = map[Key]Value{}
		err := s.elements(ctx, id, set, func(e rawElement) error {
			if _, twice := set.Elements[e.key]; twice {
				return errInterrupted
			}
			set.Elements[e.key] = e.value
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return t, nil
}

const tableDormant = 1 // NFT_TABLE_F_DORMANT

func (s *sock) chains(ctx context.Context, t *Table) error {
	return s.request(ctx, unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, t.Family, nil, func(m nlMessage) error {
		// The kernel dumps the chains of all tables of the family.
		if (attr{data: find(m.body(), unix.NFTA_CHAIN_TABLE)}).str() != t.Name {
			return nil
		}
		c := new(Chain)
		for a := range attrs(m.body()) {
			switch a.typ {
			case unix.NFTA_CHAIN_NAME:
				c.Name = a.str()
			case unix.NFTA_CHAIN_HOOK:
				c.base().parseHook(a.data)
			case unix.NFTA_CHAIN_TYPE:
				c.base().Type = ChainType(a.str())
			case unix.NFTA_CHAIN_POLICY:
				c.base().Policy = Policy(a.u32())
			}
		}
		t.AddChain(c)
		return wellFormed(m.body())
	})
}

func (c *Chain) base() *Base {
	if c.Base == nil {
		c.Base = new(Base)
	}
	return c.Base
}

func (b *Base) parseHook(data []byte) {
	for a := range attrs(data) {
		switch a.typ {
		case unix.NFTA_HOOK_HOOKNUM:
			b.Hook = Hook(a.u32())
		case unix.NFTA_HOOK_PRIORITY:
			b.Priority = int32(a.u32())
		case unix.NFTA_HOOK_DEV:
			b.addDevice(a.str())
		case attrHookDevs:
			for dev := range attrs(a.data) {
				b.addDevice(dev.str())
			}
		}
	}
}

// addDevice: a single device is told twice, as such and as a list of one.
func (b *Base) addDevice(name string) {
	if !slices.Contains(b.Devices, name) {
		b.Devices = append(b.Devices, name)
	}
}

func (s *sock) rules(ctx context.Context, t *Table) error {
	var body buffer
	body.str(unix.NFTA_RULE_TABLE, t.Name)
	return s.request(ctx, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, t.Family, body, func(m nlMessage) error {
		var table, chain string
		var exprs []byte
		var rule Rule
		for a := range attrs(m.body()) {
			switch a.typ {
			case unix.NFTA_RULE_TABLE:
				table = a.str()
			case unix.NFTA_RULE_CHAIN:
				chain = a.str()
			case unix.NFTA_RULE_EXPRESSIONS:
				exprs = a.data
			case unix.NFTA_RULE_USERDATA:
				rule.Comment = attr{data: userdata(a.data, udataRuleComment)}.str()
			}
		}
		if err := wellFormed(m.body()); err != nil || table != t.Name {
			return err
		}
		c := t.Chains[chain]
		if c == nil {
			return errInterrupted
		}
		rule.read = appendNormal([]byte{}, exprs)
		rule.Exprs = parseExprs(t.Family, slices.Clone(exprs))
		c.Rules = append(c.Rules, rule)
		return nil
	})
}

func (s *sock) sets(ctx context.Context, t *Table) error {
	var body buffer
	body.str(unix.NFTA_SET_TABLE, t.Name)
	return s.request(ctx, unix.NFT_MSG_GETSET, unix.NLM_F_DUMP, t.Family, body, func(m nlMessage) error {
		if (attr{data: find(m.body(), unix.NFTA_SET_TABLE)}).str() != t.Name {
			return nil
		}
		t.AddSet(parseSet(m.body()))
		return wellFormed(m.body())
	})
}

// elements reads the elements of a set, an interval's two halves as one. A key
// that comes twice is the caller's to notice: hash tables without a size grow
// behind our back, for a while after many elements came in, and a dump that
// goes on in another order then tells some elements twice and others not at
// all. The generation does not show it (seen on 6.18).
func (s *sock) elements(ctx context.Context, id TableID, set *Set, f func(rawElement) error) error {
	var body buffer
	body.str(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name)
	body.str(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	halves := set.Interval && len(set.Key) == 1
	var items []rawElement
	err := s.request(ctx, unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, id.Family, body, func(m nlMessage) error {
		for item := range attrs(find(m.body(), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, err := parseElement(item.data)
			if err != nil {
				return err
			}
			switch {
			case e.catchAll:
				e.key = Key{}
			case halves:
				items = append(items, e)
				continue
			case set.Interval && e.key.To == "":
				e.key.To = e.key.From
			}
			if err := f(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range joinIntervals(items) {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// joinIntervals makes one element with an inclusive end of every start and the
// end that follows it. The kernel gives them in any order.
func joinIntervals(items []rawElement) []rawElement {
	slices.SortFunc(items, func(a, b rawElement) int {
		if c := a.compare(b.element); c != 0 {
			return c
		}
		// Where one interval ends, the next may start.
		switch {
		case a.intervalEnd == b.intervalEnd:
			return 0
		case a.intervalEnd:
			return -1
		}
		return 1
	})
	var joined []rawElement
	open := false
	for _, e := range items {
		if e.intervalEnd {
			// nft puts an end before the first interval, too: it closes nothing.
			if open {
				joined[len(joined)-1].key.To, _ = predecessor(e.key.From)
			}
			open = false
			continue
		}
		e.key.To = lastKey(len(e.key.From))
		joined = append(joined, e)
		open = true
	}
	return joined
}

func lastKey(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return string(b)
}

// ReadElements reads the elements of a set with what their counters have
// counted. It is the only way to see what a dynamic set holds.
func (c *Conn) ReadElements(ctx context.Context, id TableID, set *Set) (map[Key]Element, error) {
	elems := map[Key]Element{}
	err := c.consistent(ctx, func(s *sock) error {
		clear(elems)
		return s.elements(ctx, id, set, func(e rawElement) error {
			x := Element{Value: e.value}
			if e.counter != nil {
				x.Counter = *e.counter
			}
			if _, twice := elems[e.key]; twice {
				return errInterrupted
			}
			elems[e.key] = x
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read elements of %s set %s: %w", id, set.Name, err)
	}
	return elems, nil
}

// Element is what a set holds under a key.
type Element struct {
	Value
	Counter Counter
}

// DeleteElements deletes those of the keys that a dynamic set holds. Others are
// no error: a key that no packet has brought in yet is not there.
func (c *Conn) DeleteElements(ctx context.Context, id TableID, set *Set, keys []Key) error {
	elems, err := c.ReadElements(ctx, id, set)
	if err != nil {
		return err
	}
	present := make([]Key, 0, len(keys))
	for _, k := range slices.Compact(slices.SortedFunc(slices.Values(keys), compareKeys)) {
		if _, ok := elems[k]; ok {
			present = append(present, k)
		}
	}
	if len(present) == 0 {
		return nil
	}
	var tx Tx
	tx.DeleteElements(id, set, present)
	_, err = c.Apply(ctx, &tx)
	return err
}

// Tables lists all tables of the namespace, whoever made them.
func (c *Conn) Tables(ctx context.Context) ([]TableID, error) {
	found := map[TableID]bool{}
	err := c.consistent(ctx, func(s *sock) error {
		clear(found)
		return s.request(ctx, unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, 0, nil, func(m nlMessage) error {
			found[TableID{m.family(), attr{data: find(m.body(), unix.NFTA_TABLE_NAME)}.str()}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return slices.SortedFunc(maps.Keys(found), TableID.compare), nil
}
