package labtest

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
)

// Main runs the tests of a package and fails it when they leave a namespace, a
// thread, a socket, a process or an interface behind. Interrupted, it takes back
// what would outlive the process.
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
func Main(m *testing.M) int {
	before, err := lab.TakeSnapshot()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		sig := <-interrupted
		if err := lab.RemovePins(); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
		signal.Reset(sig)
		syscall.Kill(os.Getpid(), sig.(syscall.Signal))
	}()
	code := m.Run()
	left, err := before.Leftovers(3 * time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	for _, item := range left {
		fmt.Fprintln(os.Stderr, "lab: left behind:", item)
		code = max(code, 1)
	}
	return code
}

// CheckLeftovers fails the test when anything made since this call is left at
// its end. Call it first: cleanups run last to first. Not for parallel tests: they
// see each other.
func CheckLeftovers(t testing.TB) {
	t.Helper()
	before := Must(lab.TakeSnapshot())(t)
	t.Cleanup(func() {
		for _, item := range Must(before.Leftovers(3 * time.Second))(t) {
			t.Errorf("left behind: %s", item)
		}
	})
}
