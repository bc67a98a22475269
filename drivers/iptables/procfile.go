package iptables

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// legacyTables says whether the legacy iptables holds any table in the
// namespace. To start iptables-legacy-save would make them.
func legacyTables(fd int) bool {
	names := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			names <- ""
			return
		}
		b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil {
			b = nil
		}
		names <- string(b)
	}()
	return <-names != ""
}
