package cpio_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/conformance/guests/internal/cpio"
)

// busybox's reader is an independent one.
func TestArchiveIsReadByCpio(t *testing.T) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	w.File("/init", 0o755, []byte("odd"))
	w.File("lib/modules/a.ko", 0o644, bytes.Repeat([]byte("x"), 4097))
	w.Symlink("bin/sh", "busybox")
	w.CharDevice("dev/console", 0o600, 5, 1)
	w.Dir("proc")
	w.Dir("proc")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("busybox", "cpio", "-t", "-v")
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio -tv: %v\n%s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 6 { // the count of blocks
			continue
		}
		got = append(got, f[0]+" "+f[2]+" "+strings.Join(f[5:], " "))
	}
	want := []string{
		"-rwxr-xr-x 3 init",
		"drwxr-xr-x 0 lib",
		"drwxr-xr-x 0 lib/modules",
		"-rw-r--r-- 4097 lib/modules/a.ko",
		"drwxr-xr-x 0 bin",
		"lrwxrwxrwx 0 bin/sh -> busybox", // busybox prints no size for links
		"drwxr-xr-x 0 dev",
		"crw------- 0 dev/console",
		"drwxr-xr-x 0 proc",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("archive (-want +got):\n%s\n%s", d, out)
	}
}
