// Package hostaddrs knows which addresses are the host's own. It tells a flow
// that the host opened from one that it merely routes.
package hostaddrs

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
)

// Options say where to look.
type Options struct {
	// NetNS is an open descriptor of a network namespace, or -1 for that of
	// the calling thread.
	NetNS int
}

// Set is the host's addresses on all its interfaces. It never changes.
type Set struct{ addrs map[netip.Addr]struct{} }

// Contains says whether a is the host's own; every loopback address is.
func (s Set) Contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() {
		return true
	}
	_, ok := s.addrs[a]
	return ok
}

// All lists the addresses, sorted.
func (s Set) All() []netip.Addr {
	all := make([]netip.Addr, 0, len(s.addrs))
	for a := range s.addrs {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// List is the addresses of now.
func List(ctx context.Context, o Options) (Set, error) {
	all, err := source().List(ctx, o.NetNS)
	if err != nil {
		return Set{}, err
	}
	return assigned{}.take(nl.Batch[assignment]{Whole: true, Items: all}).set(), nil
}

// Watch gives the set of now, and a new one whenever it changes, until ctx
// ends; then it closes the channel. A reader that is away finds the newest.
func Watch(ctx context.Context, o Options) (<-chan Set, error) {
	feed, err := source().Open(ctx, o.NetNS)
	if err != nil {
		return nil, err
	}
	sets := make(chan Set, 1)
	go func() {
		defer close(sets)
		defer feed.Close()
		now := assigned{}
		for {
			b, err := feed.Next(ctx)
			if err != nil {
				return
			}
			if b.Lost != nil {
				continue // the whole follows
			}
			now = now.take(b)
			select { // what waits is old now
			case <-sets:
			default:
			}
			sets <- now.set()
		}
	}()
	return sets, nil
}

// assignment is one address on one interface: an address may be on several, and
// is the host's until it is gone from the last.
type assignment struct {
	index uint32
	addr  netip.Addr
	gone  bool
}

type assigned map[assignment]struct{}

func (a assigned) take(b nl.Batch[assignment]) assigned {
	if b.Whole {
		a = assigned{}
	}
	for _, item := range b.Items {
		gone := item.gone
		item.gone = false
		if gone {
			delete(a, item)
		} else {
			a[item] = struct{}{}
		}
	}
	return a
}

func (a assigned) set() Set {
	s := Set{make(map[netip.Addr]struct{}, len(a))}
	for item := range a {
		s.addrs[item.addr] = struct{}{}
	}
	return s
}

func source() nl.Source[assignment] {
	return nl.Source[assignment]{
		Protocol: unix.NETLINK_ROUTE,
		Groups:   []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
		Dumps:    []nl.Request{{Type: unix.RTM_GETADDR, Body: make(nl.Buffer, unix.SizeofIfAddrmsg)}},
		Parse:    parse,
	}
}

func parse(m nl.Message) (assignment, bool) {
	if m.Type != unix.RTM_NEWADDR && m.Type != unix.RTM_DELADDR || len(m.Data) < unix.SizeofIfAddrmsg {
		return assignment{}, false
	}
	a := assignment{gone: m.Type == unix.RTM_DELADDR, index: binary.NativeEndian.Uint32(m.Data[4:])}
	for t, v := range nl.Attrs(m.Body(unix.SizeofIfAddrmsg)) {
		switch t {
		case unix.IFA_LOCAL: // on a point-to-point link IFA_ADDRESS is the other end's
			a.addr, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			if !a.addr.IsValid() {
				a.addr, _ = netip.AddrFromSlice(v)
			}
		}
	}
	return a, a.addr.IsValid()
}
