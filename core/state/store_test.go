package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/core"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("STATE_TEST_ROLE"); role != "" {
		os.Exit(child(role, os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mac(n byte) core.MAC { return core.MAC{2, 0, 0, 0, 0, n} }

func vm(source, key string) VM {
	return VM{core.VM{Key: core.VMKey(key), Name: key, NICs: []core.NIC{{MAC: mac(1)}}}, source}
}

func group(source, name string) Group { return Group{core.Group{Name: name}, source} }

func TestFileIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ringwall")
	closed(t, openIn(t, dir))
	path := filepath.Join(dir, FileName)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	closed(t, openIn(t, dir))
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, path: 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestOwnership(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer closed(t, s)
	byUUID := vm(SourceManifest, "web")
	byUUID.Key = "6a7f"
	if err := s.Update(func(tx *Tx) error {
		return errors.Join(tx.PutGroup(group(SourceManifest, "g")), tx.PutVM(vm(SourceManifest, "db")), tx.PutVM(byUUID))
	}); err != nil {
		t.Fatal(err)
	}
	before := s.Snapshot()
	for name, tc := range map[string]struct {
		change func(*Tx) error
		want   error
		says   string
	}{
		"group of another":       {func(tx *Tx) error { return tx.PutGroup(group(SourceAPI, "g")) }, core.ErrConflict, "group g belongs to source manifest"},
		"vm of another":          {func(tx *Tx) error { return tx.PutVM(vm(SourceAPI, "db")) }, core.ErrConflict, "vm db belongs to source manifest"},
		"vm of another by UUID":  {func(tx *Tx) error { return tx.PutVM(vm(SourceAPI, "6a7f")) }, core.ErrConflict, "belongs to source manifest"},
		"name is another's key":  {func(tx *Tx) error { v := vm(SourceAPI, "x"); v.Name = "db"; return tx.PutVM(v) }, core.ErrConflict, "belongs to source manifest"},
		"delete another's group": {func(tx *Tx) error { return tx.DeleteGroup(SourceAPI, "g") }, core.ErrConflict, "source api cannot"},
		"delete another's vm":    {func(tx *Tx) error { return tx.DeleteVM(SourceAPI, "db") }, core.ErrConflict, "source api cannot"},
		"delete no group":        {func(tx *Tx) error { return tx.DeleteGroup(SourceAPI, "h") }, core.ErrNotFound, "group h"},
		"delete no vm":           {func(tx *Tx) error { return tx.DeleteVM(SourceAPI, "h") }, core.ErrNotFound, "vm h"},
		"reserved name":          {func(tx *Tx) error { return tx.PutGroup(group(SourceAPI, "cloudstack/x")) }, core.ErrInvalid, "reserved"},
		"no source":              {func(tx *Tx) error { return tx.PutVM(vm("", "x")) }, core.ErrInvalid, "source"},
		"no key":                 {func(tx *Tx) error { return tx.PutVM(vm(SourceAPI, "")) }, core.ErrInvalid, "key: missing"},
		"one MAC twice": {func(tx *Tx) error {
			v := vm(SourceAPI, "x")
			v.NICs = append(v.NICs, v.NICs[0])
			return tx.PutVM(v)
		}, core.ErrInvalid, "nics[1].mac: 02:00:00:00:00:01"},
		"no direction": {func(tx *Tx) error {
			return tx.PutGroup(Group{core.Group{Name: "h", Rules: []core.Rule{{Protocol: core.ProtocolTCP}}}, SourceAPI})
		}, core.ErrInvalid, "rule 0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Update(tc.change)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error is %v, want %v saying %q", err, tc.want, tc.says)
			}
			if s.Snapshot() != before {
				t.Error("the state has changed")
			}
		})
	}
	if err := s.Update(func(tx *Tx) error { return tx.PutGroup(group(SourceCloudStack, "cloudstack/x")) }); err != nil {
		t.Error(err)
	}
}

func TestBindingsAreHintsOnly(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer closed(t, s)
	v := vm(SourceManifest, "web")
	v.NICs[0].Binding = core.Binding{Bridge: "br0", Devices: []string{"vnet0"}, Point: "pool"}
	if err := s.Update(func(tx *Tx) error { return tx.PutVM(v) }); err != nil {
		t.Fatal(err)
	}
	v.NICs[0].Binding.Devices[0] = "changed by the giver"
	got := s.Snapshot().VMs["web"].NICs[0].Binding
	if want := (core.Binding{Bridge: "br0", Devices: []string{"vnet0"}}); !cmp.Equal(got, want) {
		t.Errorf("kept %+v, want %+v", got, want)
	}
}

func TestStageTakesFailureBack(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer closed(t, s)
	boom := errors.New("boom")
	tx := s.Snapshot().Edit()
	if err := tx.Stage(func(tx *Tx) error { return tx.PutGroup(group(SourceAPI, "a")) }); err != nil {
		t.Fatal(err)
	}
	if err := tx.Stage(func(tx *Tx) error {
		if _, ok := tx.Group("a"); !ok {
			t.Error("a stage does not see the one before")
		}
		return errors.Join(tx.DeleteGroup(SourceAPI, "a"), tx.PutGroup(group(SourceAPI, "b")), tx.PutValue("x", "k", nil), boom)
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := s.Commit(tx); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	if want := map[string]Group{"a": group(SourceAPI, "a")}; !cmp.Equal(snap.Groups, want) || len(snap.Values) != 0 {
		t.Errorf("state is %+v", snap)
	}
	if err := s.Commit(tx); !errors.Is(err, core.ErrConflict) {
		t.Errorf("committing upon an older snapshot: %v, want ErrConflict", err)
	}
}

func TestNothingChangedWritesNothing(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer closed(t, s)
	put := func(tx *Tx) error {
		return errors.Join(tx.PutGroup(group(SourceAPI, "a")), tx.PutVM(vm(SourceAPI, "v")), tx.PutValue("s", "k", []byte("1")))
	}
	for range 3 {
		if err := s.Update(put); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.Snapshot().Revision; r != 1 {
		t.Errorf("revision is %d after one change given thrice, want 1", r)
	}
}

func TestForeignAndNewerFilesAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*bolt.Tx) error
		want    error
		says    string
	}{
		"foreign": {func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }, ErrDamaged, "not Ringwall's"},
		"newer":   {func(tx *bolt.Tx) error { return writeMeta(tx, metaRecord{Schema: 99}) }, core.ErrUnsupported, "schema 99"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, err := bolt.Open(filepath.Join(dir, FileName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(tc.prepare), db.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = Open(context.Background(), Options{Dir: dir})
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), filepath.Join(dir, FileName)) {
				t.Errorf("error is %v, want %v saying %q and the file", err, tc.want, tc.says)
			}
		})
	}
}

func TestMigration(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	if err := s.Update(func(tx *Tx) error { return tx.PutGroup(group(SourceAPI, "a")) }); err != nil {
		t.Fatal(err)
	}
	closed(t, s)

	boom := errors.New("boom")
	half := append(slices.Clone(migrations[:1]), func(tx *bolt.Tx) error { return errors.Join(tx.DeleteBucket(groupsBucket), boom) })
	if _, err := open(context.Background(), Options{Dir: dir}, half); !errors.Is(err, boom) {
		t.Fatalf("error is %v, want the migration's", err)
	}
	rename := append(slices.Clone(migrations[:1]), func(tx *bolt.Tx) error {
		return put(tx.Bucket(groupsBucket), "b", groupRecord{Source: SourceAPI})
	})
	s, err := open(context.Background(), Options{Dir: dir}, rename)
	if err != nil {
		t.Fatal(err)
	}
	if snap := s.Snapshot(); len(snap.Groups) != 2 || snap.Revision != 1 {
		t.Errorf("after the migration: %+v", snap)
	}
	closed(t, s)

	if _, err := Open(context.Background(), Options{Dir: dir}); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("the older version opened the newer file: %v", err)
	}
	// The way back.
	if err := os.Rename(filepath.Join(dir, FileName+".schema-1"), filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir)
	defer closed(t, s)
	if want := map[string]Group{"a": group(SourceAPI, "a")}; !cmp.Equal(s.Snapshot().Groups, want) {
		t.Errorf("the copy holds %+v", s.Snapshot().Groups)
	}
}

func TestMemos(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	want := func(want string) {
		t.Helper()
		got, err := s.Memo("kept/")
		if err != nil || string(got) != want {
			t.Errorf("memo is %q, %v, want %q", got, err, want)
		}
	}
	want("")
	if err := s.PutMemo("kept/", []byte("x")); err != nil {
		t.Fatal(err)
	}
	want("x")
	if s.Snapshot().Revision != 0 {
		t.Error("a memo is no revision")
	}
	closed(t, s)
	s = openIn(t, dir)
	defer closed(t, s)
	want("x")
	if err := errors.Join(s.PutMemo("kept/", nil), s.PutMemo("none", nil)); err != nil {
		t.Fatal(err)
	}
	want("")
	if err := s.PutMemo("", nil); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}
