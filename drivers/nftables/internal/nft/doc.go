// Package nft holds nftables objects as values and moves them to and from the
// kernel by netlink. It knows tables, chains, rules, sets and elements, and
// nothing of what they are for.
//
// # Values
//
// A [State] is a set of tables by [TableID]; a [Table] holds [Chain]s and
// [Set]s by name; a chain holds [Rule]s, a set holds elements, a map from
// [Key] to [Value]. Keys and values are comparable, so two sets compare by
// looking up. Keys are built by the set itself, which knows padding and
// intervals, from typed fields:
//
//	src := &nft.Set{Name: "src4", Key: nft.Types(nft.TypeIfName, nft.TypeEtherAddr, nft.TypeIPv4)}
//	src.Add(nft.Value{}, nft.IfName("vnet0"), nft.MAC(mac), nft.Addr(ip))
//	eg := &nft.Set{Name: "egress", Key: nft.Types(nft.TypeIfName), Data: nft.TypeVerdict}
//	eg.Add(nft.Jump("out-vnet0"), nft.IfName("vnet0"))
//
// Rules are lists of expressions of github.com/google/nftables/expr, of which
// only the types and the encoding are used; the wire is ours (that library cuts
// long element lists, loses errors and can wait for ever).
//
// # From values to the kernel
//
//	conn, err := nft.Open(nft.Config{})  // this thread's network namespace, or NetNS: fd
//	tx := nft.Diff(have, want)           // by rule and by element, references always valid
//	tx.Lock(generation)                  // optional: refuse if anybody changed nftables since
//	gen, err := conn.Apply(ctx, tx)
//
// Diff looks only at what it is given: a caller that keeps the last enforced
// State passes just the objects it touches, a set with just the touched
// elements, and pays for these alone. The builder methods of [Tx] (AddChain,
// ReplaceRules, AddElements, ...) are what Diff itself uses; they leave the
// order to the caller.
//
// A transaction is one batch in one buffer and one system call: all or nothing.
// An error is [Errors], one for each refused object ("add bridge ringwall set
// src4 element "vnet0" . 02:00:00:00:00:0a . 10.0.0.1: file exists"), or
// [ErrGeneration] when the lock failed, or [ErrUnknown] when the kernel's answer
// was lost (read back, then decide).
//
// # From the kernel to values
//
//	table, err := conn.Read(ctx, id)                // nil, nil: no such table
//	state, gen, err := conn.ReadState(ctx, ids...)  // several, at one generation
//	table, err := conn.ReadRules(ctx, id)           // somebody else's, without its sets
//	diffs := nft.Compare(want, state)               // drift, object by object, exact
//	elems, err := conn.ReadElements(ctx, id, set)   // with counters
//	err := conn.DeleteElements(ctx, id, set, keys)  // of a dynamic set
//	gen, err := conn.Generation(ctx)
//	mon, err := nft.NewMonitor(conn)                // foreign changes
//	event, err := mon.Next(ctx)                     // who, and which tables
//	err := conn.Probe(ctx, table)                   // could the kernel hold this?
//
// Rules read back are compared by their attributes, normalised, and not by a
// hash in a comment: an edited rule shows even if its comment stayed.
// [Table.String] prints like nft.
//
// # What things cost
//
// On kernel 6.18, two cores: an element in a hash set 0.06 ms, in a plain
// interval set of 10,000 0.45 ms, in a concatenated one 20 ms (deleting is the
// expensive half). Any changed rule makes the kernel validate its whole table,
// 3 ms with 20,000 rules present. 1,000 chains of 20 rules: 0.5 s to make, 0.4 s
// to read and compare. What changes often belongs in sets.
//
// # What a reviewer should ask
//
// Can an order of Diff's messages refer to something that is gone or not there
// yet? Can the kernel hold something that Read does not show? Is there an
// attribute that changes a verdict and that normalisation drops?
package nft
