package nft

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// enterNamespace puts the test into a network namespace of its own and opens a
// connection there. The thread is never unlocked: it dies with the test, and
// the namespace with it.
func enterNamespace(t testing.TB) *Conn {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace (run as root): %v", err)
	}
	c, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// nftList prints the ruleset with the nft program, as an operator would.
func nftList(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", append([]string{"list"}, args...)...).CombinedOutput()
	// nft reports what it cannot read and succeeds all the same.
	if err != nil || strings.Contains(string(out), "Error") {
		t.Fatalf("nft list %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// nft runs the nft program, as somebody else on the host would.
func nft(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func apply(t testing.TB, c *Conn, tx *Tx) uint32 {
	t.Helper()
	gen, err := c.Apply(testContext(t), tx)
	if err != nil {
		t.Fatal(err)
	}
	return gen
}

func read(t testing.TB, c *Conn, id TableID) *Table {
	t.Helper()
	table, err := c.Read(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
