package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/core"
)

// child is what this test binary does as a second process.
func child(role string, args []string) int {
	fail := func(err error) int {
		fmt.Println("error:", err)
		return 1
	}
	dir := args[0]
	switch role {
	case "hold":
		s, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			return fail(err)
		}
		fmt.Println("held")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		if err := s.Close(); err != nil {
			return fail(err)
		}
	case "write":
		s, err := Open(context.Background(), Options{Dir: dir})
		if err != nil {
			return fail(err)
		}
		for n := int(s.Snapshot().Revision) + 1; ; n++ {
			if err := s.Update(func(tx *Tx) error { return writeRound(tx, n) }); err != nil {
				return fail(err)
			}
			fmt.Println(n)
		}
	case "full":
		if err := fillDisk(dir); err != nil {
			return fail(err)
		}
		fmt.Println("ok")
	}
	return 0
}

const roundVMs = 40

// writeRound puts the round's number into many records.
func writeRound(tx *Tx, n int) error {
	for i := range roundVMs {
		v := vm(SourceAPI, fmt.Sprintf("vm-%d", i))
		v.Name = strings.Repeat("x", 300) + strconv.Itoa(n)
		if err := tx.PutVM(v); err != nil {
			return err
		}
	}
	return nil
}

func start(t *testing.T, role, dir string, attr *syscall.SysProcAttr) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), "STATE_TEST_ROLE="+role)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // open until the end
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

func TestHeldByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	cmd, lines := start(t, "hold", dir, nil)
	if !lines.Scan() || lines.Text() != "held" {
		t.Fatalf("the other process says %q", lines.Text())
	}
	_, err := Open(context.Background(), Options{Dir: dir})
	want := fmt.Sprintf("state %s is held by pid %d (%s %s)", filepath.Join(dir, FileName), cmd.Process.Pid, os.Args[0], dir)
	if !errors.Is(err, core.ErrConflict) || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want ErrConflict saying %q", err, want)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{Dir: dir, Wait: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want the context's", err)
	}

	opened := make(chan error, 1)
	go func() {
		s, err := Open(context.Background(), Options{Dir: dir, Wait: 30 * time.Second})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("after the other was killed: %v", err)
	}
}

// kill -9 in the middle of writing leaves the last answered change or the one
// under way, whole.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	const kills = 25
	for i := range kills {
		cmd, lines := start(t, "write", dir, nil)
		answered := 0
		// Some rounds, then a while that sweeps over the length of one.
		for range 3 {
			if !lines.Scan() {
				t.Fatal("the writer stopped")
			}
			answered, _ = strconv.Atoi(lines.Text())
		}
		time.Sleep(time.Duration(i) * 200 * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				answered = n
			}
		}
		_ = cmd.Wait()

		s := openIn(t, dir)
		snap := s.Snapshot()
		closed(t, s)
		if got := int(snap.Revision); got != answered && got != answered+1 {
			t.Fatalf("revision %d after the answer for %d", got, answered)
		}
		if len(snap.VMs) != roundVMs {
			t.Fatalf("%d VMs, want %d", len(snap.VMs), roundVMs)
		}
		for _, v := range snap.VMs {
			if n := strings.TrimLeft(v.Name, "x"); n != strconv.Itoa(int(snap.Revision)) {
				t.Fatalf("%s is of round %s in revision %d", v.Key, n, snap.Revision)
			}
		}
	}
}

// A disk that is really full: a small tmpfs in a mount namespace of the
// child's own.
func TestDiskFull(t *testing.T) {
	attr := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	_, lines := start(t, "full", t.TempDir(), attr)
	if !lines.Scan() || lines.Text() != "ok" {
		t.Errorf("the other process says %q", lines.Text())
	}
}

func fillDisk(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("ringwall-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	s, err := Open(context.Background(), Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := s.Update(func(tx *Tx) error { return writeRound(tx, 1) }); err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if err := f.Close(); err != nil {
		return err
	}
	before := s.Snapshot()
	grow := func(tx *Tx) error { return tx.PutValue("s", "k", make([]byte, 512<<10)) }
	err = s.Update(grow)
	switch {
	case !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, core.ErrNotReady):
		return fmt.Errorf("with a full disk the error is not ENOSPC and ErrNotReady: %w", err)
	case !strings.Contains(err.Error(), filepath.Join(dir, FileName)):
		return fmt.Errorf("the error does not name the file: %w", err)
	case s.Snapshot() != before:
		return errors.New("the state has changed in memory")
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(context.Background(), Options{Dir: dir}); err != nil {
		return fmt.Errorf("after the refusal: %w", err)
	}
	if got := s.Snapshot(); got.Revision != before.Revision || len(got.VMs) != roundVMs || len(got.Values) != 0 {
		return fmt.Errorf("half of the change is in the file: %+v", got)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := s.Update(grow); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	return s.Close()
}
