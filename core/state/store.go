package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/ringwall/ringwall/core"
)

// FileName is the state's file in its directory.
const FileName = "state.db"

// Options say where the state is.
type Options struct {
	Dir string // made when missing, mode 0700
	// Wait is how long to wait for another process to let go of the state.
	// Zero does not wait.
	Wait time.Duration
}

// Store is the state of one process, which holds it alone. Its methods may be
// called at once from several goroutines.
type Store struct {
	path    string
	db      *bolt.DB
	writing sync.Mutex
	current atomic.Pointer[Snapshot]
}

// Open opens the state, or makes an empty one. ErrConflict: another process
// holds it. ErrDamaged: the file cannot be trusted. ErrUnsupported: a newer
// Ringwall wrote it.
func Open(ctx context.Context, o Options) (*Store, error) { return open(ctx, o, migrations) }

func open(ctx context.Context, o Options, ms []migration) (*Store, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &Store{path: filepath.Join(o.Dir, FileName)}
	var file *os.File
	err := s.acquire(ctx, o.Wait, &file)
	if err == nil {
		err = s.trusted(func() error { return s.load(ms) })
	}
	if err != nil {
		s.abandon(file)
		return nil, err
	}
	return s, nil
}

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// acquire opens and locks the file. *file is kept because bbolt may panic over
// a damaged file before it gives a DB to close.
func (s *Store) acquire(ctx context.Context, wait time.Duration, file **os.File) error {
	deadline := time.Now().Add(wait)
	options := *bolt.DefaultOptions
	options.Timeout = time.Nanosecond // one attempt: waiting is done here, where ctx counts
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		if err != nil {
			return nil, err
		}
		*file = f
		return f, f.Chmod(0o600) // an older file may be wider
	}
	for {
		err := s.trusted(func() (err error) {
			s.db, err = bolt.Open(s.path, 0o600, &options)
			return err
		})
		var errno syscall.Errno
		switch {
		case err == nil || errors.Is(err, ErrDamaged):
			return err
		case errors.As(err, &errno):
			return fmt.Errorf("state %s: %w", s.path, err)
		case !errors.Is(err, bolterrors.ErrTimeout):
			return s.damaged(err) // bbolt has no sentinel for a file cut short
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("state %s is held by %s: %w", s.path, holder(s.path), core.ErrConflict)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("state %s is held by %s: %w", s.path, holder(s.path), ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// abandon lets go of a file that bbolt may be confused about.
func (s *Store) abandon(file *os.File) {
	if s.db != nil {
		_ = s.trusted(s.db.Close)
	}
	if file != nil {
		// A panic in bbolt leaves its mapping behind, which keeps the lock
		// though the file is closed.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		_ = file.Close()
	}
}

// ErrDamaged: the state's file is not as Ringwall left it. It wraps nothing of
// core: no caller can mend it.
var ErrDamaged = errors.New("damaged")

// trusted runs fn, which reads the file. bbolt v1.5.0 panics over pages that
// make no sense and faults over pages that a truncated file no longer has;
// both become ErrDamaged.
func (s *Store) trusted(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = s.damaged(fmt.Errorf("%v", r))
		}
	}()
	return fn()
}

func (s *Store) damaged(cause error) error {
	return fmt.Errorf("state file %s is %w: %w. Nothing was changed, and the host goes on enforcing what it has. Way out: put a copy back, or move the file away (mv %s %s.damaged) and start again: manifests and hypervisor metadata fill the new one, what was given through the API must be given again",
		s.path, ErrDamaged, cause, s.path, s.path)
}

// Close lets go of the state.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.db.Close()
}

// Path is the state's file.
func (s *Store) Path() string { return s.path }

// Snapshot is the state as it was last committed.
func (s *Store) Snapshot() *Snapshot { return s.current.Load() }

// Update runs fn and commits what it did. When fn fails, or the file cannot be
// written, nothing has changed.
func (s *Store) Update(fn func(*Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx := s.Snapshot().Edit()
	if err := fn(tx); err != nil {
		return err
	}
	return s.commit(tx)
}

// Commit writes a transaction. ErrConflict: it was not made upon the current
// snapshot. ErrNotReady: the file cannot be written now (disk full); nothing
// has changed.
func (s *Store) Commit(tx *Tx) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.commit(tx)
}

func (s *Store) commit(tx *Tx) error {
	if tx.base != s.Snapshot() || tx.groups.under != nil {
		return fmt.Errorf("the change was made upon another state than the current: %w", core.ErrConflict)
	}
	if tx.empty() {
		return nil
	}
	next := tx.Snapshot()
	err := s.trusted(func() error {
		return s.db.Update(func(b *bolt.Tx) error { return write(b, tx, next.Revision) })
	})
	if err != nil {
		return fmt.Errorf("state %s cannot be written, the change is refused: %w: %w", s.path, err, core.ErrNotReady)
	}
	s.current.Store(next)
	return nil
}
