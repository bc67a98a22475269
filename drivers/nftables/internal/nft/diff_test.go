package nft

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// From any state to any other: one transaction that the kernel takes, after
// which it holds exactly what was wanted, and a second sync writes nothing.
func TestDiffReachesAnyState(t *testing.T) {
	c := enterNamespace(t)
	ids := []TableID{{Bridge, "ringwall"}, {IPv4, "ringwall"}}
	rapid.Check(t, func(rt *rapid.T) {
		reset(t, c, ids)
		have := State{}
		for step := range 4 {
			want := drawState(rt, ids)
			tx := Diff(have, want)
			if rapid.Bool().Draw(rt, "touched only") {
				tx = Diff(touched(have, want), touched(want, have))
			}
			if _, err := c.Apply(testContext(t), tx); err != nil {
				rt.Fatalf("step %d: %v\nhave %s\nwant %s", step, err, text(have), text(want))
			}
			got, gen, err := c.ReadState(testContext(t), ids...)
			if err != nil {
				rt.Fatal(err)
			}
			if drift := Compare(want, got); len(drift) > 0 {
				rt.Fatalf("step %d: %v\nhave %s\nwant %s", step, drift, text(have), text(want))
			}
			if d := cmp.Diff(want, got); d != "" {
				rt.Fatalf("step %d: Compare saw nothing, but (-want +got):\n%s", step, d)
			}
			again := Diff(got, want)
			if !again.Empty() {
				rt.Fatalf("step %d: second sync has %d messages", step, again.Len())
			}
			if now, err := c.Apply(testContext(t), again); err != nil || now != gen {
				rt.Fatalf("step %d: second sync: generation %d, was %d; %v", step, now, gen, err)
			}
			// Go on from what the kernel tells or from what we remember.
			have = want
			if rapid.Bool().Draw(rt, "restart") {
				have = got
			}
		}
	})
	nftList(t, "ruleset")
}

func reset(t *testing.T, c *Conn, ids []TableID) {
	t.Helper()
	have, _, err := c.ReadState(testContext(t), ids...)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, c, Diff(have, nil))
}

func text(s State) string {
	var b strings.Builder
	for _, id := range sortedIDs(s) {
		b.WriteString(s[id].String())
	}
	return b.String()
}

// touched reduces a state to what differs from another, as a caller does that
// knows its changes. Tables in which a set is made again stay whole.
func touched(s, other State) State {
	part := State{}
	for id, table := range s {
		o := other[id]
		if o == nil {
			part[id] = table
			continue
		}
		whole := false
		p := NewTable(id.Family, id.Name)
		for name, c := range table.Chains {
			if o.Chains[name] == nil || !cmp.Equal(c, o.Chains[name]) {
				p.Chains[name] = c
			}
		}
		for name, set := range table.Sets {
			os := o.Sets[name]
			if os == nil {
				p.Sets[name] = set
				continue
			}
			whole = whole || !set.sameDefinition(os)
			few := *set
			few.Elements = map[Key]Value{}
			for k, v := range set.Elements {
				if ov, ok := os.Elements[k]; !ok || ov != v {
					few.Elements[k] = v
				}
			}
			p.Sets[name] = &few
		}
		if whole {
			p = table
		}
		part[id] = p
	}
	return part
}

func drawState(t *rapid.T, ids []TableID) State {
	s := State{}
	for _, id := range ids {
		if rapid.IntRange(0, 9).Draw(t, "table") > 0 {
			s.Add(drawTable(t, id))
		}
	}
	return s
}

func drawTable(t *rapid.T, id TableID) *Table {
	table := NewTable(id.Family, id.Name)
	var regular []string
	for i := range 4 {
		if rapid.Bool().Draw(t, "chain") {
			name := fmt.Sprintf("r%d", i)
			regular = append(regular, name)
			table.AddChain(&Chain{Name: name})
		}
	}
	for i := range 3 {
		if rapid.Bool().Draw(t, "base chain") {
			table.AddChain(&Chain{Name: fmt.Sprintf("base%d", i), Base: &Base{
				Type: TypeFilter, Policy: Policy(rapid.IntRange(0, 1).Draw(t, "policy")),
				Hook:     rapid.SampledFrom([]Hook{Prerouting, Postrouting}).Draw(t, "hook"),
				Priority: rapid.SampledFrom([]int32{-300, 0}).Draw(t, "priority"),
			}})
		}
	}
	for i := range 5 {
		if rapid.Bool().Draw(t, "set") {
			table.AddSet(drawSet(t, fmt.Sprintf("s%d", i), regular))
		}
	}
	for _, name := range sortedKeys(table.Chains) {
		c := table.Chains[name]
		n := rapid.IntRange(0, 4).Draw(t, "rules")
		for range n {
			c.Rules = append(c.Rules, drawRule(t, table, c, regular))
		}
	}
	return table
}

func drawSet(t *rapid.T, name string, chains []string) *Set {
	fields := rapid.SampledFrom([][]DataType{
		Types(TypeIPv4), Types(TypeIfName), Types(TypePort), Types(TypeIfName, TypeEtherAddr, TypeIPv4), Types(TypeIPv4, TypeProto, TypePort),
	}).Draw(t, "key")
	s := &Set{Name: name, Key: fields, Elements: map[Key]Value{}}
	s.Interval = rapid.Bool().Draw(t, "interval")
	s.Data = rapid.SampledFrom([]DataType{{}, {}, TypeVerdict, TypeMark, TypeZone}).Draw(t, "data")
	s.Comment = rapid.SampledFrom([]string{"", "", "c"}).Draw(t, "comment")
	s.Size = rapid.SampledFrom([]uint32{0, 0, 100}).Draw(t, "size")
	if !s.IsMap() && !s.Interval {
		s.Counter = rapid.Bool().Draw(t, "counter")
	}
	// Ranges on a grid do not overlap, as a driver must see to anyway.
	cells := rapid.SliceOfNDistinct(rapid.IntRange(0, 15), 0, 12, rapid.ID).Draw(t, "elements")
	for _, cell := range cells {
		width := rapid.IntRange(1, 16).Draw(t, "width")
		s.Add(drawValue(t, s, chains), cellFields(s, cell, width)...)
	}
	return s
}

// cellFields is a key in one of 16 cells of 16 values; adjacent ones touch if
// they are as wide as their cell. The last reaches to the end of the type.
func cellFields(s *Set, cell, width int) []Field {
	fields := make([]Field, len(s.Key))
	for i, typ := range s.Key {
		lo := make([]byte, typ.Size)
		hi := make([]byte, typ.Size)
		lo[0], hi[0] = byte(cell*16), byte(cell*16+width-1)
		if !s.Interval {
			hi = lo
		} else {
			for j := 1; j < len(hi); j++ {
				hi[j] = 0xff
			}
		}
		fields[i] = Field{string(lo), string(hi)}
	}
	return fields
}

func drawValue(t *rapid.T, s *Set, chains []string) Value {
	switch {
	case s.IsVerdictMap() && len(chains) > 0 && rapid.Bool().Draw(t, "jumps"):
		chain := rapid.SampledFrom(chains).Draw(t, "target")
		if rapid.Bool().Draw(t, "goto") {
			return Goto(chain)
		}
		return Jump(chain)
	case s.IsVerdictMap():
		return VerdictValue(rapid.SampledFrom([]expr.VerdictKind{
			expr.VerdictAccept, expr.VerdictDrop, expr.VerdictReturn, expr.VerdictContinue,
		}).Draw(t, "verdict"))
	case s.IsMap():
		return Data(Raw([]byte(fmt.Sprintf("%0*d", s.Data.Size, rapid.IntRange(0, 9).Draw(t, "data")))))
	}
	return Value{}
}

// drawRule never makes a loop: chains jump to later ones, only base chains to
// what a verdict map says.
func drawRule(t *rapid.T, table *Table, c *Chain, regular []string) Rule {
	var later []string
	for _, name := range regular {
		if c.Base != nil || name > c.Name {
			later = append(later, name)
		}
	}
	var exprs []expr.Any
	if names := sortedKeys(table.Sets); len(names) > 0 && rapid.Bool().Draw(t, "lookup") {
		s := table.Sets[rapid.SampledFrom(names).Draw(t, "set")]
		if !s.IsVerdictMap() || c.Base != nil {
			exprs = append(loadKey(s), drawLookup(s)...)
		}
	}
	if rapid.Bool().Draw(t, "counter") {
		exprs = append(exprs, &expr.Counter{})
	}
	if rapid.Bool().Draw(t, "mark") {
		exprs = append(exprs, masked(meta(expr.MetaKeyMARK, reg1), reg1, ^uint32(0xf), uint32(rapid.IntRange(0, 15).Draw(t, "bits")))...)
		exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1})
	}
	if len(exprs) > 0 && !ends(exprs[len(exprs)-1]) {
		switch {
		case len(later) > 0 && rapid.Bool().Draw(t, "jump"):
			exprs = append(exprs, verdict(expr.VerdictJump, rapid.SampledFrom(later).Draw(t, "to")))
		default:
			exprs = append(exprs, verdict(rapid.SampledFrom([]expr.VerdictKind{expr.VerdictAccept, expr.VerdictDrop, expr.VerdictReturn}).Draw(t, "end"), ""))
		}
	}
	if len(exprs) == 0 {
		exprs = []expr.Any{&expr.Counter{}}
	}
	return Rule{Exprs: exprs, Comment: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "comment")}
}

func ends(e expr.Any) bool {
	l, ok := e.(*expr.Lookup)
	return ok && l.IsDestRegSet && l.DestRegister == unix.NFT_REG_VERDICT
}

func loadKey(s *Set) []expr.Any {
	var exprs []expr.Any
	reg := uint32(r0)
	for _, typ := range s.Key {
		exprs = append(exprs, load(expr.PayloadBaseNetworkHeader, 0, uint32(typ.Size), reg))
		reg += uint32(padded(typ.Size) / 4)
	}
	return exprs
}

func drawLookup(s *Set) []expr.Any {
	l := &expr.Lookup{SourceRegister: r0, SetName: s.Name}
	switch {
	case s.IsVerdictMap():
		l.IsDestRegSet, l.DestRegister = true, unix.NFT_REG_VERDICT
	case s.IsMap():
		l.IsDestRegSet, l.DestRegister = true, unix.NFT_REG_4
	}
	return []expr.Any{l}
}

// An unchanged state costs no message, a changed element its own two.
func TestDiffIsMinimal(t *testing.T) {
	have := bigState(20, 5)
	if tx := Diff(have, bigState(20, 5)); !tx.Empty() {
		t.Errorf("equal states differ in %d messages", tx.Len())
	}
	tests := []struct {
		name   string
		change func(*Table)
		want   []string
	}{
		{"element added", func(t *Table) { t.Sets["in"].Add(Goto("in-vnet3"), IfName("tap0")) },
			[]string{"add element in"}},
		{"element removed", func(t *Table) { delete(t.Sets["in"].Elements, t.Sets["in"].MakeKey(IfName("vnet3"))) },
			[]string{"delete element in"}},
		{"element changed", func(t *Table) { t.Sets["in"].Add(VerdictValue(expr.VerdictDrop), IfName("vnet3")) },
			[]string{"delete element in", "add element in"}},
		{"rule appended", func(t *Table) { t.Chains["in-vnet3"].Rules = append(bigRules(3, 5), rule(&expr.Counter{})) },
			[]string{"add rule in-vnet3"}},
		{"rule removed", func(t *Table) { t.Chains["in-vnet3"].Rules = bigRules(3, 1) },
			[]string{"flush chain in-vnet3", "add rule in-vnet3"}},
		{"chain removed", func(t *Table) {
			delete(t.Chains, "in-vnet3")
			delete(t.Sets["in"].Elements, t.Sets["in"].MakeKey(IfName("vnet3")))
		}, []string{"flush chain in-vnet3", "delete element in", "delete chain in-vnet3"}},
		{"policy", func(t *Table) { t.Chains["post"].Base.Policy = Drop },
			[]string{"set policy of chain post"}},
		{"priority", func(t *Table) { t.Chains["post"].Base.Priority = 5 },
			[]string{"flush chain post", "delete chain post", "add chain post", "add rule post"}},
		{"set made again", func(t *Table) { t.Sets["in"].Size = 5000 },
			[]string{"flush chain post", "delete set in", "add set in", "add element in", "add rule post"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := bigState(20, 5)
			test.change(want[bigID])
			tx := Diff(have, want)
			var got []string
			for _, m := range tx.msgs {
				got = append(got, fmt.Sprintf("%s %s %s", m.op, m.kind, m.name))
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("messages (-want +got):\n%s", d)
			}
			c := enterNamespace(t)
			apply(t, c, Diff(nil, have))
			apply(t, c, Diff(have, want))
			if drift := Compare(want, State{bigID: read(t, c, bigID)}); len(drift) > 0 {
				t.Error(drift)
			}
		})
	}
}
