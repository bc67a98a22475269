package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onOneCPU runs fn on a thread of its own that stays on the CPU it is on.
func onOneCPU(fn func(cpu int) error) error {
	return onOwnThread(func() error {
		var cpu uint32
		if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
			return fmt.Errorf("getcpu: %w", errno)
		}
		var set unix.CPUSet
		set.Set(int(cpu))
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("stay on CPU %d: %w", cpu, err)
		}
		return fn(int(cpu))
	})
}

// packetsAreSteered says whether new interfaces get receive packet steering
// (net.core.rps_default_mask, kernel 6.2 and up).
func packetsAreSteered() bool {
	b, err := os.ReadFile("/proc/sys/net/core/rps_default_mask")
	return err == nil && strings.Trim(strings.TrimSpace(string(b)), "0,") != ""
}

// backlogDrops counts the frames that the backlog of a CPU had no place for
// since boot. They may be anybody's: all namespaces share it.
func backlogDrops(cpu int) (uint64, error) {
	b, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return 0, err
	}
	var sum uint64
	for line := range strings.Lines(string(b)) {
		// Hexadecimal columns: processed, dropped, ...; the 13th is the CPU
		// (kernel 5.10 and up). Without it all CPUs count.
		columns := strings.Fields(line)
		if len(columns) < 2 {
			continue
		}
		if len(columns) > 12 {
			if n, err := strconv.ParseUint(columns[12], 16, 32); err != nil || int(n) != cpu {
				continue
			}
		}
		n, err := strconv.ParseUint(columns[1], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/net/softnet_stat: %w", err)
		}
		sum += n
	}
	return sum, nil
}
