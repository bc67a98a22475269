package iptables

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/core"
)

// A packet that the host routes is judged in the ip hooks, where nobody knows
// yet by which port it will leave: there it is judged for the NICs that have its
// destination. As a rule that is one. Where several may have it (shared pairs,
// NICs that are not checked), each needs a mark of its own, so that the port can
// tell for whom the packet was judged. NICs that share nothing share the first.

// conflicts says whether a packet routed to one address might be for either.
func conflicts(a, b core.NICPolicy) bool {
	if a.Bridge != b.Bridge {
		return false
	}
	if a.SpoofingAllowed || b.SpoofingAllowed {
		return true
	}
	for _, f := range core.Families {
		for _, x := range identities(a, f) {
			if slices.ContainsFunc(identities(b, f), func(y identity) bool { return x.prefix.Overlaps(y.prefix) }) {
				return true
			}
		}
	}
	return false
}

// slotting is which slot each NIC has, and which NICs share an address.
type slotting struct {
	slot   map[core.NICKey]int
	shared map[core.NICKey]bool
}

// assignSlots colours the NICs, sorted by key, in at most limit colours.
func assignSlots(nics []core.NICPolicy, limit int) (slotting, error) {
	s := slotting{map[core.NICKey]int{}, map[core.NICKey]bool{}}
	var users []core.NICPolicy
	for _, n := range nics {
		if n.Kind != core.SystemVM {
			users = append(users, n)
		}
	}
	neighbours := conflicting(users)
	for i, n := range users {
		used := map[int]bool{}
		for _, j := range neighbours[i] {
			s.shared[n.Key] = true
			if j < i {
				used[s.slot[users[j].Key]] = true
			}
		}
		slot := 0
		for used[slot] {
			slot++
		}
		if slot >= limit {
			return s, &core.ObjectError{NICs: []core.NICKey{n.Key}, Err: fmt.Errorf(
				"more than %d NICs of bridge %s share addresses or have anti-spoofing off; widen mark_mask, or use the nftables driver: %w",
				limit, n.Bridge, core.ErrUnsupported)}
		}
		s.slot[n.Key] = slot
	}
	return s, nil
}

// conflicting lists, for each NIC, those it conflicts with. Only NICs that are
// not checked or have pairs are compared with all others; two addresses that are
// equal are found by look-up.
func conflicting(nics []core.NICPolicy) [][]int {
	out := make([][]int, len(nics))
	add := func(i, j int) {
		if !slices.Contains(out[i], j) {
			out[i], out[j] = append(out[i], j), append(out[j], i)
		}
	}
	type home struct {
		bridge string
		addr   netip.Addr
	}
	homes := map[home][]int{}
	for i, n := range nics {
		if n.SpoofingAllowed || len(n.Pairs) > 0 {
			for j, o := range nics {
				if i != j && conflicts(n, o) {
					add(i, j)
				}
			}
		}
		for _, a := range n.Addresses {
			h := home{n.Bridge, a}
			for _, j := range homes[h] {
				add(i, j)
			}
			homes[h] = append(homes[h], i)
		}
	}
	return out
}
