package guests_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
)

// startAndWait runs a guest and says where its files are. Nothing ends it but a
// signal.
func startAndWait() error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return err
	}
	image, err := guests.BuildImage(ctx, filepath.Join(dir, "initrd"), guests.ImageOptions{})
	if err != nil {
		return err
	}
	d, err := guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Image: image})
	if err != nil {
		return err
	}
	g, err := d.DefineGuest(guests.Spec{Name: "orphan"})
	if err != nil {
		return err
	}
	if err := g.Launch(); err != nil {
		return err
	}
	fmt.Println(d.Dir(""))
	fmt.Println(dir)
	select {}
}

// A test that is killed leaves no daemon, no guest and no file.
func TestKilledTestLeavesNothing(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	for len(said) < 2 && lines.Scan() {
		said = append(said, lines.Text())
	}
	if len(said) < 2 {
		cmd.Wait()
		t.Fatalf("the program that starts a guest ended: %v", said)
	}
	dir := said[0]
	if n := processesOf(t, dir); n == 0 {
		t.Error("no process is seen to run, so none is seen to end")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	os.RemoveAll(said[1]) // its own, made outside
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(dir)
		n := processesOf(t, dir)
		if os.IsNotExist(err) && n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s %d processes and the folder (%v) are left", n, err)
		}
	}
}

// processesOf counts those that share the jail's mounts: /run is the folder's.
func processesOf(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), dir+"/run /run ") {
			n++
		}
	}
	return n
}
