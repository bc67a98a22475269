// Package xtables holds the rules of iptables, ip6tables and ebtables as
// values, writes them by `*-restore --noflush` and reads them back by `*-save`:
// one process for each of the three, whatever the number of rules.
//
// A State is what stands in the tables. Diff leads from one to the next and
// touches the chains that differ and no other: rules of other programs in the
// built-in chains are left where they are, ours stand before them.
//
// Rules are compared by what they say, not by their text: the tools print MACs,
// protocols and masks in more than one way (Rule.Key).
package xtables
