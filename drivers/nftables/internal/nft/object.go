package nft

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Object is a thing of a kind that this package makes none of: a named counter,
// a flowtable. In our tables it was put there by somebody else; Diff removes it.
type Object struct {
	Type uint32 // NFT_OBJECT_*, 0 for a flowtable
	Name string
}

var objectTypes = []string{
	"flowtable", "counter", "quota", "ct helper", "limit", "connlimit",
	"tunnel", "ct timeout", "secmark", "ct expectation", "synproxy",
}

func (o Object) String() string {
	if int(o.Type) < len(objectTypes) {
		return objectTypes[o.Type] + " " + o.Name
	}
	return fmt.Sprintf("object of type %d %s", o.Type, o.Name)
}

func (o Object) compare(p Object) int {
	return cmp.Or(cmp.Compare(o.Type, p.Type), cmp.Compare(o.Name, p.Name))
}

// DeleteObject deletes a named object or flowtable.
func (tx *Tx) DeleteObject(id TableID, o Object) {
	typ := unix.NFT_MSG_DELOBJ
	if o.Type == 0 {
		typ = unix.NFT_MSG_DELFLOWTABLE
	}
	tx.begin(typ, 0, message{op: "delete", table: id, kind: objectKind(o), name: o.Name})
	tx.buf.str(unix.NFTA_OBJ_TABLE, id.Name)
	tx.buf.str(unix.NFTA_OBJ_NAME, o.Name) // NFTA_FLOWTABLE_NAME is the same
	if o.Type != 0 {
		tx.buf.u32(unix.NFTA_OBJ_TYPE, o.Type)
	}
	tx.finish()
}

func objectKind(o Object) string {
	if int(o.Type) < len(objectTypes) {
		return objectTypes[o.Type]
	}
	return "object"
}

// objects reads the named objects and flowtables of a table.
func (s *sock) objects(ctx context.Context, t *Table) error {
	var body buffer
	body.str(unix.NFTA_OBJ_TABLE, t.Name)
	note := func(m nlMessage) error {
		var table string
		var o Object
		for a := range attrs(m.body()) {
			switch {
			case a.typ == unix.NFTA_OBJ_TABLE:
				table = a.str()
			case a.typ == unix.NFTA_OBJ_NAME:
				o.Name = a.str()
			case a.typ == unix.NFTA_OBJ_TYPE && m.kind() == unix.NFT_MSG_NEWOBJ:
				o.Type = a.u32()
			}
		}
		if table == t.Name {
			t.Foreign = append(t.Foreign, o)
		}
		return nil
	}
	for _, kind := range []int{unix.NFT_MSG_GETOBJ, unix.NFT_MSG_GETFLOWTABLE} {
		if err := s.request(ctx, kind, unix.NLM_F_DUMP, t.Family, body, note); err != nil {
			return fmt.Errorf("objects: %w", err)
		}
	}
	slices.SortFunc(t.Foreign, Object.compare)
	return nil
}
