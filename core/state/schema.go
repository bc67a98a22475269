package state

import (
	"errors"
	"fmt"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/core"
)

// A migration leads the file's schema from one version to the next, within the
// transaction that ends with the new version's number.
type migration func(*bolt.Tx) error

// migrations[n] leads from version n to n+1. Version 0 is an empty file. Never
// change one that was released: add the next.
var migrations = []migration{
	func(tx *bolt.Tx) error {
		for _, name := range [][]byte{groupsBucket, vmsBucket, valuesBucket, memosBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	},
}

var (
	metaBucket   = []byte("meta")
	groupsBucket = []byte("groups") // name -> groupRecord
	vmsBucket    = []byte("vms")    // key -> vmRecord
	valuesBucket = []byte("values") // source NUL key -> bytes
	memosBucket  = []byte("memos")  // key -> bytes
)

const metaKey = "state"

// metaRecord is the only record of the meta bucket.
type metaRecord struct {
	Schema   int    `json:"schema"`
	Revision uint64 `json:"revision"`
}

// load brings the schema up to date and reads everything.
func (s *Store) load(ms []migration) error {
	if err := s.checkSize(); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bolt.Tx) error { return s.migrate(tx, ms) })
	if err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error {
		snapshot, err := read(tx)
		if err != nil {
			return s.damaged(err)
		}
		// Reading has touched every page in use, so that Check, which
		// works in a goroutine where a fault would be the end, meets none.
		for err := range tx.Check() {
			if err != nil {
				return s.damaged(err)
			}
		}
		s.current.Store(snapshot)
		return nil
	})
}

// checkSize finds a file that was cut short, before a page is missed.
func (s *Store) checkSize() error {
	return s.db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(s.path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return s.damaged(fmt.Errorf("%d bytes long, %d expected", info.Size(), tx.Size()))
		}
		return nil
	})
}

func (s *Store) migrate(tx *bolt.Tx, ms []migration) error {
	meta, err := readMeta(tx)
	if err != nil {
		return s.damaged(err)
	}
	switch {
	case meta.Schema == len(ms):
		return nil
	case meta.Schema > len(ms):
		return fmt.Errorf("state %s has schema %d, and this Ringwall knows %d at most; run the newer version that wrote it, or move the file away: %w", s.path, meta.Schema, len(ms), core.ErrUnsupported)
	case meta.Schema > 0:
		// The way back to the version before.
		if err := tx.CopyFile(fmt.Sprintf("%s.schema-%d", s.path, meta.Schema), 0o600); err != nil {
			return fmt.Errorf("state %s: a copy before changing the schema: %w", s.path, err)
		}
	}
	for _, m := range ms[meta.Schema:] {
		if err := m(tx); err != nil {
			return fmt.Errorf("state %s: to schema %d: %w", s.path, meta.Schema+1, err)
		}
		meta.Schema++
	}
	return writeMeta(tx, meta)
}

func readMeta(tx *bolt.Tx) (metaRecord, error) {
	var meta metaRecord
	b := tx.Bucket(metaBucket)
	if b == nil {
		if k, _ := tx.Cursor().First(); k != nil {
			return meta, errors.New("a bbolt file, but not Ringwall's")
		}
		return meta, nil
	}
	err := unmarshal([]byte(metaKey), b.Get([]byte(metaKey)), &meta)
	return meta, err
}

func writeMeta(tx *bolt.Tx, meta metaRecord) error {
	b, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	record, err := marshal(metaKey, meta)
	if err != nil {
		return err
	}
	return b.Put([]byte(metaKey), record)
}

func read(tx *bolt.Tx) (*Snapshot, error) {
	meta, err := readMeta(tx)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Revision: meta.Revision, Groups: map[string]Group{}, VMs: map[core.VMKey]VM{}, Values: map[ValueKey][]byte{}}
	readers := map[string]func(k, v []byte) error{
		string(groupsBucket): func(k, v []byte) error {
			var r groupRecord
			if err := unmarshal(k, v, &r); err != nil {
				return err
			}
			g, err := r.group(string(k))
			s.Groups[g.Name] = g
			return err
		},
		string(vmsBucket): func(k, v []byte) error {
			var r vmRecord
			if err := unmarshal(k, v, &r); err != nil {
				return err
			}
			vm, err := r.vm(core.VMKey(k))
			s.VMs[vm.Key] = vm
			return err
		},
		string(valuesBucket): func(k, v []byte) error {
			body, err := unseal(k, v)
			source, key, _ := strings.Cut(string(k), "\x00")
			s.Values[ValueKey{source, key}] = append([]byte{}, body...) // bbolt's memory is its own
			return err
		},
		// Read when asked for, but the pages are looked at with the others.
		string(memosBucket): func(k, v []byte) error {
			_, err := unseal(k, v)
			return err
		},
	}
	for name, reader := range readers {
		b := tx.Bucket([]byte(name))
		if b == nil {
			return nil, fmt.Errorf("bucket %s is missing", name)
		}
		if err := b.ForEach(reader); err != nil {
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return s, nil
}

func write(b *bolt.Tx, tx *Tx, revision uint64) error {
	meta, err := readMeta(b)
	if err != nil {
		return err
	}
	meta.Revision = revision
	if err := writeMeta(b, meta); err != nil {
		return err
	}
	for name, g := range tx.groups.over {
		var record any
		if g != nil {
			record = g.record()
		}
		if err := put(b.Bucket(groupsBucket), name, record); err != nil {
			return err
		}
	}
	for key, v := range tx.vms.over {
		var record any
		if v != nil {
			record = v.record()
		}
		if err := put(b.Bucket(vmsBucket), string(key), record); err != nil {
			return err
		}
	}
	for k, v := range tx.values.over {
		key := k.Source + "\x00" + k.Key
		if v == nil {
			err = b.Bucket(valuesBucket).Delete([]byte(key))
		} else {
			err = b.Bucket(valuesBucket).Put([]byte(key), seal(key, *v))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put writes a record, or deletes it when it is nil.
func put(b *bolt.Bucket, key string, record any) error {
	if record == nil {
		return b.Delete([]byte(key))
	}
	sealed, err := marshal(key, record)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), sealed)
}
