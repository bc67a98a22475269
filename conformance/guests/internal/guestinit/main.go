// guestinit is the first program of a test guest (/init of its initramfs). It
// loads the kernel modules that the image lists, does what the boot config on
// the kernel command line says, and then either runs one program or serves
// requests on the second serial line (see package probe).
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/conformance/guests/internal/boot"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guestinit:", err)
	}
	// Started with -no-reboot, QEMU ends here. The kernel would panic instead
	// if init just returned.
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	// Go takes a host whose loopback is down for one without IPv6.
	if err := loopbackUp(); err != nil {
		return err
	}
	config, err := bootConfig()
	if err != nil {
		return err
	}
	a := newAgent()
	if config.Flood != nil {
		if err := a.startFlood(*config.Flood); err != nil {
			return fmt.Errorf("boot flood: %w", err)
		}
	}
	for _, l := range config.Links {
		if err := a.configure(l); err != nil {
			return fmt.Errorf("boot link %s: %w", l.NIC, err)
		}
	}
	line, err := openSerial(boot.ControlDevice)
	if err != nil {
		return err
	}
	if len(config.Run) > 0 {
		return runProgram(config.Run, line)
	}
	return a.serve(line)
}

// runProgram reports the exit status in a last line of its own.
func runProgram(argv []string, line *os.File) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "TERM=dumb"}
	cmd.Dir = "/tmp"
	cmd.Stdout, cmd.Stderr = line, line
	err := cmd.Run()
	status := 0
	if err != nil {
		status = -1
		if cmd.ProcessState != nil {
			status = cmd.ProcessState.ExitCode()
		} else {
			fmt.Fprintln(line, err)
		}
	}
	fmt.Fprintf(line, "\n%s%d\n", boot.ExitMarker, status)
	return drain(line)
}

func mountAll() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// The kernel speaks on its own as soon as a link is up (MLD, DAD, router
	// solicitations). A test wants to hear only what it asked for.
	for key, value := range map[string]string{
		"ipv6/conf/default/disable_ipv6": "1",
		"ipv6/conf/default/accept_ra":    "0",
		"ipv6/conf/default/accept_dad":   "0",
		"ipv4/ping_group_range":          "0 2147483647",
	} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loadModules loads what the lists name, in that order: each list has the
// dependencies first.
func loadModules() error {
	lists, err := filepath.Glob(boot.ModuleLists + "/*")
	if err != nil {
		return err
	}
	for _, list := range lists {
		f, err := os.Open(list)
		if err != nil {
			return err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if err := loadModule(s.Text()); err != nil {
				return fmt.Errorf("module %s: %w", s.Text(), err)
			}
		}
		f.Close()
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func bootConfig() (probe.Config, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return probe.Config{}, err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(word, boot.ConfigParameter+"="); ok {
			return probe.DecodeConfig(v)
		}
	}
	return probe.Config{}, nil
}

// openSerial makes the line a plain pipe of bytes.
func openSerial(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd()) // this also makes the file blocking
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	// QEMU waits four character times for more input before it raises the
	// interrupt, so the rate sets the latency.
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Ispeed, t.Ospeed = unix.B115200, unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, err
	}
	return f, nil
}

// drain waits until the line has carried everything.
func drain(f *os.File) error {
	return unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
}
