package netns_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests in a process of its own with namespaces of its own,
// for the network and for mounts. What they make in /run and of links is nowhere
// else, and goes with the process.
func TestMain(m *testing.M) {
	if os.Getenv("NETNS_TEST_CHILD") == "" {
		os.Exit(alone())
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "mount a /run of our own:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func alone() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "NETNS_TEST_CHILD=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, // makes / private, too
		Pdeathsig:    syscall.SIGKILL,
	}
	// The child gets an interrupt as well, and ends.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	runtime.LockOSThread() // Pdeathsig is about the thread
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "run in namespaces of its own (this needs root):", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func run(t testing.TB, command string) string {
	t.Helper()
	argv := strings.Fields(command)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// clean takes away all that a test may have made.
func clean(t testing.TB) {
	t.Helper()
	for _, name := range strings.Fields(run(t, "ip netns list")) {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			run(t, "ip netns delete "+name)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(run(t, "ip -o link show")), "\n") {
		name, _, _ := strings.Cut(strings.TrimSuffix(strings.Fields(line)[1], ":"), "@")
		if _, err := os.Stat("/proc/sys/net/ipv4/conf/" + name); name != "lo" && err == nil {
			exec.Command("ip", "link", "del", name).Run() // some, such as ifb0, come with the kernel and stay
		}
	}
}
