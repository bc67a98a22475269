package state

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/core"
)

// Memos are what the agent must know after a restart and nobody has asked for.
// They are no part of desired state: no Snapshot has them, no revision counts
// them.

// Memo reads what PutMemo kept; nil when there is nothing.
func (s *Store) Memo(key string) ([]byte, error) {
	var memo []byte
	err := s.trusted(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			record := tx.Bucket(memosBucket).Get([]byte(key))
			if record == nil {
				return nil
			}
			body, err := unseal([]byte(key), record)
			memo = append([]byte{}, body...) // bbolt's memory is its own
			return err
		})
	})
	return memo, err
}

// PutMemo keeps a memo, or forgets it when it is nil. ErrNotReady: the file
// cannot be written now.
func (s *Store) PutMemo(key string, memo []byte) error {
	if err := checkKey("key", key); err != nil {
		return err
	}
	err := s.trusted(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			if memo == nil {
				return tx.Bucket(memosBucket).Delete([]byte(key))
			}
			return tx.Bucket(memosBucket).Put([]byte(key), seal(key, memo))
		})
	})
	if err != nil {
		return fmt.Errorf("state %s: memo %s: %w: %w", s.path, key, err, core.ErrNotReady)
	}
	return nil
}
