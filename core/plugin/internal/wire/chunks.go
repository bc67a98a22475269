package wire

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// EncodeRuleset sends r in parts.
func EncodeRuleset(r core.Ruleset, send func(*pb.RulesetPart, bool) error) error {
	c := newChunker(send)
	c.part.Options = encodeOptions(r.Options)
	c.size = proto.Size(c.part)
	for _, name := range slices.Sorted(maps.Keys(r.Groups)) {
		start := func() *pb.GroupPart {
			g := &pb.GroupPart{Name: name}
			c.part.Groups = append(c.part.Groups, g)
			return g
		}
		if _, err := c.room(len(name) + 8); err != nil {
			return objectError(err, core.ObjectError{Groups: []string{name}})
		}
		g := start()
		for _, e := range r.Groups[name].Entries {
			m := encodeEntry(e)
			fresh, err := c.room(proto.Size(m) + 8)
			if err != nil {
				return objectError(err, core.ObjectError{Groups: []string{name}})
			}
			if fresh {
				g = start()
			}
			g.Entries = append(g.Entries, m)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Sets)) {
		start := func() *pb.SetPart {
			s := &pb.SetPart{Name: name}
			c.part.Sets = append(c.part.Sets, s)
			return s
		}
		if _, err := c.room(len(name) + 8); err != nil {
			return objectError(err, core.ObjectError{Groups: []string{name}})
		}
		s := start()
		for _, a := range r.Sets[name].Members {
			fresh, err := c.room(18)
			if err != nil {
				return objectError(err, core.ObjectError{Groups: []string{name}})
			}
			if fresh {
				s = start()
			}
			s.Members = append(s.Members, encodeAddr(a))
		}
	}
	for k, n := range r.NICs {
		m := encodeNICPolicy(n)
		if _, err := c.room(proto.Size(m) + 8); err != nil {
			return objectError(err, core.ObjectError{NICs: []core.NICKey{k}})
		}
		c.part.Nics = append(c.part.Nics, m)
	}
	return c.last()
}

// RulesetDecoder puts a Ruleset together from its parts.
type RulesetDecoder struct {
	r       core.Ruleset
	options bool
}

// Add takes the next part.
func (d *RulesetDecoder) Add(p *pb.RulesetPart) (err error) {
	if p == nil {
		return malformed("part", "missing")
	}
	if err := known(p); err != nil {
		return err
	}
	if d.r.NICs == nil {
		d.r = core.Ruleset{Groups: map[string]core.GroupPolicy{}, Sets: map[string]core.AddressSet{}, NICs: map[core.NICKey]core.NICPolicy{}}
	}
	if p.Options != nil {
		if d.options {
			return malformed("options", "sent twice")
		}
		d.options = true
		if d.r.Options, err = decodeOptions(p.Options); err != nil {
			return under("options", err)
		}
	}
	for i, m := range p.Groups {
		field := "groups" + index(i)
		n, err := name(m.GetName())
		if err != nil {
			return under(field+".name", err)
		}
		more, err := decodeEntries(m)
		if err != nil {
			return under(field, err)
		}
		d.r.Groups[n] = core.GroupPolicy{Entries: append(d.r.Groups[n].Entries, more...)}
	}
	for i, m := range p.Sets {
		field := "sets" + index(i)
		n, err := name(m.GetName())
		if err != nil {
			return under(field+".name", err)
		}
		if err := known(m); err != nil {
			return under(field, err)
		}
		more, err := decodeAll(m.GetMembers(), decodeAddr)
		if err != nil {
			return under(field+".members", err)
		}
		d.r.Sets[n] = core.AddressSet{Members: append(d.r.Sets[n].Members, more...)}
	}
	for i, m := range p.Nics {
		n, err := decodeNICPolicy(m)
		if err != nil {
			return under("nics"+index(i), err)
		}
		if _, ok := d.r.NICs[n.Key]; ok {
			return malformed("nics"+index(i), "%s sent twice", n.Key)
		}
		d.r.NICs[n.Key] = n
	}
	return nil
}

func decodeEntries(m *pb.GroupPart) ([]core.Entry, error) {
	if err := known(m); err != nil {
		return nil, err
	}
	out, err := decodeAll(m.GetEntries(), decodeEntry)
	return out, under("entries", err)
}

// Ruleset is what came.
func (d *RulesetDecoder) Ruleset() (core.Ruleset, error) {
	if !d.options {
		return core.Ruleset{}, malformed("options", "missing")
	}
	return d.r, nil
}
