package guests

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/conformance/guests/internal/boot"
	"github.com/ringwall/ringwall/conformance/guests/internal/cpio"
	"github.com/ringwall/ringwall/core"
)

const lockPoll = 50 * time.Millisecond

// baseModules make a guest's virtio NICs appear.
var baseModules = []string{"virtio_pci", "virtio_net"}

// PacketLabModules are those that conformance/lab and the drivers need inside a
// guest, the native datapath's connection tracking on bridges among them.
var PacketLabModules = []string{
	"bridge", "br_netfilter", "veth", "8021q", "dummy", "tun",
	"nf_conntrack_bridge", "nf_conntrack", "nf_conntrack_netlink", "nfnetlink", "nfnetlink_log",
	"nf_tables", "nft_ct", "nft_log", "nft_limit", "nft_reject", "nft_reject_inet", "nft_fib_inet",
	"nft_meta_bridge", "nft_reject_bridge", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_log_syslog",
}

// ImageOptions say what a guest's file system holds beside the probe.
type ImageOptions struct {
	// Modules to load at boot, with all that they need, after virtio's.
	Modules []string
	// Files are copied in: path in the guest -> path here. They keep their
	// execute permission.
	Files map[string]string
}

// Image is what a guest boots.
type Image struct {
	Kernel Kernel
	Initrd string // path of the compressed initramfs
}

// BuildImage makes an initramfs at path: the probe as /init, busybox, kernel
// modules and files. The probe is compiled from source, so a Go toolchain and
// this module's source must be at hand.
func BuildImage(ctx context.Context, path string, o ImageOptions) (Image, error) {
	k, err := FetchKernel(ctx)
	if err != nil {
		return Image{}, err
	}
	var b bytes.Buffer
	// The kernel unpacks one TCG instruction at a time: speed counts, not size.
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return Image{}, err
	}
	if err := writeRoot(ctx, z, k, o); err != nil {
		return Image{}, fmt.Errorf("build a guest image: %w", err)
	}
	if err := z.Close(); err != nil {
		return Image{}, err
	}
	return Image{k, path}, os.WriteFile(path, b.Bytes(), 0o644)
}

func writeRoot(ctx context.Context, w io.Writer, k Kernel, o ImageOptions) error {
	root := cpio.NewWriter(w)
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "bin"} {
		root.Dir(dir)
	}
	// Before devtmpfs is mounted, init's own output goes here.
	root.CharDevice("dev/console", 0o600, 5, 1)
	if err := addInit(ctx, root); err != nil {
		return err
	}
	if err := addBusybox(root); err != nil {
		return err
	}
	if err := addModules(root, k, append(slices.Clone(baseModules), o.Modules...)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Files)) {
		if err := addFile(root, name, o.Files[name]); err != nil {
			return err
		}
	}
	return root.Close()
}

func addInit(ctx context.Context, root *cpio.Writer) error {
	dir, err := os.MkdirTemp("", "guestinit")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "init")
	if err := buildStatic(ctx, bin, "./internal/guestinit"); err != nil {
		return err
	}
	return addFile(root, "init", bin)
}

// addBusybox gives a human a shell (boot with rdinit=/bin/sh), and programs
// under test the tools they may want.
func addBusybox(root *cpio.Writer) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox: %w (apt-get install busybox-static): %w", err, core.ErrNotFound)
	}
	if err := addFile(root, "bin/busybox", path); err != nil {
		return err
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			root.Symlink("bin/"+applet, "busybox")
		}
	}
	return nil
}

func addModules(root *cpio.Writer, k Kernel, names []string) error {
	index, err := indexModules(k)
	if err != nil {
		return err
	}
	files, err := index.closure(names)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, f := range files {
		name := "lib/modules/" + filepath.Base(f)
		if err := addFile(root, name, f); err != nil {
			return err
		}
		list.WriteString("/" + name + "\n")
	}
	root.File(boot.ModuleLists+"/modules", 0o644, []byte(list.String()))
	return nil
}

func addFile(root *cpio.Writer, name, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	root.File(name, uint32(info.Mode().Perm()), content)
	return nil
}

// buildStatic compiles a command of this folder.
func buildStatic(ctx context.Context, out, pkg string) error {
	source, err := sourceDir()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, bytes.TrimSpace(said))
	}
	return nil
}

// sourceDir asks the go command where this package is, from the folder of the
// test that runs.
func sourceDir() (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/ringwall/ringwall/conformance/guests").Output()
	if err != nil {
		return "", fmt.Errorf("find the source of the guest's probe; run from within the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
