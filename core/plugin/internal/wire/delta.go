package wire

import (
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// EncodeDelta sends d in parts.
func EncodeDelta(d core.Delta, send func(*pb.DeltaPart, bool) error) error {
	c := newChunker(send)
	c.part.From, c.part.To = encodeFingerprint(d.From), encodeFingerprint(d.To)
	if d.Options != nil {
		c.part.Options = encodeOptions(*d.Options)
	}
	c.size = proto.Size(c.part)
	for _, name := range slices.Sorted(maps.Keys(d.Groups)) {
		if err := encodeGroupDelta(c, name, d.Groups[name]); err != nil {
			return objectError(err, core.ObjectError{Groups: []string{name}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Sets)) {
		if err := encodeSetDelta(c, name, d.Sets[name]); err != nil {
			return objectError(err, core.ObjectError{Groups: []string{name}})
		}
	}
	for _, n := range d.NICs {
		m := encodeNICPolicy(n)
		if _, err := c.room(proto.Size(m) + 8); err != nil {
			return objectError(err, core.ObjectError{NICs: []core.NICKey{n.Key}})
		}
		c.part.Nics = append(c.part.Nics, m)
	}
	for _, k := range d.Removed {
		m := encodeNICKey(k)
		if _, err := c.room(proto.Size(m) + 8); err != nil {
			return objectError(err, core.ObjectError{NICs: []core.NICKey{k}})
		}
		c.part.Removed = append(c.part.Removed, m)
	}
	return c.last()
}

func encodeGroupDelta(c *chunker[pb.DeltaPart], name string, g core.GroupDelta) error {
	start := func() *pb.GroupDelta {
		m := &pb.GroupDelta{Name: name, Gone: g.Gone}
		c.part.Groups = append(c.part.Groups, m)
		return m
	}
	if _, err := c.room(len(name) + 8); err != nil {
		return err
	}
	m := start()
	put := func(entries []core.Entry, field func(*pb.GroupDelta) *[]*pb.Entry) error {
		for _, e := range entries {
			x := encodeEntry(e)
			fresh, err := c.room(proto.Size(x) + 8)
			if err != nil {
				return err
			}
			if fresh {
				m = start()
			}
			l := field(m)
			*l = append(*l, x)
		}
		return nil
	}
	if err := put(g.Add, func(m *pb.GroupDelta) *[]*pb.Entry { return &m.Add }); err != nil {
		return err
	}
	return put(g.Remove, func(m *pb.GroupDelta) *[]*pb.Entry { return &m.Remove })
}

func encodeSetDelta(c *chunker[pb.DeltaPart], name string, s core.SetDelta) error {
	start := func() *pb.SetDelta {
		m := &pb.SetDelta{Name: name, Gone: s.Gone}
		c.part.Sets = append(c.part.Sets, m)
		return m
	}
	if _, err := c.room(len(name) + 8); err != nil {
		return err
	}
	m := start()
	put := func(members []netip.Addr, field func(*pb.SetDelta) *[][]byte) error {
		for _, a := range members {
			fresh, err := c.room(18)
			if err != nil {
				return err
			}
			if fresh {
				m = start()
			}
			l := field(m)
			*l = append(*l, encodeAddr(a))
		}
		return nil
	}
	if err := put(s.Add, func(m *pb.SetDelta) *[][]byte { return &m.Add }); err != nil {
		return err
	}
	return put(s.Remove, func(m *pb.SetDelta) *[][]byte { return &m.Remove })
}

// DeltaDecoder puts a Delta together from its parts.
type DeltaDecoder struct {
	d     core.Delta
	begun bool
}

// Add takes the next part.
func (d *DeltaDecoder) Add(p *pb.DeltaPart) (err error) {
	if p == nil {
		return malformed("part", "missing")
	}
	if err := known(p); err != nil {
		return err
	}
	if !d.begun {
		d.begun = true
		if d.d.From, err = decodeFingerprint(p.From); err != nil {
			return under("from", err)
		}
		if d.d.To, err = decodeFingerprint(p.To); err != nil {
			return under("to", err)
		}
	}
	if p.Options != nil {
		if d.d.Options != nil {
			return malformed("options", "sent twice")
		}
		o, err := decodeOptions(p.Options)
		if err != nil {
			return under("options", err)
		}
		d.d.Options = &o
	}
	for i, m := range p.Groups {
		if err := d.group(m); err != nil {
			return under("groups"+index(i), err)
		}
	}
	for i, m := range p.Sets {
		if err := d.set(m); err != nil {
			return under("sets"+index(i), err)
		}
	}
	nics, err := decodeAll(p.Nics, decodeNICPolicy)
	if err != nil {
		return under("nics", err)
	}
	removed, err := decodeAll(p.Removed, decodeNICKey)
	if err != nil {
		return under("removed", err)
	}
	d.d.NICs, d.d.Removed = append(d.d.NICs, nics...), append(d.d.Removed, removed...)
	return nil
}

func (d *DeltaDecoder) group(m *pb.GroupDelta) error {
	n, err := name(m.GetName())
	if err != nil {
		return under("name", err)
	}
	if err := known(m); err != nil {
		return err
	}
	add, err := decodeAll(m.GetAdd(), decodeEntry)
	if err != nil {
		return under("add", err)
	}
	remove, err := decodeAll(m.GetRemove(), decodeEntry)
	if err != nil {
		return under("remove", err)
	}
	if d.d.Groups == nil {
		d.d.Groups = map[string]core.GroupDelta{}
	}
	was := d.d.Groups[n]
	d.d.Groups[n] = core.GroupDelta{Add: append(was.Add, add...), Remove: append(was.Remove, remove...), Gone: was.Gone || m.GetGone()}
	return nil
}

func (d *DeltaDecoder) set(m *pb.SetDelta) error {
	n, err := name(m.GetName())
	if err != nil {
		return under("name", err)
	}
	if err := known(m); err != nil {
		return err
	}
	add, err := decodeAll(m.GetAdd(), decodeAddr)
	if err != nil {
		return under("add", err)
	}
	remove, err := decodeAll(m.GetRemove(), decodeAddr)
	if err != nil {
		return under("remove", err)
	}
	if d.d.Sets == nil {
		d.d.Sets = map[string]core.SetDelta{}
	}
	was := d.d.Sets[n]
	d.d.Sets[n] = core.SetDelta{Add: append(was.Add, add...), Remove: append(was.Remove, remove...), Gone: was.Gone || m.GetGone()}
	return nil
}

// Delta is what came.
func (d *DeltaDecoder) Delta() core.Delta { return d.d }
