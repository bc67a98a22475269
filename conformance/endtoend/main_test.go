package endtoend

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
)

// inside tells the second start of the test binary from the first; bin is the
// folder with the programs, which the first has built.
const inside = "CONFORMANCE_ENDTOEND_BIN"

// TestMain builds the programs, and runs the tests in mount and network
// namespaces of their own: names under /run/netns, which the netns adapter reads,
// go with the process, however it ends.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		code, err := alone()
		if err != nil {
			fmt.Fprintln(os.Stderr, "endtoend:", err)
			code = 1
		}
		os.Exit(code)
	}
	if err := privateRun(); err != nil {
		fmt.Fprintln(os.Stderr, "endtoend:", err)
		os.Exit(1)
	}
	os.Exit(labtest.Main(m))
}

func alone() (code int, err error) {
	bin, err := programs.Build("cmd/ringwalld", "cmd/ringwall", "plugins/ringwall-plugin-netns", "plugins/ringwall-plugin-nftables")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+bin)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// The child gets an interrupt as well, and ends; what was built then goes, too.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	runtime.LockOSThread() // Pdeathsig is about the thread
	err = cmd.Run()
	if cmd.ProcessState != nil {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 1, fmt.Errorf("run in namespaces of its own (this needs root): %w", err)
}

// privateRun hides the machine's /run/netns behind an empty one.
func privateRun() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, "")
}
