package guests_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
)

func TestRunReportsOutputAndExitStatus(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{
		Modules: guests.PacketLabModules,
		Files:   map[string]string{"etc/greeting": "testdata/greeting"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := guests.Run(ctx, guests.RunSpec{Image: image, Argv: []string{
		"/bin/sh", "-c", "cat /etc/greeting; ls -1 -d /proc/sys/net/bridge /sys/module/nf_conntrack_bridge; exit 7",
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := "hello from a file\n/proc/sys/net/bridge\n/sys/module/nf_conntrack_bridge\n"
	if got := strings.ReplaceAll(string(r.Output), "\r", ""); got != want || r.Status != 7 {
		t.Errorf("status %d, output %q; want 7, %q", r.Status, got, want)
	}
}

func TestRunShowsTheConsoleOfAGuestThatDies(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = guests.Run(ctx, guests.RunSpec{Image: image, Argv: []string{"/bin/sh", "-c", "echo c > /proc/sysrq-trigger"}})
	if err == nil || !strings.Contains(err.Error(), "sysrq triggered crash") {
		t.Errorf("error %v; want one with the kernel's last words", err)
	}
}
