package state

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// holder says which process has the lock on path, for people: the kernel knows
// (proc_locks(5)), where a file with a pid in it may be stale.
func holder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "another process"
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return "another process"
	}
	defer f.Close()
	// 1: FLOCK  ADVISORY  WRITE 23913 fe:00:9978656 0 EOF
	// The device is not compared: btrfs and overlayfs show stat another than
	// the lock's.
	inode := fmt.Sprintf(":%d", info.Sys().(*syscall.Stat_t).Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		// A waiting process's line starts with "->" in the second field.
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], inode) || w[4] == "0" {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + w[4] + "/cmdline")
		if err != nil || len(cmdline) == 0 {
			return "pid " + w[4]
		}
		words := bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '})
		return fmt.Sprintf("pid %s (%s)", w[4], words)
	}
	return "another process"
}
