package guests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/conformance/guests/internal/boot"
	"github.com/ringwall/ringwall/conformance/guests/probe"
)

// RunSpec is one program to run in a guest of its own, without a network.
type RunSpec struct {
	Image  Image
	Argv   []string // a static program; it runs as root, in /tmp
	Memory int      // MiB; zero: 512. The file system lives in it too
	CPUs   int      // zero: 1
}

// RunResult is what became of it.
type RunResult struct {
	Status int    // exit status; -1 when a signal ended it
	Output []byte // its standard output and error
}

// Run boots a guest, runs the program and returns when the guest has powered
// off. A guest that ends without a word of the program's end (a panic, out of
// memory) is an error that carries the console.
func Run(ctx context.Context, s RunSpec) (RunResult, error) {
	config, err := probe.Config{Run: s.Argv}.Encode()
	if err != nil {
		return RunResult{}, err
	}
	j, err := newJail(ctx, nil, nil)
	if err != nil {
		return RunResult{}, err
	}
	defer j.close()
	console, output := path.Join(j.dir, "console"), path.Join(j.dir, "output")
	pid, err := j.run(ctx, path.Join(j.dir, "qemu.log"), emulator,
		"-M", "q35", "-accel", "tcg", "-cpu", "max",
		"-m", strconv.Itoa(orElse(s.Memory, 512)), "-smp", strconv.Itoa(orElse(s.CPUs, 1)),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "file:"+console, "-serial", "file:"+output,
		"-kernel", s.Image.Kernel.Image, "-initrd", s.Image.Initrd, "-append", commandLine(config))
	if err != nil {
		return RunResult{}, err
	}
	if _, err := j.wait(ctx, pid); err != nil {
		return RunResult{}, fmt.Errorf("guest: %w\n%s", err, tail(console, output))
	}
	b, err := os.ReadFile(output)
	if err != nil {
		return RunResult{}, fmt.Errorf("guest: %w\n%s", err, tail(path.Join(j.dir, "qemu.log")))
	}
	i := bytes.LastIndex(b, []byte("\n"+boot.ExitMarker))
	if i < 0 {
		return RunResult{}, fmt.Errorf("the guest ended before its program did\n%s", tail(console, output))
	}
	status, err := strconv.Atoi(strings.TrimSpace(string(b[i+1+len(boot.ExitMarker):])))
	return RunResult{status, b[:i]}, err
}

// emulator runs every guest. TCG always: a test must behave alike on machines
// with and without nested virtualisation.
const emulator = "qemu-system-x86_64"

// commandLine is the guest kernel's. A panic ends the guest at once; the rest
// is what takes emulated seconds and protects a test from nothing.
func commandLine(config string) string {
	return "console=ttyS0 loglevel=5 panic=-1 net.ifnames=0 mitigations=off tsc=reliable no_timer_check nokaslr " +
		boot.ConfigParameter + "=" + config
}

// tail shows the ends of files, for messages.
func tail(paths ...string) string {
	const most = 4096
	var out strings.Builder
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if len(b) > most {
			b = b[len(b)-most:]
		}
		fmt.Fprintf(&out, "--- %s\n%s\n", path.Base(p), bytes.TrimSpace(b))
	}
	return out.String()
}

func orElse(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}
