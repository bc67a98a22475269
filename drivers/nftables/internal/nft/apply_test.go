package nft

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// small is a table to break.
func small() *Table {
	t := NewTable(Bridge, "ringwall")
	src := t.AddSet(&Set{Name: "src4", Key: Types(TypeIfName, TypeEtherAddr)})
	src.Add(Value{}, IfName("vnet0"), MAC(macA))
	out := t.AddSet(&Set{Name: "out", Key: Types(TypeIfName), Data: TypeVerdict})
	out.Add(Goto("out-vnet0"), IfName("vnet0"))
	t.AddChain(&Chain{Name: "out-vnet0", Rules: []Rule{rule(verdict(expr.VerdictAccept, ""))}})
	t.AddChain(&Chain{Name: "early", Base: &Base{Type: TypeFilter, Hook: Prerouting, Priority: -300, Policy: Accept}, Rules: []Rule{
		rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "out", IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}),
	}})
	return t
}

// Every refusal names its object, and nothing of the transaction is in force.
func TestErrorsNameObjects(t *testing.T) {
	tests := []struct {
		name   string
		build  func(tx *Tx, id TableID, table *Table)
		object string
		op     string
		errno  syscall.Errno
	}{
		{"element with another verdict", func(tx *Tx, id TableID, table *Table) {
			elems := map[Key]Value{}
			for i := range 5000 {
				elems[table.Sets["out"].MakeKey(IfName(fmt.Sprintf("tap%d", i)))] = Jump("out-vnet0")
			}
			elems[table.Sets["out"].MakeKey(IfName("vnet0"))] = Jump("out-vnet0")
			tx.AddElements(id, table.Sets["out"], elems)
		}, `bridge ringwall set out element "vnet0" : jump out-vnet0`, "add", unix.EEXIST},
		{"element to no chain", func(tx *Tx, id TableID, table *Table) {
			tx.AddElements(id, table.Sets["out"], map[Key]Value{table.Sets["out"].MakeKey(IfName("tap1")): Goto("nowhere")})
		}, `bridge ringwall set out element "tap1" : goto nowhere`, "add", unix.ENOENT},
		{"element that is not there", func(tx *Tx, id TableID, table *Table) {
			s := table.Sets["src4"]
			tx.DeleteElements(id, s, []Key{s.MakeKey(IfName("vnet0"), MAC(macB))})
		}, `bridge ringwall set src4 element "vnet0" . 02:00:00:00:00:0b`, "delete", unix.ENOENT},
		{"rule with no set", func(tx *Tx, id TableID, table *Table) {
			tx.AppendRules(id, "out-vnet0", []Rule{
				rule(verdict(expr.VerdictReturn, "")),
				rule(meta(expr.MetaKeyIIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "none"}),
			})
		}, "bridge ringwall chain out-vnet0 rule 2", "add", unix.ENOENT},
		{"rule the kernel cannot", func(tx *Tx, id TableID, table *Table) {
			tx.AppendRules(id, "early", []Rule{rule(&expr.Cmp{Op: 99, Register: reg1, Data: []byte{1}})})
		}, "bridge ringwall chain early rule 1", "add", unix.EINVAL},
		{"chain in use", func(tx *Tx, id TableID, table *Table) { tx.DeleteChain(id, "out-vnet0") },
			"bridge ringwall chain out-vnet0", "delete", unix.EBUSY},
		{"set in use", func(tx *Tx, id TableID, table *Table) { tx.DeleteSet(id, "out") },
			"bridge ringwall set out", "delete", unix.EBUSY},
		{"set that is there", func(tx *Tx, id TableID, table *Table) { tx.AddSet(id, table.Sets["src4"]) },
			"bridge ringwall set src4", "add", unix.EEXIST},
		{"chain on no hook", func(tx *Tx, id TableID, table *Table) {
			tx.AddChain(id, &Chain{Name: "in", Base: &Base{Type: TypeFilter, Hook: 77}})
		}, "bridge ringwall chain in", "add", unix.EOPNOTSUPP},
		{"table that is not there", func(tx *Tx, id TableID, table *Table) { tx.DeleteTable(TableID{IPv4, "none"}) },
			"table ip none", "delete", unix.ENOENT},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := enterNamespace(t)
			table := small()
			gen := apply(t, c, Diff(nil, State{}.Add(table)))

			var tx Tx
			tx.AppendRules(table.TableID, "early", []Rule{rule(verdict(expr.VerdictDrop, ""))}) // fine, and void
			test.build(&tx, table.TableID, table)
			_, err := c.Apply(testContext(t), &tx)

			var refused Errors
			if !errors.As(err, &refused) || len(refused) != 1 {
				t.Fatalf("error %v, want one refusal", err)
			}
			got := *refused[0]
			got.Detail = ""
			if want := (Error{Object: test.object, Op: test.op, Errno: test.errno}); got != want {
				t.Errorf("refused %+v\nwant    %+v", got, want)
			}
			if !errors.Is(err, test.errno) {
				t.Errorf("errors.Is does not see %v", test.errno)
			}
			if now, _ := c.Generation(testContext(t)); now != gen {
				t.Errorf("generation %d, was %d", now, gen)
			}
			if d := cmp.Diff(table, read(t, c, table.TableID)); d != "" {
				t.Errorf("refused transaction left something (-want +got):\n%s", d)
			}
			// The connection goes on working.
			var next Tx
			next.AppendRules(table.TableID, "early", []Rule{rule(verdict(expr.VerdictDrop, ""))})
			apply(t, c, &next)
		})
	}
}

// The kernel checks for loops at the end of a batch and names no message.
func TestLoopIsRefused(t *testing.T) {
	c := enterNamespace(t)
	table := small()
	apply(t, c, Diff(nil, State{}.Add(table)))
	var tx Tx
	tx.AppendRules(table.TableID, "out-vnet0", []Rule{rule(verdict(expr.VerdictJump, "out-vnet0"))})
	_, err := c.Apply(testContext(t), &tx)
	var refused Errors
	if !errors.As(err, &refused) {
		t.Fatalf("error %v, want a refusal", err)
	}
	if d := cmp.Diff(table, read(t, c, table.TableID)); d != "" {
		t.Error(d)
	}
}

func TestSeveralRefusals(t *testing.T) {
	c := enterNamespace(t)
	table := small()
	apply(t, c, Diff(nil, State{}.Add(table)))
	var tx Tx
	for i := range 20000 {
		tx.DeleteChain(table.TableID, fmt.Sprintf("none%d", i))
	}
	_, err := c.Apply(testContext(t), &tx)
	var refused Errors
	if !errors.As(err, &refused) || !strings.Contains(refused[0].Error(), "delete bridge ringwall chain none0: no such file") {
		t.Fatalf("error %v, want refusals from the first on", err)
	}
	if d := cmp.Diff(table, read(t, c, table.TableID)); d != "" {
		t.Error(d)
	}
	t.Logf("%d of 20000 refusals seen: %v", len(refused), err)
}

func TestGenerationLock(t *testing.T) {
	c := enterNamespace(t)
	table := small()
	gen := apply(t, c, Diff(nil, State{}.Add(table)))

	nft(t, "add", "table", "ip", "other")
	want := small()
	want.Chains["out-vnet0"].Rules = nil
	tx := Diff(State{}.Add(table), State{}.Add(want))
	tx.Lock(gen)
	if _, err := c.Apply(testContext(t), tx); !errors.Is(err, ErrGeneration) {
		t.Fatalf("stale lock: %v, want ErrGeneration", err)
	}
	if d := cmp.Diff(table, read(t, c, table.TableID)); d != "" {
		t.Fatal(d)
	}

	now, err := c.Generation(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	tx = Diff(State{}.Add(table), State{}.Add(want))
	tx.Lock(now)
	if after := apply(t, c, tx); after != now+1 {
		t.Errorf("generation %d after %d", after, now)
	}
	if d := cmp.Diff(want, read(t, c, table.TableID)); d != "" {
		t.Error(d)
	}
}

// The kernel itself refuses a stale generation, should it move between our
// look at it and the batch.
func TestGenerationLockInKernel(t *testing.T) {
	c := enterNamespace(t)
	gen := apply(t, c, Diff(nil, State{}.Add(small())))
	s, err := c.ns.socket()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var tx Tx
	tx.AddTable(TableID{IPv4, "late"})
	tx.Lock(gen - 1)
	if _, err := s.exchange(testContext(t), &tx); !errors.Is(err, ErrGeneration) {
		t.Errorf("exchange: %v, want ErrGeneration", err)
	}
	if read(t, c, TableID{IPv4, "late"}) != nil {
		t.Error("table made under a stale lock")
	}
}

// A big transaction goes in one call, with element lists cut at 64 KiB.
func TestBigTransaction(t *testing.T) {
	c := enterNamespace(t)
	want := bigState(1000, 20)
	tx := Diff(nil, want)
	if tx.Size() < 6<<20 {
		t.Errorf("transaction of %d bytes is not big", tx.Size())
	}
	t.Logf("%d messages, %d bytes", tx.Len(), tx.Size())
	apply(t, c, tx)
	have, gen, err := c.ReadState(testContext(t), bigID)
	if err != nil {
		t.Fatal(err)
	}
	if drift := Compare(want, have); len(drift) > 0 {
		t.Fatalf("%d differences, first %v", len(drift), drift[0])
	}
	again := Diff(have, want)
	if !again.Empty() {
		t.Errorf("second sync has %d messages", again.Len())
	}
	if now := apply(t, c, again); now != gen {
		t.Errorf("an empty transaction moved the generation from %d to %d", gen, now)
	}
	apply(t, c, Diff(have, nil))
	if read(t, c, bigID) != nil {
		t.Error("table still there")
	}
}

// The kernel must hold every element that was sent, and no more.
func TestManyElements(t *testing.T) {
	for _, kind := range []Set{
		{Name: "hash", Key: Types(TypeIPv4)},
		{Name: "concat", Key: Types(TypeIfName, TypeEtherAddr, TypeIPv4)},
		{Name: "interval", Key: Types(TypeIPv4), Interval: true},
		{Name: "pipapo", Key: Types(TypeIPv4, TypeProto, TypePort), Interval: true},
		{Name: "vmap", Key: Types(TypeIPv4), Data: TypeVerdict},
	} {
		t.Run(kind.Name, func(t *testing.T) {
			c := enterNamespace(t)
			table := NewTable(Bridge, "ringwall")
			set := table.AddSet(&kind)
			const n = 20000
			for i := range n {
				ip := Raw([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
				switch len(set.Key) {
				case 1:
					set.Add(VerdictValue(expr.VerdictAccept), ip)
				default:
					if set.Interval {
						set.Add(Value{}, ip, U8(6), U16Range(1, 1024))
					} else {
						set.Add(Value{}, IfName("vnet0"), MAC(macA), ip)
					}
				}
			}
			if !set.IsMap() {
				for k := range set.Elements {
					set.Elements[k] = Value{}
				}
			}
			apply(t, c, Diff(nil, State{}.Add(table)))
			got := read(t, c, table.TableID)
			if len(got.Sets[set.Name].Elements) != n {
				t.Fatalf("kernel holds %d elements", len(got.Sets[set.Name].Elements))
			}
			if drift := Compare(State{}.Add(table), State{}.Add(got)); len(drift) > 0 {
				t.Fatalf("%d differences, first %v", len(drift), drift[0])
			}
		})
	}
}

func TestRuleTooLong(t *testing.T) {
	c := enterNamespace(t)
	table := small()
	for range 3000 {
		table.Chains["early"].Rules[0].Exprs = append(table.Chains["early"].Rules[0].Exprs, &expr.Counter{})
	}
	_, err := c.Apply(testContext(t), Diff(nil, State{}.Add(table)))
	if err == nil || !strings.Contains(err.Error(), "bridge ringwall chain early rule 1: too long") {
		t.Errorf("error %v", err)
	}
}

// What does not fit its set is found before the kernel sees it.
func TestInvalidValues(t *testing.T) {
	tests := []struct {
		set  Set
		add  []Field
		want string
	}{
		{Set{Name: "s"}, nil, "no key type"},
		{Set{Name: "s", Key: Types(TypeIPv4), Dynamic: true}, nil, "needs a size"},
		{Set{Name: "s", Key: Types(TypeIPv4)}, []Field{MAC(macA)}, "key of 6 bytes, want 4"},
		{Set{Name: "s", Key: Types(TypeIPv4, TypePort)}, []Field{Addr(ipA)}, "key of 4 bytes, want 8"},
		{Set{Name: "s", Key: Types(TypeIPv4), Interval: true}, []Field{AddrRange(ipB, ipA)}, "ends before it starts"},
		{Set{Name: "s", Key: Types(TypeIPv4), Data: TypeMark}, []Field{Addr(ipA)}, "data of 0 bytes, want 4"},
	}
	for _, test := range tests {
		table := NewTable(IPv4, "t")
		set := table.AddSet(&test.set)
		if test.add != nil {
			set.Add(Value{}, test.add...)
		}
		err := Diff(nil, State{}.Add(table)).Err()
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "ip t") {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

var bigID = TableID{Bridge, "ringwall"}

// bigState is a table with a chain of rules for each of many NICs.
func bigState(nics, rules int) State {
	t := NewTable(bigID.Family, bigID.Name)
	src := t.AddSet(&Set{Name: "src4", Key: Types(TypeIfName, TypeEtherAddr, TypeIPv4)})
	in := t.AddSet(&Set{Name: "in", Key: Types(TypeIfName), Data: TypeVerdict})
	for i := range nics {
		nic, chain := fmt.Sprintf("vnet%d", i), fmt.Sprintf("in-vnet%d", i)
		src.Add(Value{}, IfName(nic), MAC(net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}), Raw([]byte{10, 0, byte(i >> 8), byte(i)}))
		in.Add(Goto(chain), IfName(nic))
		t.AddChain(&Chain{Name: chain, Rules: bigRules(i, rules)})
	}
	t.AddChain(&Chain{Name: "post", Base: &Base{Type: TypeFilter, Hook: Postrouting, Policy: Accept}, Rules: []Rule{
		rule(meta(expr.MetaKeyOIFNAME, reg1), &expr.Lookup{SourceRegister: reg1, SetName: "in", IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}),
	}})
	return State{}.Add(t)
}

func bigRules(nic, n int) []Rule {
	rules := make([]Rule, n)
	for j := range rules {
		rules[j] = rule(
			meta(expr.MetaKeyPROTOCOL, reg1), eq(reg1, U16(unix.ETH_P_IP)),
			meta(expr.MetaKeyL4PROTO, reg1), eq(reg1, U8(6)),
			load(expr.PayloadBaseNetworkHeader, 12, 4, reg1), eq(reg1, Raw([]byte{10, byte(nic), byte(nic >> 8), byte(j)})),
			load(expr.PayloadBaseTransportHeader, 2, 2, reg1), eq(reg1, U16(uint16(j))),
			&expr.Counter{}, verdict(expr.VerdictAccept, ""))
	}
	return rules
}
