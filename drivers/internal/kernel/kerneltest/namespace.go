// Package kerneltest makes network namespaces for the tests of what speaks to
// the kernel. They are files nowhere and end with the test.
package kerneltest

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is a network namespace that is held open until the test ends.
type Namespace struct {
	t  testing.TB
	ns netns.NsHandle
}

// New makes a namespace with its loopback up.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t, ns: netns.None()}
	n.onThread(func() error {
		var err error
		if n.ns, err = netns.New(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	t.Cleanup(func() { n.ns.Close() })
	return n
}

// FD is valid until the test ends.
func (n *Namespace) FD() int { return int(n.ns) }

// Do runs f on a thread inside the namespace and waits for it. Sockets that f
// opens stay in the namespace; so do processes that it starts.
func (n *Namespace) Do(f func() error) {
	n.t.Helper()
	n.onThread(func() error {
		if err := netns.Set(n.ns); err != nil {
			return err
		}
		return f()
	})
}

// onThread never unlocks the thread, so that it dies with its namespace.
func (n *Namespace) onThread(f func() error) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// Run runs a program inside the namespace and gives back what it printed.
func (n *Namespace) Run(argv ...string) string {
	n.t.Helper()
	return n.RunInput("", argv...)
}

// NFT loads rules into the namespace.
func (n *Namespace) NFT(rules string) {
	n.t.Helper()
	n.RunInput(rules, "nft", "-f", "-")
}

// RunInput is Run with something to read.
func (n *Namespace) RunInput(input string, argv ...string) (out string) {
	n.t.Helper()
	n.Do(func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(input)
		b, err := cmd.CombinedOutput()
		if out = string(b); err != nil {
			n.t.Logf("%s: %s", strings.Join(argv, " "), out)
		}
		return err
	})
	return out
}
