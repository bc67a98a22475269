package ipset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
)

// Conn reads and writes the sets of a network namespace.
type Conn struct{ ns *nl.Namespace }

// Open takes a descriptor of a namespace, or -1 for that of the calling thread.
func Open(fd int) (*Conn, error) {
	ns, err := nl.OpenNamespace(fd)
	if err != nil {
		return nil, err
	}
	return &Conn{ns}, nil
}

// Close lets the namespace go.
func (c *Conn) Close() error { return c.ns.Close() }

func (c *Conn) dial() (*nl.Conn, error) {
	return c.ns.Dial(nl.Config{Protocol: unix.NETLINK_NETFILTER})
}

// List reads all sets. Of types other than ours, the members are left out.
func (c *Conn) List(ctx context.Context) (Sets, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	parts, err := nl.Collect(ctx, conn, nl.Request{Type: cmdList, Body: request("")}, parse)
	if err != nil {
		return nil, fmt.Errorf("list IP sets (modprobe ip_set): %w", explained(err))
	}
	sets := Sets{}
	for _, p := range parts {
		s := sets[p.name]
		if s == nil {
			s = New(Type(p.typ), core.IPv4)
			sets[p.name] = s
		}
		if p.typ != "" {
			s.Type = Type(p.typ)
		}
		if p.family == unix.AF_INET6 {
			s.Family = core.IPv6
		}
		if p.comment != "" {
			s.Comment = p.comment
		}
		for _, m := range p.members {
			s.Members[m] = true
		}
	}
	return sets, nil
}

// Refused is a request that the kernel would not do.
type Refused struct {
	Set   string
	About any // the set's
	Err   error
}

func (r *Refused) Error() string { return fmt.Sprintf("IP set %s: %v", r.Set, r.Err) }
func (r *Refused) Unwrap() error { return r.Err }

// Create makes sets with all their members.
func (c *Conn) Create(ctx context.Context, sets Sets) error {
	var b batch
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		s := sets[name]
		b.add(name, s.About, createRequest(name, s))
		for p := range s.Members {
			b.add(name, s.About, elementRequest(cmdAdd, name, p, s.Comment))
		}
	}
	return c.run(ctx, b, nil)
}

// Remove takes members out. One that is not there is no error.
func (c *Conn) Remove(ctx context.Context, members map[string][]netip.Prefix, about Sets) error {
	return c.elements(ctx, cmdDel, members, about)
}

// Add puts members in. One that is there is no error.
func (c *Conn) Add(ctx context.Context, members map[string][]netip.Prefix, about Sets) error {
	return c.elements(ctx, cmdAdd, members, about)
}

func (c *Conn) elements(ctx context.Context, cmd uint16, members map[string][]netip.Prefix, about Sets) error {
	var b batch
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var of any
		if s := about[name]; s != nil {
			of = s.About
		}
		for _, p := range members[name] {
			b.add(name, of, elementRequest(cmd, name, p, ""))
		}
	}
	return c.run(ctx, b, nil)
}

// patience is how long a set that is about to be destroyed may still be in use:
// nf_tables commits a transaction first, and lets go of what its rules named a
// while later, on another thread.
const patience, retry = time.Second, 5 * time.Millisecond

// Destroy removes sets. One that is gone is no error.
func (c *Conn) Destroy(ctx context.Context, names []string) error {
	var b batch
	for _, name := range names {
		b.add(name, nil, nl.Request{Type: cmdDestroy, Body: request(name)})
	}
	gone := func(err error) bool { return errors.Is(err, unix.ENOENT) }
	for deadline := time.Now().Add(patience); ; {
		err := c.run(ctx, b, gone)
		if !isErrno(err, errBusy) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return err
		}
	}
}

// note is the address under which a text is kept in a set.
var note = netip.MustParsePrefix("127.0.0.1/32")

// WriteNote keeps a text in the kernel, as the comment of the single element of
// a set that no rule asks. An empty text takes it away.
func (c *Conn) WriteNote(ctx context.Context, set, text string) error {
	var b batch
	create := &Set{Type: HashIP, Family: core.IPv4, Comment: "-"}
	made := createRequest(set, create)
	made.Flags = unix.NLM_F_CREATE // that it is there is no error
	b.add(set, nil, made)
	if text == "" {
		b.add(set, nil, nl.Request{Type: cmdFlush, Body: request(set)})
	} else {
		b.add(set, nil, elementRequest(cmdAdd, set, note, text))
	}
	return c.run(ctx, b, nil)
}

// Note is the text in a set.
func (s Sets) Note(set string) string {
	if s[set] == nil {
		return ""
	}
	return s[set].Comment
}

type batch struct {
	requests []nl.Request
	sets     []string
	about    []any
}

func (b *batch) add(set string, about any, r nl.Request) {
	b.requests, b.sets, b.about = append(b.requests, r), append(b.sets, set), append(b.about, about)
}

func (c *Conn) run(ctx context.Context, b batch, tolerated func(error) bool) error {
	if len(b.requests) == 0 {
		return nil
	}
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	refused, err := conn.Batch(ctx, b.requests)
	if err != nil {
		return fmt.Errorf("IP sets: %w", err)
	}
	var all []error
	for _, i := range slices.Sorted(maps.Keys(refused)) {
		if tolerated != nil && tolerated(refused[i]) {
			continue
		}
		if len(all) < 8 {
			all = append(all, &Refused{b.sets[i], b.about[i], explained(refused[i])})
		}
	}
	return errors.Join(all...)
}

func isErrno(err error, code syscall.Errno) bool { return errors.Is(err, code) }

// Owned narrows sets to those whose names start with one of the prefixes, and
// those that want names.
func (s Sets) Owned(want Sets, prefixes ...string) Sets {
	out := Sets{}
	for name, set := range s {
		mine := want[name] != nil
		for _, p := range prefixes {
			mine = mine || strings.HasPrefix(name, p)
		}
		if mine {
			out[name] = set
		}
	}
	return out
}
