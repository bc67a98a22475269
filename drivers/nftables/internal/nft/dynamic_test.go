package nft

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func linkUp(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// Packets fill a dynamic set, each element with a counter of its own, which we
// read and delete and which the state knows nothing of.
func TestDynamicSetCounts(t *testing.T) {
	c := enterNamespace(t)
	linkUp(t, "lo")
	id := TableID{IPv4, "ringwall"}
	want := NewTable(id.Family, id.Name)
	seen := want.AddSet(&Set{Name: "seen", Key: Types(TypeIfName, TypePort), Dynamic: true, Counter: true, Size: 100})
	want.AddChain(&Chain{Name: "in", Base: &Base{Type: TypeFilter, Hook: Input, Policy: Accept}, Rules: []Rule{
		rule(meta(expr.MetaKeyL4PROTO, reg1), eq(reg1, U8(unix.IPPROTO_UDP)),
			meta(expr.MetaKeyIIFNAME, r0), load(expr.PayloadBaseTransportHeader, 2, 2, r0+4),
			&expr.Dynset{SrcRegKey: r0, SetName: "seen", Operation: unix.NFT_DYNSET_OP_ADD, Exprs: []expr.Any{&expr.Counter{}}}),
	}})
	apply(t, c, Diff(nil, State{}.Add(want)))

	send(t, 7001, 3)
	send(t, 7002, 1)
	const size = 20 + 8 + 5 // IP, UDP and "hello"
	key := func(port uint16) Key { return seen.MakeKey(IfName("lo"), U16(port)) }
	expect := map[Key]Element{
		key(7001): {Counter: Counter{3, 3 * size}},
		key(7002): {Counter: Counter{1, size}},
	}
	check := func() {
		t.Helper()
		got, err := c.ReadElements(testContext(t), id, seen)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(expect, got); d != "" {
			t.Errorf("elements (-want +got):\n%s", d)
		}
	}
	check()
	if out := nftList(t, "ruleset"); !strings.Contains(out, `"lo" . 7001 counter packets 3 bytes 99`) {
		t.Errorf("nft does not read the counter:\n%s", out)
	}

	got := read(t, c, id)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what packets brought in is in the state (-want +got):\n%s", d)
	}
	if tx := Diff(State{}.Add(want), State{}.Add(got)); !tx.Empty() {
		t.Errorf("%d messages for what packets brought in", tx.Len())
	}
	// Another rule in the chain, and the counters go on.
	more := NewTable(id.Family, id.Name)
	more.AddSet(seen)
	more.AddChain(&Chain{Name: "in", Base: want.Chains["in"].Base, Rules: append([]Rule{rule(&expr.Counter{})}, want.Chains["in"].Rules...)})
	apply(t, c, Diff(State{}.Add(want), State{}.Add(more)))
	send(t, 7001, 1)
	expect[key(7001)] = Element{Counter: Counter{4, 4 * size}}
	check()

	// A NIC that goes away takes its elements along; one never seen is no error.
	if err := c.DeleteElements(testContext(t), id, seen, []Key{key(7001), key(7003), key(7001)}); err != nil {
		t.Fatal(err)
	}
	delete(expect, key(7001))
	check()
	gen, _ := c.Generation(testContext(t))
	if err := c.DeleteElements(testContext(t), id, seen, []Key{key(7003)}); err != nil {
		t.Fatal(err)
	}
	if now, _ := c.Generation(testContext(t)); now != gen {
		t.Error("deleting nothing moved the generation")
	}
	var tx Tx
	tx.FlushSet(id, seen)
	apply(t, c, &tx)
	clear(expect)
	check()
}

func send(t *testing.T, port, n int) {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range n {
		// The second send of an unconnected port tells of the refused first one.
		if _, err := conn.Write([]byte("hello")); err != nil {
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Rule counters are no part of a rule, but appending to a chain keeps them.
func TestAppendKeepsCounters(t *testing.T) {
	c := enterNamespace(t)
	linkUp(t, "lo")
	id := TableID{IPv4, "ringwall"}
	make := func(rules ...Rule) State {
		table := NewTable(id.Family, id.Name)
		table.AddChain(&Chain{Name: "in", Base: &Base{Type: TypeFilter, Hook: Input, Policy: Accept}, Rules: rules})
		return State{}.Add(table)
	}
	one := make(rule(&expr.Counter{}))
	two := make(rule(&expr.Counter{}), rule(&expr.Counter{}))
	apply(t, c, Diff(nil, one))
	send(t, 7001, 2)
	apply(t, c, Diff(one, two))
	got := read(t, c, id).Chains["in"].Rules
	if n := got[0].Exprs[0].(*expr.Counter).Packets; n < 2 {
		t.Errorf("counter of the first rule says %d packets", n)
	}
	if n := got[1].Exprs[0].(*expr.Counter).Packets; n != 0 {
		t.Errorf("counter of the new rule says %d packets", n)
	}
}

// The devices of a netdev chain come and go without the chain being made again.
func TestDevices(t *testing.T) {
	c := enterNamespace(t)
	veth := func(name string) *netlink.Veth {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatal(err)
		}
		return link
	}
	a := veth("va")
	veth("vb")
	one, both, other := State{}.Add(netdevSample("va")), State{}.Add(netdevSample("va", "vb")), State{}.Add(netdevSample("vb"))
	id := TableID{NetDev, "ringwall"}
	check := func(want State) {
		t.Helper()
		if drift := Compare(want, State{id: read(t, c, id)}); len(drift) > 0 {
			t.Error(drift)
		}
	}
	apply(t, c, Diff(nil, one))
	check(one)
	tx := Diff(one, both)
	if tx.Len() != 1 {
		t.Errorf("%d messages for one more device", tx.Len())
	}
	apply(t, c, tx)
	check(both)

	// What the kernel tells of a device that is gone and back depends on its
	// age: since 6.16 it remembers the name. Either way the state is reached.
	if err := netlink.LinkDel(a); err != nil {
		t.Fatal(err)
	}
	veth("va")
	apply(t, c, Diff(State{id: read(t, c, id)}, both))
	check(both)
	apply(t, c, Diff(State{id: read(t, c, id)}, other))
	check(other)
	nftList(t, "ruleset")
}
