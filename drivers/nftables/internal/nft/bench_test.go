package nft

import (
	"fmt"
	"testing"

	"github.com/google/nftables/expr"
)

// 1,000 NICs with 20 rules each, from nothing.
func BenchmarkBigTransaction(b *testing.B) {
	c := enterNamespace(b)
	want := bigState(1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		tx := Diff(nil, want)
		b.SetBytes(int64(tx.Size()))
		if _, err := c.Apply(testContext(b), tx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		apply(b, c, Diff(want, nil))
		b.StartTimer()
	}
}

// The same without the kernel: what building and encoding costs.
func BenchmarkBigDiff(b *testing.B) {
	want := bigState(1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		tx := Diff(nil, want)
		b.SetBytes(int64(tx.Size()))
	}
}

// Two equal large states, every rule compared.
func BenchmarkDiffOfEqualStates(b *testing.B) {
	have, want := bigState(1000, 20), bigState(1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		if !Diff(have, want).Empty() {
			b.Fatal("not equal")
		}
	}
}

// One NIC's chain replaced while 1,000 are there.
func BenchmarkReplaceChain(b *testing.B) {
	c := enterNamespace(b)
	apply(b, c, Diff(nil, bigState(1000, 20)))
	table := func(rules []Rule) State {
		t := NewTable(bigID.Family, bigID.Name)
		t.AddChain(&Chain{Name: "in-vnet500", Rules: rules})
		return State{}.Add(t)
	}
	states := []State{table(bigRules(500, 20)), table(bigRules(500, 19))}
	ctx := testContext(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Apply(ctx, Diff(states[i%2], states[(i+1)%2])); err != nil {
			b.Fatal(err)
		}
	}
}

// One element added to, and removed from, sets of 10,000.
func BenchmarkElement(b *testing.B) {
	for _, kind := range []Set{
		{Name: "hash", Key: Types(TypeIPv4)},
		{Name: "interval", Key: Types(TypeIPv4), Interval: true},
		{Name: "pipapo", Key: Types(TypeIPv4, TypePort), Interval: true},
	} {
		b.Run(kind.Name, func(b *testing.B) {
			c := enterNamespace(b)
			table := NewTable(Bridge, "ringwall")
			set := table.AddSet(&kind)
			fields := func(i int) []Field {
				f := []Field{Raw([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), U16(1)}
				return f[:len(set.Key)]
			}
			for i := range 10000 {
				set.Add(VerdictValue(expr.VerdictAccept), fields(2*i)...)
			}
			for k := range set.Elements {
				set.Elements[k] = Value{}
			}
			apply(b, c, Diff(nil, State{}.Add(table)))
			key := set.MakeKey(fields(5001)...)
			ctx := testContext(b)
			b.ReportAllocs()
			for b.Loop() {
				var add, remove Tx
				add.AddElements(table.TableID, set, map[Key]Value{key: {}})
				if _, err := c.Apply(ctx, &add); err != nil {
					b.Fatal(err)
				}
				remove.DeleteElements(table.TableID, set, []Key{key})
				if _, err := c.Apply(ctx, &remove); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Reading all of it back, and comparing.
func BenchmarkRead(b *testing.B) {
	for _, nics := range []int{100, 1000} {
		b.Run(fmt.Sprint(nics), func(b *testing.B) {
			c := enterNamespace(b)
			want := bigState(nics, 20)
			apply(b, c, Diff(nil, want))
			ctx := testContext(b)
			b.ReportAllocs()
			for b.Loop() {
				have, _, err := c.ReadState(ctx, bigID)
				if err != nil {
					b.Fatal(err)
				}
				if drift := Compare(want, have); len(drift) > 0 {
					b.Fatal(drift)
				}
			}
		})
	}
}
