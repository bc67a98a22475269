package nft

import (
	"cmp"
	"maps"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Family is an nftables address family.
type Family uint8

// Families, numbered as NFPROTO_* in the kernel.
const (
	Inet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	ARP    Family = unix.NFPROTO_ARP
	NetDev Family = unix.NFPROTO_NETDEV
	Bridge Family = unix.NFPROTO_BRIDGE
	IPv6   Family = unix.NFPROTO_IPV6
)

// TableID names a table: names are unique within a family.
type TableID struct {
	Family Family
	Name   string
}

func (id TableID) compare(o TableID) int {
	return cmp.Or(cmp.Compare(id.Family, o.Family), cmp.Compare(id.Name, o.Name))
}

// State is a set of tables.
type State map[TableID]*Table

// Add puts tables into the state and returns it.
func (s State) Add(tables ...*Table) State {
	for _, t := range tables {
		s[t.TableID] = t
	}
	return s
}

// Table is a table with all that it holds.
type Table struct {
	TableID
	// Dormant tables have their chains unhooked: they enforce nothing. Never
	// wanted; it is here so that it shows as drift and is undone.
	Dormant bool
	Chains  map[string]*Chain
	Sets    map[string]*Set
	// Foreign lists objects of other kinds that somebody put into the table.
	Foreign []Object
}

// NewTable makes an empty table.
func NewTable(family Family, name string) *Table {
	return &Table{
		TableID: TableID{Family: family, Name: name},
		Chains:  map[string]*Chain{},
		Sets:    map[string]*Set{},
	}
}

// AddChain puts a chain into the table and returns it.
func (t *Table) AddChain(c *Chain) *Chain {
	t.Chains[c.Name] = c
	return c
}

// AddSet puts a set into the table and returns it.
func (t *Table) AddSet(s *Set) *Set {
	t.Sets[s.Name] = s
	return s
}

// Chain is a base chain (with Base) or a regular one.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule
}

// Base hooks a chain into the packet path.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int32
	Policy   Policy
	// Devices are interface names, for the netdev family only.
	Devices []string
}

// sameHook tells whether two chains are hooked alike, so that one becomes the
// other by an update (policy, devices) and need not be made again.
func (b *Base) sameHook(o *Base) bool {
	if b == nil || o == nil {
		return b == o
	}
	return b.Type == o.Type && b.Hook == o.Hook && b.Priority == o.Priority
}

// ChainType is the type of a base chain.
type ChainType string

// Chain types.
const (
	TypeFilter ChainType = "filter"
	TypeNAT    ChainType = "nat"
	TypeRoute  ChainType = "route"
)

// Hook is a netfilter hook number. Netdev numbers its hooks on its own.
type Hook uint32

// Hooks, as NF_INET_*, NF_BR_* and NF_NETDEV_* in the kernel.
const (
	Prerouting    Hook = 0
	Input         Hook = 1
	Forward       Hook = 2
	Output        Hook = 3
	Postrouting   Hook = 4
	NetDevIngress Hook = 0
	NetDevEgress  Hook = 1
)

// Policy is what a base chain does with packets that reach its end.
type Policy uint32

// Policies.
const (
	Drop   Policy = 0
	Accept Policy = 1
)

func (p Policy) String() string {
	if p == Drop {
		return "drop"
	}
	return "accept"
}

// Rule is a list of expressions with an optional comment. A rule's counters
// are no part of its identity.
type Rule struct {
	Exprs   []expr.Any
	Comment string

	// read holds the normal form of a rule that came from the kernel: it is
	// exact, even where Exprs could not be decoded in full.
	read []byte
}

// sortedKeys makes every walk over names the same, so that transactions and
// texts are.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
